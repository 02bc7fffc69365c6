import { lowerFirst } from "../model/names.js";
import { inTableSchema, type Table } from "../model/tables.js";
import type { View } from "../model/views.js";
import { docstring, stringLiteral } from "../print.js";
import { rowType } from "./types.js";

/** Prints the row type of a table or view. */
export function rowInterface(table: Table | View): string {
  const name = "primaryKey" in table ? inTableSchema(table.name) : `hawser.${table.name}`;
  const text = table.comment === "" ? `Row of ${name}.` : `Row of ${name}. ${table.comment}`;
  const properties = table.columns.map(
    (column) => `${docstring(column.comment, "  ")}  ${column.name}: ${rowType(column)};\n`,
  );
  return `${docstring(text)}export interface ${table.message.name}Row {\n${properties.join("")}}\n`;
}

/** Prints the names of all tables and columns, so that no query repeats them by hand. */
export function tableNames(tables: readonly Table[]): string {
  const names = tables.map(
    (table) => `  ${lowerFirst(table.message.name)}: ${stringLiteral(inTableSchema(table.name))},\n`,
  );
  const columns = tables.map((table) => {
    const list = table.columns.map((column) => stringLiteral(column.name)).join(", ");
    return `  ${lowerFirst(table.message.name)}: [${list}],\n`;
  });
  const channels = tables.flatMap((table) =>
    table.notify === undefined
      ? []
      : [`  ${lowerFirst(table.message.name)}: ${stringLiteral(table.notify.channel)},\n`],
  );
  return [
    `${docstring("Names of the tables, with their schema.")}export const tables = {\n${names.join("")}} as const;\n`,
    `${docstring("Names of the columns of each table, in the order of its row type.")}export const columns = {\n${columns.join("")}} as const;\n`,
    ...(channels.length === 0
      ? []
      : [
          `${docstring("NOTIFY channels of changed rows.")}export const notifyChannels = {\n${channels.join("")}} as const;\n`,
        ]),
  ].join("\n");
}

export function viewNames(views: readonly View[]): string {
  const names = views.map((view) => `  ${lowerFirst(view.message.name)}: ${stringLiteral(`hawser.${view.name}`)},\n`);
  return `${docstring("Names of the views, with their schema.")}export const views = {\n${names.join("")}} as const;\n`;
}
