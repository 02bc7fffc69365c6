/**
 * Catalog entries of an installation, as text that can be compared.
 */
import { rowsOf } from "../../support/on-server.js";

/** Everything but what Postgres brings along: each object with its definition, owner, grants and comment. */
export async function catalogOf(databaseUrl: string): Promise<string[]> {
  const rows = await rowsOf(databaseUrl, sql);
  return rows.map(({ object, definition }) => `${object}: ${definition}`);
}

/** The oids of the SQL functions and of what belongs to them: the same as long as nothing is made anew. */
export async function oidsOf(databaseUrl: string): Promise<Record<string, unknown>[]> {
  return rowsOf(
    databaseUrl,
    `SELECT oid::regprocedure::text AS name, oid FROM pg_proc WHERE proname ~ 'nats' AND oid >= 16384
     UNION ALL SELECT evtname, oid FROM pg_event_trigger
     UNION ALL SELECT fdwname, oid FROM pg_foreign_data_wrapper
     UNION ALL SELECT extname, oid FROM pg_extension
     ORDER BY 1`,
  );
}

/** Grants are listed in the order in which their roles came to the cluster. */
const sorted = (acl: string) => `(SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(${acl}) AS a)`;

const sql = `
  SELECT * FROM (
    SELECT 'schema ' || nspname AS object,
           concat_ws(' ', pg_get_userbyid(nspowner), ${sorted("nspacl")}, obj_description(oid, 'pg_namespace')) AS definition
      FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT 'function ' || oid::regprocedure,
           concat_ws(' ', pg_get_userbyid(proowner), ${sorted("proacl")}, md5(CASE WHEN prokind = 'f' THEN pg_get_functiondef(oid) END),
                     obj_description(oid, 'pg_proc'))
      FROM pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT 'relation ' || oid::regclass, concat_ws(' ', relkind, pg_get_userbyid(relowner), ${sorted("coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner))")})
      FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
    UNION ALL
    SELECT 'extension ' || extname, concat_ws(' ', extnamespace::regnamespace, extversion) FROM pg_extension
    UNION ALL
    SELECT 'wrapper ' || fdwname,
           concat_ws(' ', pg_get_userbyid(fdwowner), fdwhandler::regproc, fdwvalidator::regproc, ${sorted("fdwacl")},
                     obj_description(oid, 'pg_foreign_data_wrapper'))
      FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'event trigger ' || evtname, concat_ws(' ', evtevent, evtfoid::regprocedure, evtenabled, evttags::text)
      FROM pg_event_trigger
  ) AS objects ORDER BY 1, 2`;
