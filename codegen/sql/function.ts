import type { DescMethod } from "@bufbuild/protobuf";
import { typeName } from "../model/columns.js";
import type { SqlFunction } from "../model/functions.js";
import { SpecError } from "../model/spec-error.js";
import { readBody, type SqlConstants } from "./body.js";
import { limitStatements } from "./limits.js";
import { dollarQuoted, sqlString } from "./literal.js";

/**
 * CREATE FUNCTION with its body from the file that the spec names. Every function pins its search_path, definer or
 * not: a body names what it uses with its schema, and nothing that a caller puts on the path can come between.
 *
 * @throws SpecError if the body cannot be read or is not a PL/pgSQL block.
 */
export function functionStatements(fn: SqlFunction, constants: SqlConstants): string {
  const security = fn.securityDefiner ? "SECURITY DEFINER" : "SECURITY INVOKER";
  const outputs = fn.results.map((column) => `${column.name} ${typeName(column)}`);
  const inputs = fn.parameters.map(
    ({ column }) =>
      `${column.name} ${typeName(column)}${fn.optionalDefaults && column.nullable ? " DEFAULT NULL" : ""}`,
  );
  const create = `CREATE OR REPLACE FUNCTION hawser.${fn.name}`;
  const signature = fn.returnsSet
    ? [...parenthesised(create, inputs), ...parenthesised("RETURNS TABLE ", outputs)]
    : parenthesised(create, [...inputs, ...outputs.map((output) => `OUT ${output}`)]);
  const comment =
    fn.comment === "" ? "" : `COMMENT ON FUNCTION ${functionSignature(fn)} IS ${sqlString(fn.comment)};\n`;
  return [
    ...signature,
    `LANGUAGE plpgsql ${fn.readsOnly ? "STABLE" : "VOLATILE"} ${security}`,
    "SET search_path = pg_catalog, pg_temp",
    ...fn.settings.map((setting) => `SET ${setting}`),
    `AS ${dollarQuoted("function", withLimits(fn, readBody(fn.method, fn.bodyFile, constants)))};`,
    comment,
  ].join("\n");
}

/** A body that begins with the limits of what roles give. */
function withLimits(fn: SqlFunction, body: string): string {
  const limits =
    fn.execute.length === 0
      ? []
      : limitStatements(
          `hawser.${fn.name}`,
          fn.parameters.map(({ column: { name, type, repeated, rules } }) => ({
            name,
            expression: name,
            sqlType: type,
            repeated,
            rules,
            wholly: true,
          })),
        );
  return limits.length === 0 ? body : atBegin(fn.method, fn.bodyFile, body, limits);
}

/** A body with statements in front of its own. @throws SpecError if it has no line `BEGIN` */
export function atBegin(where: DescMethod, bodyFile: string, body: string, statements: readonly string[]): string {
  const begin = /^BEGIN$/m.exec(body);
  if (begin === null) {
    throw new SpecError(
      where,
      `body_file ${bodyFile} has no line BEGIN, behind which the limits of arguments are checked`,
    );
  }
  const at = begin.index + begin[0].length;
  return `${body.slice(0, at)}\n${statements.join("\n")}${body.slice(at)}`;
}

/** The function as GRANT and COMMENT name it: `hawser.key_of_topic(text)`. */
export function functionSignature(fn: SqlFunction): string {
  return `hawser.${fn.name}(${fn.parameters.map(({ column }) => typeName(column)).join(", ")})`;
}

function parenthesised(before: string, items: readonly string[]): string[] {
  return items.length === 0 ? [`${before}()`] : [`${before}(`, items.map((item) => `  ${item}`).join(",\n"), ")"];
}
