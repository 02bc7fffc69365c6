import type { DescMessage } from "@bufbuild/protobuf";
import { type Column, readValueColumns, typeName } from "./columns.js";
import { commentOf } from "./comments.js";
import { readSqlPath } from "./functions.js";
import { sqlIdentifier } from "./names.js";
import type { SpecOptions, ViewOption } from "./options.js";
import { knownRole } from "./roles.js";
import { SpecError } from "./spec-error.js";
import type { Table } from "./tables.js";

/** View of the schema `hawser`. */
export interface View {
  readonly message: DescMessage;
  readonly name: string;
  readonly comment: string;
  readonly columns: readonly Column[];
  /** Path of the query's file, relative to the root of the project, or the table that the view shows. */
  readonly from: { readonly queryFile: string } | { readonly table: Table };
  /** Roles that may read the view. Without any, those of a table have the same privileges on its view. */
  readonly select: readonly string[];
}

/**
 * Reads the view that a message describes.
 *
 * @param tables tables of its file
 * @throws SpecError if the view names an unknown role or table, or a column has another type than in the table
 */
export function readView(
  message: DescMessage,
  option: ViewOption,
  options: SpecOptions,
  tables: readonly Table[],
): View {
  const columns = readValueColumns(message, options, false);
  return {
    message,
    name: sqlIdentifier(message, "view name", option.name),
    comment: commentOf(message),
    columns,
    from:
      option.table === ""
        ? { queryFile: readSqlPath(message, "query_file", option.queryFile) }
        : { table: shownTable(message, option, columns, tables) },
    select: option.select.map((role) => knownRole(message, role)),
  };
}

/** View that shows a whole table to roles that have no privilege on it; undefined if there are none. */
export function viewOfTable(table: Table): View | undefined {
  const { message, name, comment, shownTo: select } = table;
  if (select.length === 0) return undefined;
  const columns = table.columns.map(
    (column): Column => (column.type === "bigserial" ? { ...column, type: "bigint" } : column),
  );
  return { message, name, comment, columns, from: { table }, select };
}

function shownTable(
  message: DescMessage,
  { table: name }: ViewOption,
  columns: readonly Column[],
  tables: readonly Table[],
): Table {
  const table = tables.find((one) => one.name === name);
  if (table === undefined)
    throw new SpecError(message, `the view shows the table "${name}", which its file does not have`);
  for (const column of columns) {
    const shown = table.columns.find((one) => one.name === (column.source ?? column.name));
    if (shown !== undefined && typeName(column) !== typeName(shown).replace("bigserial", "bigint"))
      throw new SpecError(column.field, `the column has the type ${typeName(shown)} in the table "${name}"`);
  }
  return table;
}
