import type { DescMessage } from "@bufbuild/protobuf";
import { type Column, readTableColumns } from "./columns.js";
import { commentOf } from "./comments.js";
import { sqlIdentifier } from "./names.js";
import type { SpecOptions, TableOption } from "./options.js";
import { knownRole } from "./roles.js";
import { SpecError } from "./spec-error.js";

/**
 * Schema of the tables on which no role has a privilege. No role may use it: a role that can name a table can hold up
 * those who use it, without any privilege on it. Functions and views are in the schema `hawser`.
 */
const commonSchema = "hawser_data";

/** Roles that have privileges on tables, each with a schema for these tables, which only this role may use. */
const schemaOfRole: Readonly<Record<string, string>> = {
  hawser_peer: "hawser_peer_data",
  hawser_bridge: "hawser_bridge_data",
};

/** Schemas of the tables. */
export const tableSchemas: readonly string[] = [commonSchema, ...Object.values(schemaOfRole)];

/** Table of one of the {@link tableSchemas}. */
export interface Table {
  readonly message: DescMessage;
  /** Schema, which follows from the grants. */
  readonly schema: string;
  readonly name: string;
  readonly comment: string;
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
  readonly unique: readonly (readonly string[])[];
  readonly indexes: readonly Index[];
  readonly checks: readonly { readonly name: string; readonly expression: string }[];
  readonly notify?: { readonly channel: string; readonly columns: readonly string[] };
  readonly grants: readonly Grant[];
  /** Roles that read the table through the view of its name in the schema `hawser`; empty: there is no such view. */
  readonly shownTo: readonly string[];
  /** SQL literals for the columns that are not generated, one list per row. */
  readonly rows: readonly (readonly string[])[];
  /** Set for a table partitioned by list: each partition holds one value of the column, counted from 0. */
  readonly segments?: { readonly column: string; readonly count: number };
  /** Percentage to which inserts fill a page. */
  readonly fillfactor?: number;
}

interface Index {
  readonly name: string;
  /** Column names or parenthesised expressions. */
  readonly columns: readonly string[];
  /** Predicate of a partial index. */
  readonly where?: string;
}

interface Grant {
  readonly role: string;
  readonly privileges: readonly string[];
  /** Empty means the whole table. */
  readonly columns: readonly string[];
}

/**
 * Reads the table that a message describes.
 *
 * @throws SpecError if the table has no key, names an unknown role, or notifies more than NOTIFY takes
 */
export function readTable(message: DescMessage, option: TableOption, options: SpecOptions): Table {
  const columns = readTableColumns(message, options);
  const grants = option.grant.map(({ role, privileges, columns: granted }) => ({
    role: knownRole(message, role),
    privileges,
    columns: granted,
  }));
  if (option.primaryKey.length === 0) {
    throw new SpecError(message, `table "${option.name}" has no primary_key`);
  }
  const table: Table = {
    message,
    schema: schemaOf(message, option.name, grants),
    name: sqlIdentifier(message, "table name", option.name),
    comment: commentOf(message),
    columns,
    primaryKey: option.primaryKey,
    unique: option.unique.map((key) => key.columns),
    indexes: option.index.map(({ name, columns: indexed, where }) => ({
      name: sqlIdentifier(message, "index name", name),
      columns: indexed,
      ...(where === "" ? {} : { where }),
    })),
    checks: option.check.map(({ name, expression }) => ({
      name: sqlIdentifier(message, "check name", name),
      expression,
    })),
    ...(option.notify === undefined ? {} : { notify: option.notify }),
    grants,
    shownTo: option.shownTo.map((role) => knownRole(message, role)),
    rows: option.row.map(({ values }) => values),
    ...(option.segments === undefined ? {} : { segments: option.segments }),
    ...(option.fillfactor === 0 ? {} : { fillfactor: option.fillfactor }),
  };
  if (table.notify !== undefined) {
    checkNotifyPayload(table, table.notify);
  }
  return table;
}

function schemaOf(message: DescMessage, name: string, grants: readonly Grant[]): string {
  const [first, ...others] = new Set(grants.map(({ role }) => role));
  if (first === undefined) return commonSchema;
  const schema = schemaOfRole[first];
  if (schema !== undefined && others.length === 0) return schema;
  throw new SpecError(
    message,
    `table "${name}" is granted to ${[first, ...others].join(" and ")}; grant it to one of ${Object.keys(schemaOfRole).join(", ")}, and let others read it by shown_to or a function`,
  );
}

/** Name of a table, or of one of its partitions or sequences, with its schema. */
export function inTableSchema({ schema, name }: Table, part = name): string {
  return `${schema}.${part}`;
}

/** Names of the table and its partitions. */
export function relationsOf({ name, segments }: Table): string[] {
  return [name, ...Array.from({ length: segments?.count ?? 0 }, (_, nth) => `${name}_${nth}`)];
}

/** Columns that an INSERT may name: all that are not generated. */
export function insertableColumns(table: Table): readonly Column[] {
  return table.columns.filter((column) => column.generated === undefined);
}

/** pg_notify rejects payloads of this size or larger, which fails the write that fired the trigger. */
const payloadLimitBytes = 8000;

/** JSON escapes a control character of one byte with six. */
const jsonGrowth = 6;

/** Longest text of a number, boolean or timestamp in JSON, with its quotes. */
const scalarBytes = 40;

/** Length of `{"operation" : "insert"}` with the spaces that json_build_object writes. */
const operationBytes = 30;

/**
 * Ensures that the notification of every row is one that Postgres accepts.
 *
 * @throws SpecError if a text column of the payload has no limit, a column has a type without a bound, or the sum of
 * all exceeds the limit.
 */
function checkNotifyPayload(table: Table, notify: NonNullable<Table["notify"]>): void {
  let total = operationBytes;
  for (const name of notify.columns) {
    const column = table.columns.find((candidate) => candidate.name === name)!;
    total += name.length + '"" : , '.length + greatestJsonBytes(table, column);
  }
  if (total >= payloadLimitBytes) {
    throw new SpecError(
      table.message,
      `notify: the payload can reach ${total} bytes, and NOTIFY takes less than ${payloadLimitBytes}; name fewer columns`,
    );
  }
}

function greatestJsonBytes(table: Table, { name, kind, repeated, rules: { maxBytes } }: Column): number {
  if (!repeated && ["number", "bigint", "boolean", "timestamp"].includes(kind)) return scalarBytes;
  if (!repeated && kind === "string" && maxBytes !== undefined) return maxBytes * jsonGrowth + 2;
  throw new SpecError(
    table.message,
    `notify: column "${name}" has no greatest length; name only numbers, booleans, times and text with max_bytes`,
  );
}
