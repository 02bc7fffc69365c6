/**
 * Whose tables are read: a view, a trigger, a rule, a policy, an index, a type or a cast can call functions of its owner, with
 * all rights of the session that touches it. `SET ROLE` is no remedy, as such a function can undo it.
 */
import type pg from "pg";
import { HawserError, shellWord } from "../../foundation/errors/index.js";

/** First thing of another role at some relations and below them; `role` is NULL for what is no table. */
const sql = `
  WITH RECURSIVE trusted AS (
    SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper OR r.rolname = session_user OR r.rolname = $2
  ), tree AS (
    SELECT c.oid FROM unnest($1::text[]) AS name, pg_class AS c WHERE c.oid = to_regclass(name)
    UNION SELECT i.inhrelid FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.oid
  ), relation AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name, n.nspname,
           -- The owner of the schema can put another table there.
           CASE n.nspowner::regrole::text WHEN 'pg_database_owner' THEN d.datdba ELSE n.nspowner END AS schema_owner
      FROM tree AS t JOIN pg_class AS c ON c.oid = t.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_database AS d ON d.datname = current_database()
  )
  SELECT f.what, pg_get_userbyid(f.owner)::text AS role, session_user::text AS login, f.nth < 3 AS "isWhole"
    FROM (
      SELECT 1 AS nth, format('the schema %I', r.nspname) AS what, r.schema_owner AS owner FROM relation AS r
      UNION ALL SELECT 2, r.name, r.relowner FROM relation AS r
      UNION ALL
      SELECT 3, format('the trigger %I of %s', g.tgname, r.name), p.proowner
        FROM relation AS r JOIN pg_trigger AS g ON g.tgrelid = r.oid AND NOT g.tgisinternal JOIN pg_proc AS p ON p.oid = g.tgfoid
      UNION ALL
      SELECT 4, format('%I.%I, which refers to %s,', n.nspname, o.relname, r.name), o.relowner
        FROM relation AS r JOIN pg_constraint AS k ON k.confrelid = r.oid AND k.contype = 'f'
        JOIN pg_class AS o ON o.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = o.relnamespace
      UNION ALL SELECT 5, r.name, NULL FROM relation AS r WHERE r.relkind NOT IN ('r', 'p')
    ) AS f
   WHERE f.owner IS NULL OR f.owner NOT IN (SELECT t.oid FROM trusted AS t)
   ORDER BY f.nth, f.what LIMIT 1`;

interface Found {
  readonly what: string;
  readonly role: string | null;
  readonly login: string;
  /** True for a table or a schema, false for what is at a table. */
  readonly isWhole: boolean;
}

/**
 * Checks that some relations, and all that inherits from them, are tables of the login, of a superuser or of a role that the
 * caller trusts, and that no other role has a trigger or a foreign key there. Of relations that are not locked, their owners
 * may change them afterwards.
 *
 * @param relations quoted names; one that is not there is nobody's
 * @throws HawserError `not_permitted`; `invalid_argument` for what is no table
 */
export async function checkOwners(
  client: pg.ClientBase,
  relations: readonly string[],
  owner: string | undefined,
): Promise<void> {
  const { rows } = await client.query<Found>(sql, [relations, owner]);
  const [found] = rows;
  if (found === undefined) return;
  const { what, role, login, isWhole } = found;
  if (role === null)
    throw new HawserError("invalid_argument", `${what} is no table; name another schema with --schema`);
  throw new HawserError(
    "not_permitted",
    `${what} belongs to "${role}", whose functions could run there with the rights of the login "${login}"; ` +
      `${isWhole ? `run this with the login "${role}"` : "drop it"}, or say --owner ${shellWord(role)} if you trust that role with your rights`,
  );
}
