/** Explains permission errors: the missing role, and the command that grants it. */
import pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import { lacksPrivilege, type PostgresSession } from "../../foundation/postgres/index.js";
import { storeFailure } from "../store/index.js";
import { functionsChecksum, migrations, programSchema } from "./migrations.js";
import type { CatalogReader } from "./schema.js";

/** Role whose privileges a login needs: that of peers and their commands, or that of `hawser serve`. */
export type HawserRole = "hawser_peer" | "hawser_bridge";

const situationSql = (wanted: HawserRole) => `
  SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS "exists",
         pg_get_userbyid(n.nspowner) AS owner, w.oid IS NOT NULL AS "hasRole",
         coalesce(pg_has_role(w.oid, 'MEMBER'), false) AS "isMember", has_database_privilege(current_database(), 'CREATE') AS creates
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS n ON n.nspname = 'hawser'
    LEFT JOIN pg_roles AS w ON w.rolname = '${wanted}'`;

interface Situation {
  readonly role: string;
  readonly database: string;
  readonly exists: boolean;
  readonly owner: string | null;
  /** True if the wanted role exists. */
  readonly hasRole: boolean;
  /** True if the login is a member of it. */
  readonly isMember: boolean;
  /** True if the login may create schemas. */
  readonly creates: boolean;
}

const appliedSql = `
  SELECT count(*)::int AS applied, (array_agg(m.functions ORDER BY m.id DESC))[1] AS functions FROM hawser.applied_migrations() AS m`;

/**
 * Explains an error of a schema inspection or a migration. For a missing privilege, the message names the role that
 * lacks it and the remedy.
 *
 * @param wanted role with the privileges for the action
 * @returns `schema_missing` if the schema is absent or too old and the role may not change it; `not_permitted` if it lacks
 *   the role `wanted`; otherwise `store_failed`
 */
export async function explainRefusal(
  client: CatalogReader,
  action: string,
  cause: unknown,
  wanted: HawserRole = "hawser_peer",
): Promise<HawserError> {
  if (!lacksPrivilege(cause)) return storeFailure(action, cause);
  const { rows } = await client.query(situationSql(wanted)).catch(() => ({ rows: [] }));
  const [situation] = rows as readonly Situation[];
  if (situation === undefined) return storeFailure(action, cause);
  const { role, database, exists, owner, hasRole, isMember, creates } = situation;
  const login = pg.escapeIdentifier(role);
  if (!exists) {
    if (wanted === "hawser_bridge") return noSchema(database, cause);
    // A first installation that lacked another privilege has left nothing behind.
    if (creates) return storeFailure(action, cause);
    return new HawserError(
      "schema_missing",
      `the database "${database}" has no schema hawser, and the role "${role}" may not create it: run \`hawser init\` once as a role that may, or GRANT CREATE ON ` +
        `DATABASE ${pg.escapeIdentifier(database)} TO ${login}`,
      { cause },
    );
  }
  if (await isOlder(client)) {
    return new HawserError(
      "schema_missing",
      `the schema hawser of the database "${database}" is older than this program, and the role "${role}" may not change ` +
        `it: run \`hawser init\` as its owner, "${owner}"`,
      { cause },
    );
  }
  if (isMember) return storeFailure(action, cause);
  const remedy = hasRole
    ? `GRANT ${wanted} TO ${login}`
    : `run \`hawser init\` as a role that may create the role ${wanted}, then GRANT ${wanted} TO ${login}; or be "${owner}"`;
  return new HawserError(
    "not_permitted",
    `could not ${action}: the role "${role}" lacks the privileges of ${wanted} in the database "${database}": ${remedy}`,
    { cause },
  );
}

/** {@link explainRefusal} for a session of `hawser serve`. */
export function explainServeRefusal(session: PostgresSession, action: string, cause: unknown): Promise<HawserError> {
  const reader = { query: async (text: string) => ({ rows: await session.query(text) }) };
  return explainRefusal(reader, action, cause, "hawser_bridge");
}

/** Returns true if the schema is older than this program; false if that cannot be determined. */
async function isOlder(client: CatalogReader): Promise<boolean> {
  const { rows } = await client.query(appliedSql).catch(() => ({ rows: [] }));
  const [row] = rows as readonly { readonly applied: number; readonly functions: string | null }[];
  if (row === undefined || row.applied > migrations.length) return false;
  return row.applied < migrations.length || row.functions !== functionsChecksum(programSchema);
}

/** Error for processes and commands that do not create the schema themselves. */
export function noSchema(database: string, cause?: unknown): HawserError {
  return new HawserError(
    "schema_missing",
    `the database "${database}" has no schema hawser: run \`hawser init\` on it, or name the right database`,
    { cause },
  );
}
