/**
 * Objects that a caller could plant before those of Postgres and ours.
 */

/** Functions, operators and types that stand for those that the bodies use, and tell when they are used. */
export const traps = (schema: string): string[] => [
  ...[
    "to_json(text)",
    "coalesce_trap(text)",
    "encode(bytea, text)",
    "translate(text, text, text)",
    "convert_to(text, name)",
    "octet_length(text)",
    "dblink(text, text)",
    "dblink_connect(text, text)",
    "dblink_get_connections()",
    "json_to_recordset(json)",
    "dblink_is_busy(text)",
    "dblink_error_message(text)",
    "dblink_disconnect(text)",
    "gateway_call(text)",
    "gateway_lost(text, integer)",
    "concat_ws(text, text)",
    "format(text, text)",
    "current_database()",
    "to_regprocedure(text)",
  ].map(
    (signature) =>
      `CREATE FUNCTION ${schema}.${signature} RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked'; END$$`,
  ),
  `CREATE FUNCTION ${schema}.trap(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked'; END$$`,
  `CREATE OPERATOR ${schema}.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = ${schema}.trap)`,
  `CREATE FUNCTION ${schema}.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked'; END$$`,
  `CREATE OPERATOR ${schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ${schema}.same)`,
  `CREATE OPERATOR ${schema}.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = ${schema}.same)`,
];
