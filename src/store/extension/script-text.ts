/**
 * Text of an extension's script: literals that need no escaping, in ASCII alone.
 */
import pg from "pg";
import { type ErrorCode, errorTable } from "../../errors/index.js";

/**
 * SQL as a literal in PL/pgSQL, dollar-quoted. What is not ASCII is put in when it runs: Postgres converts a script to the
 * encoding of the database before it runs any of it, and where it cannot, nothing could be said about that.
 */
export function embedded(sql: string): string {
  const characters = [...new Set(sql.match(/[^\p{ASCII}]/gu) ?? [])];
  const ascii = characters.reduce((text, one) => text.replaceAll(one, markOf(one)), sql);
  return characters.reduce(
    (literal, one) => `replace(${literal}, '${markOf(one)}', chr(${one.codePointAt(0)}))`,
    quoted(ascii),
  );
}

function markOf(character: string): string {
  return `<U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}>`;
}

function quoted(text: string): string {
  let tag = "$sql$";
  for (let n = 2; text.includes(tag); n++) tag = `$sql${n}$`;
  return `${tag}${text}${tag}`;
}

/** An array of texts. */
export function textArray(values: readonly string[]): string {
  return `ARRAY[${values.map(pg.escapeLiteral).join(", ")}]::text[]`;
}

/** Ends the script with an error of the spec's table. Message and hint are expressions. */
export function raise(code: ErrorCode, message: string, hint: string): string {
  return `RAISE EXCEPTION USING ERRCODE = '${errorTable[code].sqlstate}', MESSAGE = ${message}, HINT = ${hint};`;
}
