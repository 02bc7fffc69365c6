import type { OptionsModel } from "./model.js";
import { jsonbConstant, type SqlFunction } from "./sql-function.js";

/** Raises what nats_server_options_violation finds. */
export function checkFunction(): SqlFunction {
  return {
    name: "nats_server_options_check",
    parameters: ["options jsonb", "part text DEFAULT 'whole'"],
    returns: "void",
    traits: "IMMUTABLE PARALLEL SAFE",
    comment: "Raises the first violation of a set of options; see nats_server_options_violation.",
    body: `
DECLARE
  violation record;
BEGIN
  SELECT * INTO violation FROM hawser.nats_server_options_violation(options, part);
  IF violation.sqlstate IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = violation.sqlstate,
      MESSAGE = violation.message,
      DETAIL = violation.detail,
      HINT = violation.hint;
  END IF;
END`,
  };
}

/** Makes one set of options of what the catalogs keep. */
export function catalogFunction(): SqlFunction {
  return {
    name: "nats_options_jsonb",
    parameters: ["options text[]"],
    returns: "jsonb",
    traits: "IMMUTABLE PARALLEL SAFE",
    comment: "Options as the catalogs keep them, name=value each (srvoptions, umoptions), as a JSON object of strings.",
    body: `
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(option_name, option_value), '{}')
    FROM pg_options_to_table(options)
  );
END`,
  };
}

/** The complete options of what was given. */
export function completeFunction(model: OptionsModel): SqlFunction {
  const defaults = Object.fromEntries(
    model.options.flatMap((option) => (option.default === undefined ? [] : [[option.name, option.default]])),
  );
  return {
    name: "nats_server_options",
    parameters: ["options jsonb"],
    returns: "jsonb",
    traits: "IMMUTABLE PARALLEL SAFE",
    comment:
      "The options of server and user mapping put together, checked, in their own types and with the defaults. " +
      "Raises the first violation.",
    body: `
BEGIN
  PERFORM hawser.nats_server_options_check(options, 'whole');
  RETURN ${jsonbConstant(defaults)} || hawser.nats_server_options_typed(options);
END`,
  };
}

/** What the foreign data wrappers call. */
export function validatorFunction(): SqlFunction {
  return {
    name: "nats_fdw_validator",
    parameters: ["options text[]", "catalog oid"],
    returns: "void",
    // With the rights of whoever creates the server: it reads nothing but its arguments.
    traits: "STABLE",
    comment: "The validator of the foreign data wrappers: checks the options of servers and user mappings.",
    body: `
BEGIN
  PERFORM hawser.nats_server_options_check(
    hawser.nats_options_jsonb(options),
    CASE catalog
      WHEN 'pg_catalog.pg_foreign_server'::regclass THEN 'server'
      WHEN 'pg_catalog.pg_user_mapping'::regclass THEN 'user_mapping'
      ELSE 'none'
    END);
END`,
  };
}
