/**
 * Where the wrapper of a handler is. It is the one with the type of its token, which nobody else may use: others may have
 * functions of the same name.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { runSchema } from "./objects.js";

const { subscriptionArguments, responderArguments, wrapperRandomLength } = bridgeConstants;

/** Of the type of a wrapper's token. @param wrapper the name of the wrapper, as SQL */
export function tokenTypeSql(wrapper: string): string {
  return `'token_' || right(${wrapper}, ${wrapperRandomLength})`;
}

/** Joins handlers, as `h`, to their wrappers, as `w`; with `LEFT JOIN` also those that have none. */
export function wrapperJoinSql(join: "JOIN" | "LEFT JOIN"): string {
  return `${join} pg_type AS token ON token.typnamespace = to_regnamespace('${runSchema}') AND token.typname = ${tokenTypeSql("h.wrapper")}
    ${join} pg_proc AS w ON w.pronamespace = token.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = token.oid
     AND w.pronargs = CASE h.kind WHEN 'subscription' THEN ${subscriptionArguments} ELSE ${responderArguments} END`;
}

/** A function as people know it, of a handler, as `h`: `public.capture(bytea)`. */
export const functionNameSql = "format('%I.%I(%s)', h.function_schema, h.function_name, h.argument_types)";
