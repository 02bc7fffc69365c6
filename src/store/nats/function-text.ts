/**
 * The SQL functions as text: put into their schemas, and taken apart to be compared with what a database has.
 */
import pg from "pg";
import {
  natsFunctionSignatures,
  natsFunctionsGrantsSql,
  natsFunctionsSql,
} from "../../../generated/ts/nats-functions/sql.js";

/** Where the functions are, and where they find dblink. */
export interface FunctionPlaces {
  readonly schema: string;
  readonly dblinkSchema: string;
}

/** A function as the catalogs of Postgres describe it. */
export interface FunctionDefinition {
  readonly name: string;
  /** The types of its arguments, as `format_type` prints them. */
  readonly types: string;
  /** As `pg_get_function_arguments` prints them. */
  readonly arguments: string;
  /** As `pg_get_function_result` prints it. */
  readonly result: string;
  readonly body: string;
}

/** A name that can stand in a quoted identifier, in a string and in a dollar-quoted body. */
const plainName = /^[^"'$\\@\p{Cc}]+$/u;

/** Whether a schema's name can be put into the functions. */
export function isPlainName(name: string): boolean {
  return plainName.test(name) && Buffer.byteLength(name) <= 63;
}

/** Makes or replaces the functions. */
export function functionsSql(places: FunctionPlaces): string {
  return filled(natsFunctionsSql, places);
}

/** Takes them from PUBLIC, and gives them to who may call them and to who owns them. */
export function functionsGrantsSql(places: FunctionPlaces): string {
  return filled(natsFunctionsGrantsSql, places);
}

/** The functions for everybody, without those of the schema `hawser`. */
export function publicFunctions(places: FunctionPlaces): FunctionDefinition[] {
  const prefix = `${pg.escapeIdentifier(places.schema)}.`;
  return [...functionsSql(places).matchAll(definition)].flatMap(([, declared, result, body]) =>
    declared!.startsWith(prefix) ? [definitionOf(declared!.slice(prefix.length), result!, body!)] : [],
  );
}

/** How many {@link publicFunctions} there are. */
export const publicFunctionCount = natsFunctionSignatures.filter((name) => name.startsWith("@extschema@.")).length;

const definition =
  /^CREATE OR REPLACE FUNCTION (.+?\))\nRETURNS (.+?)\nLANGUAGE .+?\nAS \$function\$(.*?)\$function\$;$/gms;

function definitionOf(declared: string, result: string, body: string): FunctionDefinition {
  const open = declared.indexOf("(");
  const parameters = lines(declared.slice(open + 1, -1));
  return {
    name: declared.slice(0, open),
    types: parameters.map((parameter) => typeOf(parameter)).join(", "),
    arguments: parameters
      .map((parameter) => parameter.replace(/ DEFAULT NULL$/, () => ` DEFAULT NULL::${typeOf(parameter)}`))
      .join(", "),
    result: result.startsWith("TABLE (") ? `TABLE(${lines(result.slice("TABLE (".length, -1)).join(", ")})` : result,
    body,
  };
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim().replace(/,$/, ""))
    .filter((line) => line !== "");
}

/** Of `headers jsonb DEFAULT NULL`: `jsonb`. */
function typeOf(parameter: string): string {
  return parameter.replace(/ DEFAULT NULL$/, "").replace(/^\w+ /, "");
}

function filled(text: string, { schema, dblinkSchema }: FunctionPlaces): string {
  for (const name of [schema, dblinkSchema]) {
    if (!isPlainName(name)) throw new Error(`the schema name ${JSON.stringify(name)} cannot be put into the functions`);
  }
  return text
    .replaceAll("@extschema@", () => pg.escapeIdentifier(schema))
    .replaceAll("@dblink@", () => pg.escapeIdentifier(dblinkSchema));
}
