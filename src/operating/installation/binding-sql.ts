/**
 * SQL that finds the wrapper of a binding and the function that it calls. The wrapper has an argument of its own token
 * type, which no other role may use. That identifies it even if other roles create functions of the same name.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

/** Schema of the wrappers. Roles that may call the SQL functions can create functions there. */
export const runSchema = "hawser_run";

const { subscriptionArguments, responderArguments, wrapperRandomLength } = bridgeConstants;

/** SQL expression: name of the token type of a wrapper. @param wrapper SQL expression of the wrapper's name */
export function tokenTypeSql(wrapper: string): string {
  return `'token_' || right(${wrapper}, ${wrapperRandomLength})`;
}

/**
 * SQL condition: the wrapper calls a function that was dropped while the wrapper was being created, so that it is
 * unusable.
 *
 * @param wrapper SQL expression of its oid
 */
export function danglesSql(wrapper: string): string {
  return `EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = ${wrapper} AND d.refclassid = 'pg_proc'::regclass
       AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))`;
}

/**
 * SQL joins of bindings `h` to their wrappers `w` and the wrapped functions `f`, which may have been renamed. `LEFT
 * JOIN` keeps bindings without a wrapper.
 */
export function wrapperJoinSql(join: "JOIN" | "LEFT JOIN"): string {
  return `${join} pg_type AS token ON token.typnamespace = to_regnamespace('${runSchema}') AND token.typname = ${tokenTypeSql("h.wrapper")}
    ${join} pg_proc AS w ON w.pronamespace = token.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = token.oid
     AND w.pronargs = CASE h.kind WHEN 'responder' THEN ${responderArguments} ELSE ${subscriptionArguments} END
     AND NOT ${danglesSql("w.oid")}
    LEFT JOIN LATERAL (
      SELECT n.nspname AS schema, p.proname AS name
        FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid AND p.pronargs > 0 JOIN pg_namespace AS n ON n.oid = p.pronamespace
       WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
       ORDER BY p.oid LIMIT 1
    ) AS f ON true`;
}

/** SQL expression of the display name of a joined function: `public.capture(bytea)`. */
export const functionNameSql =
  "format('%I.%I(%s)', coalesce(f.schema, h.function_schema), coalesce(f.name, h.function_name), h.argument_types)";

/** SQL expression: whether the owner of a joined wrapper may still subscribe functions. */
export const mayBindSql = `coalesce((
  SELECT bool_or(has_function_privilege(w.proowner, b.oid, 'EXECUTE')) FROM pg_proc AS b
   WHERE b.pronamespace = to_regnamespace('hawser') AND b.proname = 'bind_handler'
), true)`;
