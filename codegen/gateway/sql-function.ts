import { type GatewayFamily, type GatewayVariant, isMadeWithTables } from "../model/gateway-functions.js";
import { readBody, type SqlConstants } from "../sql/body.js";
import { functionSettings } from "../sql/function-settings.js";
import { limited, limitStatements } from "../sql/limits.js";
import { dollarQuoted, sqlString } from "../sql/literal.js";
import { withChecks } from "./local-checks.js";
import { limitedArguments, positionOf, queryExpression, sqlParameters, sqlTypeOf } from "./sql-argument.js";
import { nameWithStar } from "./typescript-types.js";

/** Placeholder for the schema of the functions, as in the script of an extension. */
export const schemaPlaceholder = "@extschema@";

/** Values that a body may name besides fixed settings. */
export interface BodyValues {
  readonly constants: SqlConstants;
  /** Version of the package, for `@version@`. */
  readonly version: string;
}

/** SQL function, as the catalogs of Postgres describe it. */
export interface GatewayFunction {
  /** Schema of the function, or its placeholder. */
  readonly schema: string;
  readonly name: string;
  /** Types of the parameters, as `format_type` prints them. */
  readonly types: string;
  /** Parameters, as `pg_get_function_arguments` prints them. */
  readonly arguments: string;
  /** Result, as `pg_get_function_result` prints it. */
  readonly result: string;
  /** CREATE FUNCTION and its comment. */
  readonly statement: string;
}

/** The function under its name and each alias. */
export function gatewayFunctions(
  family: GatewayFamily,
  variant: GatewayVariant,
  values: BodyValues,
): GatewayFunction[] {
  return variant.names.map((name) => {
    const { language, body } = bodyOf(family, variant, name, values);
    const inputs = sqlParameters(family).map((value) => {
      const type = sqlTypeOf(value, variant);
      return { declared: `${value.name} ${type}`, type, hasDefault: value.optional };
    });
    const lines = inputs.map(({ declared, hasDefault }) => `  ${declared}${hasDefault ? " DEFAULT NULL" : ""}`);
    const result = resultOf(family, variant);
    const named = { schema: schemaOf(family), name, types: inputs.map(({ type }) => type).join(", ") };
    const statement = [
      `CREATE OR REPLACE FUNCTION ${named.schema}.${name}(${lines.length === 0 ? "" : `\n${lines.join(",\n")}\n`})`,
      `RETURNS ${"columns" in result ? `TABLE (\n${result.columns.map((column) => `  ${column}`).join(",\n")}\n)` : result.type}`,
      // Internal functions run within a definer function, which has pinned the path; a function that runs as its caller
      // needs the caller's path.
      ...(family.internal || family.invoker
        ? [`LANGUAGE ${language} VOLATILE SECURITY INVOKER PARALLEL UNSAFE`]
        : [
            `LANGUAGE ${language} VOLATILE SECURITY DEFINER PARALLEL UNSAFE`,
            ...functionSettings(["row_security = off"]),
          ]),
      `AS ${dollarQuoted("function", body)};`,
      `COMMENT ON FUNCTION ${gatewaySignature(named)} IS ${sqlString(family.comment)};`,
      "",
    ].join("\n");
    return {
      ...named,
      arguments: inputs
        .map(({ declared, type, hasDefault }) => (hasDefault ? `${declared} DEFAULT NULL::${type}` : declared))
        .join(", "),
      result: "columns" in result ? `TABLE(${result.columns.join(", ")})` : result.type,
      statement,
    };
  });
}

/** Function as GRANT and DROP name it. */
export function gatewaySignature({ schema, name, types }: Pick<GatewayFunction, "schema" | "name" | "types">): string {
  return `${schema}.${name}(${types})`;
}

function schemaOf(family: GatewayFamily): string {
  return family.internal || isMadeWithTables(family) ? "hawser" : schemaPlaceholder;
}

/** Type of the result, or the columns of its rows. */
function resultOf(
  family: GatewayFamily,
  variant: GatewayVariant,
): { readonly type: string } | { readonly columns: readonly string[] } {
  switch (family.returns) {
    case "nothing":
      return { type: "void" };
    case "value":
      return { type: sqlTypeOf(family.results[0]!, variant) };
    default:
      return { columns: family.results.map((value) => `${value.name} ${sqlTypeOf(value, variant)}`) };
  }
}

interface Body {
  readonly language: "plpgsql" | "sql";
  readonly body: string;
}

function bodyOf(family: GatewayFamily, variant: GatewayVariant, name: string, values: BodyValues): Body {
  if (family.bodyFile !== undefined) {
    const text = readBody(family.method, family.bodyFile, values.constants);
    return {
      language: "plpgsql",
      body: withChecks(family, variant, text.replaceAll("@version@", values.version), values.constants),
    };
  }
  if (family.batch !== undefined) {
    return { language: "plpgsql", body: batchBody(family, variant, values.constants) };
  }
  const query = limited(
    nameWithStar(family),
    limitedArguments(family, variant),
    queryExpression(family, variant, values.constants),
  );
  switch (family.returns) {
    case "nothing":
      return { language: "plpgsql", body: callBody(query, []) };
    case "value":
      return { language: "plpgsql", body: callBody(query, valueReturn(family, variant, name)) };
    default:
      // PL/pgSQL forbids parameters and result columns with the same name, which these functions have.
      return { language: "sql", body: rowsBody(family, variant, `hawser.gateway_call(${query})`) };
  }
}

