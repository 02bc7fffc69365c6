import { readFileSync } from "node:fs";
import { typeName } from "../model/columns.js";
import type { SqlFunction } from "../model/functions.js";
import { SpecError } from "../model/spec-error.js";
import { dollarQuoted, sqlString } from "./literal.js";

/**
 * CREATE FUNCTION with its body from the file that the spec names. Every function pins its search_path, definer or
 * not: a body names what it uses with its schema, and nothing that a caller puts on the path can come between.
 *
 * @throws SpecError if the body cannot be read or is not a PL/pgSQL block.
 */
export function functionStatements(fn: SqlFunction): string {
  const security = fn.securityDefiner ? "SECURITY DEFINER" : "SECURITY INVOKER";
  const outputs = fn.results.map((column) => `${column.name} ${typeName(column)}`);
  const inputs = fn.parameters.map(({ column }) => `${column.name} ${typeName(column)}`);
  const signature = fn.returnsSet
    ? [
        ...parenthesised(`CREATE OR REPLACE FUNCTION hawser.${fn.name}`, inputs),
        ...parenthesised("RETURNS TABLE ", outputs),
      ]
    : parenthesised(`CREATE OR REPLACE FUNCTION hawser.${fn.name}`, [
        ...inputs,
        ...outputs.map((output) => `OUT ${output}`),
      ]);
  const comment =
    fn.comment === "" ? "" : `COMMENT ON FUNCTION ${functionSignature(fn)} IS ${sqlString(fn.comment)};\n`;
  return [
    ...signature,
    `LANGUAGE plpgsql VOLATILE ${security}`,
    "SET search_path = pg_catalog, pg_temp",
    ...fn.settings.map((setting) => `SET ${setting}`),
    `AS ${dollarQuoted("function", readBody(fn))};`,
    comment,
  ].join("\n");
}

/** The function as GRANT and COMMENT name it: `hawser.take_name(text)`. */
export function functionSignature(fn: SqlFunction): string {
  return `hawser.${fn.name}(${fn.parameters.map(({ column }) => typeName(column)).join(", ")})`;
}

function parenthesised(before: string, items: readonly string[]): string[] {
  return items.length === 0 ? [`${before}()`] : [`${before}(`, items.map((item) => `  ${item}`).join(",\n"), ")"];
}

/** Relative to the working directory, which buf makes the root of the project. */
function readBody(fn: SqlFunction): string {
  let text: string;
  try {
    text = readFileSync(fn.bodyFile, "utf8").replaceAll("\r\n", "\n");
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === "ENOENT" ? "is missing" : `cannot be read: ${error}`;
    throw new SpecError(fn.method, `body_file ${fn.bodyFile} ${reason}; it holds DECLARE … BEGIN … END`);
  }
  if (
    !/\bBEGIN\b/i.test(text) ||
    !/\bEND\s*;?\s*$/i.test(text) ||
    /\bCREATE\s+(OR\s+REPLACE\s+)?FUNCTION\b/i.test(text)
  ) {
    throw new SpecError(fn.method, `body_file ${fn.bodyFile} is not a PL/pgSQL block: DECLARE … BEGIN … END`);
  }
  return text;
}
