/**
 * From "permission denied" to what it means here and what to do.
 */
import pg from "pg";
import { StoreError } from "../errors/index.js";
import { isServerError, storeFailure } from "./store-failure.js";

/** SQLSTATE of everything that a role may not do. */
const insufficientPrivilege = "42501";

const situationSql = `
  SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS "exists",
         coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usable, pg_get_userbyid(n.nspowner) AS owner
    FROM (SELECT) AS one LEFT JOIN pg_namespace AS n ON n.nspname = 'hawser'`;

interface Situation {
  readonly role: string;
  readonly database: string;
  readonly exists: boolean;
  readonly usable: boolean;
  readonly owner: string | null;
}

/** Who answers one more question: a connection, or a pool of them. */
interface Asked {
  query(text: string): Promise<{ readonly rows: readonly object[] }>;
}

/**
 * The error of a look at the schema, or of a migration, as the reader can use it: where a right is missing, which role
 * lacks it and what gives it.
 *
 * @returns `schema_missing` where the schema is not there or too old and the role may not make it; else `store_failed`
 */
export async function explainRefusal(client: Asked, action: string, cause: unknown): Promise<StoreError> {
  const refusal = cause instanceof StoreError ? cause.cause : cause;
  if (!isServerError(refusal) || refusal.code !== insufficientPrivilege) return storeFailure(action, cause);
  const { rows } = await client.query(situationSql).catch(() => ({ rows: [] }));
  const [situation] = rows as readonly Situation[];
  if (situation === undefined) return storeFailure(action, cause);
  const { role, database, exists, usable, owner } = situation;
  if (!exists) {
    return new StoreError(
      "schema_missing",
      `the database "${database}" has no schema hawser, and the role "${role}" may not make it: run \`hawser init\` ` +
        `once as a role that may, or GRANT CREATE ON DATABASE ${pg.escapeIdentifier(database)} TO ${pg.escapeIdentifier(role)}`,
      { cause },
    );
  }
  if (!usable) {
    return new StoreError(
      "store_failed",
      `the role "${role}" may not use the schema hawser of the database "${database}": GRANT hawser_peer TO ${pg.escapeIdentifier(role)}`,
      { cause },
    );
  }
  return new StoreError(
    "schema_missing",
    `the schema hawser of the database "${database}" is older than this program, and the role "${role}" may not change ` +
      `it: run \`hawser init\` as its owner, "${owner}"`,
    { cause },
  );
}