/**
 * Body that uses the session's connection if it exists and is usable, and otherwise calls `hawser.gateway_call`, whose
 * body explains each step. A further function for each call would add a fifth to the time of a call in
 * Postgres.
 *
 * @param end statements that use `answer`
 */
function callBody(query: string, end: readonly string[]): string {
  return [
    "DECLARE",
    `  query CONSTANT text := ${query};`,
    "  answer text;",
    "  is_answered boolean := false;",
    "  failure text;",
    "  failure_hint text;",
    "BEGIN",
    // Only CASE guarantees the order of evaluation, and dblink_is_busy fails for a missing connection.
    "  IF (CASE WHEN 'hawser' = ANY (@dblink@.dblink_get_connections())",
    "    THEN @dblink@.dblink_is_busy('hawser') = 0 AND @dblink@.dblink_is_busy('hawser') = 0",
    "      AND @dblink@.dblink_error_message('hawser') = 'OK' END)",
    "  THEN",
    "    BEGIN",
    "      SELECT called.r INTO answer FROM @dblink@.dblink('hawser', query) AS called (r text);",
    "      is_answered := true;",
    "    EXCEPTION",
    "      WHEN query_canceled THEN",
    "        PERFORM @dblink@.dblink_disconnect('hawser');",
    "        RAISE;",
    "      WHEN admin_shutdown THEN",
    "        PERFORM @dblink@.dblink_disconnect('hawser');",
    "      WHEN connection_exception THEN",
    "        GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT, failure_hint = PG_EXCEPTION_HINT;",
    "        IF failure_hint <> '' THEN",
    "          RAISE;",
    "        END IF;",
    "        PERFORM hawser.gateway_lost(failure, 2);",
    "    END;",
    "  END IF;",
    "  IF NOT is_answered THEN",
    "    answer := hawser.gateway_call(query);",
    "  END IF;",
    ...end,
    "END",
  ].join("\n");
}

function valueReturn(family: GatewayFamily, variant: GatewayVariant, name: string): string[] {
  const type = sqlTypeOf(family.results[0]!, variant);
  if (type !== "json" && type !== "jsonb") return [`  RETURN ${type === "text" ? "answer" : `answer::${type}`};`];
  const texts = sqlParameters(family).filter(({ kind, optional }) => kind === "string" && !optional);
  const of = texts.length === 0 ? "" : ` of ${texts.map((value) => `${value.name} %L`).join(", ")}`;
  const message = [
    sqlString(`${name}: the value${of} is not ${type}`),
    ...texts.map((value) => positionOf(family, value)),
  ];
  return [
    "  BEGIN",
    `    RETURN answer::${type};`,
    "  EXCEPTION",
    "    WHEN data_exception OR program_limit_exceeded OR untranslatable_character THEN",
    "      GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT;",
    "      RAISE EXCEPTION USING",
    "        ERRCODE = hawser.error_sqlstate('not_json'),",
    `        MESSAGE = format(${message.join(", ")}),`,
    "        DETAIL = failure,",
    "        HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'not_json');",
    "  END;",
  ];
}

function rowsBody(family: GatewayFamily, variant: GatewayVariant, call: string): string {
  const columns = family.results.map((value) => `${value.name} ${sqlTypeOf(value, variant)}`);
  return [
    `SELECT ${family.results.map(({ name }) => `answer.${name}`).join(", ")}`,
    `FROM json_to_recordset(${call}::json) AS answer (${columns.join(", ")})`,
  ].join("\n");
}

/**
 * Body for a list of payloads. The list follows the argument: a line with its form (`t`: text as it is, `b`: everything
 * in base64) and the length of each payload in bytes, `-` for NULL; then all payloads without separators. A NULL array
 * has the form `n`.
 */
function batchBody(family: GatewayFamily, variant: GatewayVariant, constants: SqlConstants): string {
  const list = positionOf(family, family.batch!);
  const isText = variant.payloadType !== "binary";
  const array = variant.payloadType === "text" || !isText ? list : `${list}::text[]`;
  const all = isText ? "string_agg(one, '')" : "replace(encode(string_agg(one, ''::bytea), 'base64'), E'\\n', '')";
  return [
    "DECLARE",
    "  lengths text;",
    "  payloads text;",
    "BEGIN",
    ...limitStatements(nameWithStar(family), limitedArguments(family, variant)),
    `  SELECT string_agg(coalesce(octet_length(one)::text, '-'), ','), ${all}`,
    "  INTO lengths, payloads",
    `  FROM unnest(${array}) AS one;`,
    `  PERFORM hawser.gateway_call(${queryExpression(family, variant, constants)}`,
    `    || CASE WHEN ${list} IS NULL THEN E'\\nn' ELSE ${isText ? "E'\\nt'" : "E'\\nb'"} END`,
    "    || coalesce(lengths, '') || E'\\n' || coalesce(payloads, ''));",
    "END",
  ].join("\n");
}
