/**
 * From "permission denied" to what it means here and what to do.
 */
import pg from "pg";
import { tables } from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import { insufficientPrivilege, type PostgresSession, sqlstateOf } from "../postgres/index.js";
import { migrations } from "./migrations.js";
import type { Asked } from "./schema.js";
import { storeFailure } from "./store-failure.js";

/** A role whose rights a login needs: that of peers and their commands, or that of `hawser serve`. */
export type HawserRole = "hawser_peer" | "hawser_bridge";

const situationSql = (wanted: HawserRole) => `
  SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS "exists",
         pg_get_userbyid(n.nspowner) AS owner, w.oid IS NOT NULL AS "hasRole",
         coalesce(pg_has_role(w.oid, 'MEMBER'), false) AS "isMember"
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS n ON n.nspname = 'hawser'
    LEFT JOIN pg_roles AS w ON w.rolname = '${wanted}'`;

interface Situation {
  readonly role: string;
  readonly database: string;
  readonly exists: boolean;
  readonly owner: string | null;
  /** The role that is wanted exists. */
  readonly hasRole: boolean;
  /** The login is in it. */
  readonly isMember: boolean;
}

const appliedSql = `SELECT count(*)::int AS applied FROM ${tables.migration}`;

/**
 * The error of an inspection of the schema, or of a migration, as the reader can use it: where a right is missing, which role
 * lacks it and what gives it.
 *
 * @param wanted the role that is made for what the login does
 * @returns `schema_missing` where the schema is not there or too old and the role may not make it; else `store_failed`
 */
export async function explainRefusal(
  client: Asked,
  action: string,
  cause: unknown,
  wanted: HawserRole = "hawser_peer",
): Promise<HawserError> {
  if (sqlstateOf(cause) !== insufficientPrivilege) return storeFailure(action, cause);
  const { rows } = await client.query(situationSql(wanted)).catch(() => ({ rows: [] }));
  const [situation] = rows as readonly Situation[];
  if (situation === undefined) return storeFailure(action, cause);
  const { role, database, exists, owner, hasRole, isMember } = situation;
  const login = pg.escapeIdentifier(role);
  if (!exists) {
    if (wanted === "hawser_bridge") return noSchema(database, cause);
    return new HawserError(
      "schema_missing",
      `the database "${database}" has no schema hawser, and the role "${role}" may not make it: run \`hawser init\` once as a role that may, or GRANT CREATE ON ` +
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
    : `run \`hawser init\` as a role that may make the role ${wanted}, then GRANT ${wanted} TO ${login}; or be "${owner}"`;
  return new HawserError(
    "store_failed",
    `could not ${action}: the role "${role}" has not the rights of ${wanted} in the database "${database}": ${remedy}`,
    { cause },
  );
}

/** The same for a session of `hawser serve`. */
export function explainServeRefusal(session: PostgresSession, action: string, cause: unknown): Promise<HawserError> {
  const asked = { query: async (text: string) => ({ rows: await session.query(text) }) };
  return explainRefusal(asked, action, cause, "hawser_bridge");
}

/** False also where that cannot be seen. */
async function isOlder(client: Asked): Promise<boolean> {
  const { rows } = await client.query(appliedSql).catch(() => ({ rows: [] }));
  const [row] = rows as readonly { readonly applied: number }[];
  return row !== undefined && row.applied < migrations.length;
}

/** For processes and commands that leave the making of the schema to others. */
export function noSchema(database: string, cause?: unknown): HawserError {
  return new HawserError(
    "schema_missing",
    `the database "${database}" has no schema hawser: run \`hawser init\` on it, or name the right database`,
    { cause },
  );
}
