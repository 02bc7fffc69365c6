import type { DescMessage } from "@bufbuild/protobuf";
import { type Column, readTableColumns } from "./columns.js";
import { commentOf } from "./comments.js";
import { refuseDuplicates } from "./duplicates.js";
import { sqlIdentifier } from "./names.js";
import type { SpecOptions, TableOption } from "./options.js";
import { knownPrivileges, knownRole } from "./roles.js";
import { SpecError } from "./spec-error.js";

/**
 * Schema of the tables. Only roles that need tables may use it: a role that can name a table can hold up those who use
 * it, without any privilege on it. Functions and views are in the schema `hawser`.
 */
export const tableSchema = "hawser_data";

/** Table of the schema {@link tableSchema}. */
export interface Table {
  readonly message: DescMessage;
  readonly name: string;
  readonly comment: string;
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
  readonly unique: readonly (readonly string[])[];
  readonly indexes: readonly Index[];
  readonly checks: readonly { readonly name: string; readonly expression: string }[];
  readonly notify?: { readonly channel: string; readonly columns: readonly string[] };
  readonly grants: readonly Grant[];
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
 * @throws SpecError if the table has no key, or names an unknown column, role or privilege.
 */
export function readTable(message: DescMessage, option: TableOption, options: SpecOptions): Table {
  const columns = readTableColumns(message, options);
  const known = (what: string, names: readonly string[]) => knownColumns(message, columns, what, names);
  if (option.primaryKey.length === 0) {
    throw new SpecError(message, `table "${option.name}" has no primary_key`);
  }
  refuseDuplicates(message, "indexes", option.index);
  refuseDuplicates(message, "checks", option.check);
  const table: Table = {
    message,
    name: sqlIdentifier(message, "table name", option.name),
    comment: commentOf(message),
    columns,
    primaryKey: known("primary_key", option.primaryKey),
    unique: option.unique.map((key) => known("unique key", key.columns)),
    indexes: option.index.map((index) => readIndex(message, index, known)),
    checks: option.check.map(({ name, expression }) => {
      if (expression === "") {
        throw new SpecError(message, `check "${name}" has no expression`);
      }
      return { name: sqlIdentifier(message, "check name", name), expression };
    }),
    ...(option.notify === undefined ? {} : { notify: readNotify(message, option.notify, known) }),
    grants: option.grant.map(({ role, privileges, columns: granted }) => ({
      role: knownRole(message, role),
      privileges: knownPrivileges(message, role, privileges, granted.length > 0),
      columns: granted.length > 0 ? known(`grant to ${role}`, granted) : [],
    })),
    rows: option.row.map(({ values }) => values),
    ...(option.segments === undefined ? {} : { segments: readSegments(message, option.segments, known) }),
    ...(option.fillfactor === 0 ? {} : { fillfactor: readFillfactor(message, option) }),
  };
  refuseNullableKey(table);
  const wanted = insertableColumns(table).length;
  for (const row of table.rows) {
    if (row.length !== wanted) {
      throw new SpecError(message, `a row has ${row.length} values for ${wanted} columns that are not generated`);
    }
  }
  if (table.notify !== undefined) {
    checkNotifyPayload(table, table.notify);
  }
  return table;
}

/** Name of a table, partition or sequence with its schema. */
export function inTableSchema(name: string): string {
  return `${tableSchema}.${name}`;
}

/** Names of the table and its partitions. */
export function relationsOf({ name, segments }: Table): string[] {
  return [name, ...Array.from({ length: segments?.count ?? 0 }, (_, nth) => `${name}_${nth}`)];
}

function readSegments(
  message: DescMessage,
  { column, count }: NonNullable<TableOption["segments"]>,
  known: KnownColumns,
) {
  known("segments", [column]);
  if (count < 2) {
    throw new SpecError(message, `segments: count is ${count}; a partitioned table needs 2 or more`);
  }
  return { column, count };
}

function readFillfactor(message: DescMessage, { fillfactor, segments }: TableOption): number {
  if (fillfactor < 10 || fillfactor > 99) {
    throw new SpecError(message, `fillfactor is ${fillfactor}; give a percentage from 10 to 99`);
  }
  if (segments !== undefined) {
    throw new SpecError(
      message,
      "a table with segments cannot have a fillfactor; Postgres takes it of partitions alone",
    );
  }
  return fillfactor;
}

/** Columns that an INSERT may name: all that are not generated. */
export function insertableColumns(table: Table): readonly Column[] {
  return table.columns.filter((column) => column.generated === undefined);
}

function refuseNullableKey(table: Table): void {
  const nullable = table.columns.find((column) => column.nullable && table.primaryKey.includes(column.name));
  if (nullable !== undefined) {
    throw new SpecError(
      table.message,
      `primary_key names column "${nullable.name}", which is optional; keys are never NULL`,
    );
  }
}

type KnownColumns = (what: string, names: readonly string[]) => readonly string[];

function readIndex(message: DescMessage, index: TableOption["index"][number], known: KnownColumns): Index {
  const what = `index "${index.name}"`;
  const plain = index.columns.filter((column) => !/^\(.+\)$/s.test(column));
  if (index.columns.length === 0) {
    throw new SpecError(message, `${what} names no column`);
  }
  if (plain.length > 0) {
    known(what, plain);
  }
  return {
    name: sqlIdentifier(message, "index name", index.name),
    columns: index.columns,
    ...(index.where === "" ? {} : { where: index.where }),
  };
}

function readNotify(message: DescMessage, notify: NonNullable<TableOption["notify"]>, known: KnownColumns) {
  return {
    channel: sqlIdentifier(message, "channel", notify.channel),
    columns: known("notify", notify.columns),
  };
}

function knownColumns(
  message: DescMessage,
  columns: readonly Column[],
  what: string,
  names: readonly string[],
): readonly string[] {
  if (names.length === 0) {
    throw new SpecError(message, `${what} names no column`);
  }
  for (const [position, name] of names.entries()) {
    if (!columns.some((column) => column.name === name)) {
      const all = columns.map((column) => column.name).join(", ");
      throw new SpecError(message, `${what} names an unknown column "${name}"; the table has ${all}`);
    }
    if (names.indexOf(name) !== position) {
      throw new SpecError(message, `${what} names column "${name}" twice`);
    }
  }
  return names;
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

function greatestJsonBytes(table: Table, column: Column): number {
  const { maxBytes } = column.rules;
  switch (column.kind) {
    case "number":
    case "bigint":
    case "boolean":
    case "timestamp":
      if (!column.repeated) {
        return scalarBytes;
      }
      break;
    case "string":
      if (!column.repeated && maxBytes !== undefined) {
        return maxBytes * jsonGrowth + 2;
      }
      break;
    default:
      break;
  }
  throw new SpecError(
    table.message,
    `notify: column "${column.name}" has no greatest length; name only numbers, booleans, times and text with max_bytes`,
  );
}
