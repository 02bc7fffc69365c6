/**
 * Where the wrapper of a binding is, and which function it calls. It is the one with a type of its own, which nobody else may
 * use: others may have functions of the same name.
 */
import { bridgeConstants } from "../../generated/ts/settings/nats.js";

/** The schema of the wrappers, in which roles that may call the SQL functions make them. */
export const runSchema = "hawser_run";

const { subscriptionArguments, responderArguments, wrapperRandomLength } = bridgeConstants;

/** Of a wrapper's own type. @param wrapper the name of the wrapper, as SQL */
export function tokenTypeSql(wrapper: string): string {
  return `'token_' || right(${wrapper}, ${wrapperRandomLength})`;
}

/**
 * Whether a wrapper calls a function that was dropped while it was being made: it is as good as gone.
 *
 * @param wrapper its oid, as SQL
 */
export function danglesSql(wrapper: string): string {
  return `EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = ${wrapper} AND d.refclassid = 'pg_proc'::regclass
       AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))`;
}

/**
 * Joins bindings, as `h`, to their wrappers, as `w`, and those to the functions that they call, as `f`, which may have other
 * names by now; with `LEFT JOIN` also those that have no wrapper.
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

/** A function as people know it, of what is joined by the above: `public.capture(bytea)`. */
export const functionNameSql =
  "format('%I.%I(%s)', coalesce(f.schema, h.function_schema), coalesce(f.name, h.function_name), h.argument_types)";
