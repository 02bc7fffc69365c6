import { dollarQuoted, sqlString } from "../sql/literal.js";

/** PL/pgSQL function of the schema `hawser`. */
export interface SqlFunction {
  readonly name: string;
  /** Parameters with their types, and OUT parameters. */
  readonly parameters: readonly string[];
  /** Absent if OUT parameters declare the result. */
  readonly returns?: string;
  /** Properties such as `IMMUTABLE PARALLEL SAFE STRICT`. */
  readonly traits: string;
  /** DECLARE … BEGIN … END */
  readonly body: string;
  readonly comment: string;
}

/**
 * Prints CREATE FUNCTION. Every function pins its search_path, so that nothing on a caller's path can shadow the names
 * it uses.
 */
export function createFunction({ name, parameters, returns, traits, body, comment }: SqlFunction): string {
  const list = parameters.map((parameter) => `  ${parameter}`).join(",\n");
  return `CREATE OR REPLACE FUNCTION hawser.${name}(
${list}
)
${returns === undefined ? "" : `RETURNS ${returns}\n`}LANGUAGE plpgsql ${traits}
SET search_path = pg_catalog, pg_temp
AS ${dollarQuoted("function", body.trim())};
COMMENT ON FUNCTION ${functionSignature({ name, parameters })} IS ${sqlString(comment)};
`;
}

/** Function as GRANT and COMMENT name it: `hawser.nats_auth_mode(jsonb)`. */
export function functionSignature({ name, parameters }: Pick<SqlFunction, "name" | "parameters">): string {
  const types = parameters
    .filter((parameter) => !parameter.startsWith("OUT "))
    .map((parameter) => parameter.split(" ")[1]);
  return `hawser.${name}(${types.join(", ")})`;
}

/** Array constructor such as `ARRAY['host', 'port']`; valid for an empty list too. */
export function textArray(values: readonly string[]): string {
  return values.length === 0 ? "'{}'::text[]" : `ARRAY[${values.map(sqlString).join(", ")}]`;
}

/** Array constructor with a line for each value, so that a new value changes no other line. */
export function textLines(values: readonly string[]): string {
  return values.length === 0
    ? "'{}'::text[]"
    : `ARRAY[\n${values.map((value) => `    ${sqlString(value)}`).join(",\n")}\n  ]`;
}

/** Value as a jsonb constant. */
export function jsonbConstant(value: unknown): string {
  return `${sqlString(JSON.stringify(value))}::jsonb`;
}
