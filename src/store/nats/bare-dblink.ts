/**
 * dblink without the extension dblink: the few C functions that the SQL functions use, made one by one. The script of an
 * extension may not create another extension.
 */
import pg from "pg";
import { dblinkSchema, usedDblinkFunctions } from "./objects.js";

const { escapeLiteral: literal } = pg;

/** As the extension declares them; all are in its library. */
const declarations: Readonly<Record<string, string>> = {
  "dblink_get_connections()":
    "RETURNS text[] AS '$libdir/dblink', 'dblink_get_connections' LANGUAGE c PARALLEL RESTRICTED",
  "dblink_is_busy(text)": "RETURNS integer AS '$libdir/dblink', 'dblink_is_busy' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_error_message(text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_error_message' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_connect(text, text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_connect' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_disconnect(text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_disconnect' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink(text, text)":
    "RETURNS SETOF record AS '$libdir/dblink', 'dblink_record' LANGUAGE c STRICT PARALLEL RESTRICTED",
};

/** Their signatures, with the schema. */
export const bareDblinkFunctions: readonly string[] = usedDblinkFunctions.map(
  (signature) => `${dblinkSchema}.${signature}`,
);

/** Makes them, for their owner alone. */
export const bareDblinkSql = usedDblinkFunctions
  .map((signature) => {
    const name = `${dblinkSchema}.${signature}`;
    return `CREATE FUNCTION ${name} ${declarations[signature]};\nREVOKE ALL ON FUNCTION ${name} FROM PUBLIC;`;
  })
  .join("\n");

/**
 * An expression: the schema that has all of them, null if there is none. Only superusers make functions in C, so nobody
 * else can have put them there. By the catalogs: to_regprocedure fails for those who may not use the schema.
 */
export const bareDblinkPlaceSql = `(
  SELECT min(n.nspname)
    FROM pg_proc AS p
    JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
   WHERE p.probin ~ '(^|/)dblink$' AND n.nspname = ${literal(dblinkSchema)}
     AND p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' = ANY (ARRAY[${usedDblinkFunctions.map(literal).join(", ")}])
     AND NOT EXISTS (
       SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'dblink'
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  HAVING count(*) = ${bareDblinkFunctions.length})`;
