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
 * What node-postgres makes of a column, with this project's parser for bigint: smallint and integer number, bigint
 * bigint, bytea Buffer (a Uint8Array), timestamptz Date, jsonb the parsed value, arrays arrays.
 */
export function rowType(column: Column): string {
  const one = typeOfKind[column.kind]!;
  const type = column.repeated ? `${one}[]` : one;
  return column.nullable && type !== "unknown" ? `${type} | null` : type;
}

/** What a caller passes for a parameter: as `rowType`, but jsonb as JSON text and lists read-only. */
export function argumentType(column: Column): string {
  const one = column.kind === "json" ? "string" : typeOfKind[column.kind]!;
  const type = column.repeated ? `readonly ${one}[]` : one;
  return column.nullable ? `${type} | null` : type;
}
