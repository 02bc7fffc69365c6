import { giveFunctionsToOwner } from "../sql/grants.js";
import { sqlString } from "../sql/literal.js";
import { inSchema } from "../sql/schema.js";
import type { OptionsModel } from "./model.js";
import { createFunction, functionSignature, type SqlFunction } from "./sql-function.js";
import { coercionFunctions, suggestionFunction } from "./sql-values.js";
import { violationFunction } from "./sql-violation.js";

/** SQL of the options, in the parts that both schemas are assembled from. `@schema@` is the schema. */
interface SqlTexts {
  /** Functions that both schemas have. */
  readonly shared: string;
  /** Functions that only the schema `hawser` has. */
  readonly ownOnly: string;
  /** Functions that only the schema of the foreign data wrappers has. */
  readonly foreignOnly: string;
  /** Statements around the functions of the schema `hawser`, which replace `@functions@`. */
  readonly wrapped: string;
  /** Revokes the functions from PUBLIC and gives them to the owner of the schema `hawser`. */
  readonly grants: string;
}

/** Prints the SQL of the options. Each function is created after the functions that it calls. */
export function sqlTexts(model: OptionsModel): SqlTexts {
  const shared = [
    ...coercionFunctions(model),
    suggestionFunction(),
    violationFunction(model),
    checkFunction(),
    catalogFunction(),
  ];
  const ownOnly = [completeFunction(model), authFunction(model)];
  const foreignOnly = [validatorFunction()];
  const names = [...shared, ...ownOnly, ...foreignOnly].map(({ name }) => name).join("|");
  const ours = new RegExp(`\\bhawser\\.(?=(?:${names})\\()`, "g");
  const text = (functions: readonly SqlFunction[]) =>
    functions.map((fn) => `${createFunction(fn).replace(ours, "@schema@.")}\n`).join("");
  const signatures = [...shared, ...ownOnly].map(functionSignature);
  return {
    shared: text(shared),
    ownOnly: text(ownOnly).replace(/\n$/, ""),
    foreignOnly: text(foreignOnly).replace(/\n$/, ""),
    wrapped: inSchema(["@functions@"]),
    grants: [
      ...signatures.map((signature) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
      giveFunctionsToOwner(signatures, "the functions of the NATS options"),
    ].join("\n"),
  };
}

/** Functions of the options in the schema `hawser`. */
export function optionsFunctionsSql(model: OptionsModel): string {
  const { shared, ownOnly } = sqlTexts(model);
  return (shared + ownOnly).replaceAll("@schema@", "hawser");
}

/** Raises the violation that nats_server_options_violation returns. */
function checkFunction(): SqlFunction {
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

/** Converts options from the form of the catalogs to a JSON object. */
function catalogFunction(): SqlFunction {
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

/** Checks options, and completes them with the defaults. */
function completeFunction(model: OptionsModel): SqlFunction {
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
  RETURN ${sqlString(JSON.stringify(defaults, null, 2))}::jsonb || hawser.nats_server_options_typed(options);
END`,
  };
}

/** Validator that the foreign data wrappers call. */
function validatorFunction(): SqlFunction {
  return {
    name: "nats_fdw_validator",
    parameters: ["options text[]", "catalog oid"],
    returns: "void",
    // The function runs with the rights of the role that creates the server, and reads only its arguments.
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

/** Resolver of the authentication mode, in the order of x-auth-priority. */
function authFunction({ modes }: OptionsModel): SqlFunction {
  const branches = modes.map(({ mode, requires }) =>
    requires.length === 0
      ? `    ELSE ${sqlString(mode)}`
      : `    WHEN ${requires.map((option) => `options ->> ${sqlString(option)} IS NOT NULL`).join(" AND ")} THEN ${sqlString(mode)}`,
  );
  return {
    name: "nats_auth_mode",
    parameters: ["options jsonb"],
    returns: "text",
    traits: "IMMUTABLE PARALLEL SAFE STRICT",
    comment: "How these options authenticate: the first mode whose options are all set.",
    body: `
BEGIN
  RETURN CASE
${branches.join("\n")}
  END;
END`,
  };
}
