import type { Column } from "../model/columns.js";
import type { ValueKind } from "../model/value-kind.js";

const typeOfKind: Partial<Record<ValueKind, string>> = {
  number: "number",
  bigint: "bigint",
  string: "string",
  bytes: "Uint8Array",
  boolean: "boolean",
  timestamp: "Date",
  json: "unknown",
};

/**
 * TypeScript type of a column as node-postgres returns it with this project's parser for bigint: smallint and integer
 * as number, bigint as bigint, bytea as Buffer (a Uint8Array), timestamptz as Date, jsonb as the parsed value, arrays
 * as arrays.
 */
export function rowType(column: Column): string {
  const one = typeOfKind[column.kind]!;
  const type = column.repeated ? `${one}[]` : one;
  return column.nullable && type !== "unknown" ? `${type} | null` : type;
}

/** TypeScript type of an argument: like `rowType`, but jsonb as JSON text and lists read-only. */
export function argumentType(column: Column): string {
  const one = column.kind === "json" ? "string" : typeOfKind[column.kind]!;
  const type = column.repeated ? `readonly ${one}[]` : one;
  return column.nullable ? `${type} | null` : type;
}
