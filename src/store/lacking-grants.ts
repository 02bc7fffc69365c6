/**
 * Which of the grants that roles are to have they lack.
 */
import type pg from "pg";
import type { Grant } from "./grants.js";

/** What is not there lacks nothing: neither roles nor objects. */
const sql = `
  SELECT g.role, g.privilege, g.kind, g.object
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS g (role, privilege, kind, object, nth)
    JOIN pg_roles AS r ON r.rolname = g.role
   WHERE NOT coalesce(CASE g.kind
     WHEN 'SCHEMA' THEN has_schema_privilege(r.oid, to_regnamespace(g.object)::oid, g.privilege)
     WHEN 'TABLE' THEN has_table_privilege(r.oid, to_regclass(g.object)::oid, g.privilege)
     WHEN 'SEQUENCE' THEN has_sequence_privilege(r.oid, to_regclass(g.object)::oid, g.privilege)
     ELSE has_function_privilege(r.oid, to_regprocedure(g.object)::oid, g.privilege)
   END, true)
   ORDER BY g.nth`;

/** Those of each role that lacks any, in the order of the grants. */
export async function lackingGrants(client: pg.Client, grants: readonly Grant[]): Promise<Grant[][]> {
  const columns = (["role", "privilege", "kind", "object"] as const).map((name) => grants.map((grant) => grant[name]));
  const { rows } = await client.query<Grant>(sql, columns);
  return [...new Set(rows.map(({ role }) => role))].map((role) => rows.filter((row) => row.role === role));
}
