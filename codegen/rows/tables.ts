import { lowerFirst } from "../model/names.js";
import { inTableSchema, type Table } from "../model/tables.js";
import type { View } from "../model/views.js";
import { docstring, stringLiteral } from "../print.js";
import { rowType } from "./types.js";

/** Prints the row type of a table or view. */
export function rowInterface(table: Table | View): string {
  const name = "primaryKey" in table ? inTableSchema(table) : `hawser.${table.name}`;
  const text = table.comment === "" ? `Row of ${name}.` : `Row of ${name}. ${table.comment}`;
  const properties = table.columns.map(
    (column) => `${docstring(column.comment, "  ")}  ${column.name}: ${rowType(column)};\n`,
  );
  return `${docstring(text)}export interface ${table.message.name}Row {\n${properties.join("")}}\n`;
}

/** Prints the names of all tables, and their channels, so that no query repeats them by hand. */
export function tableNames(tables: readonly Table[]): string {
  const line = ({ message }: Table, text: string) => `  ${lowerFirst(message.name)}: ${stringLiteral(text)},\n`;
  const names = tables.map((table) => line(table, inTableSchema(table)));
  const channels = tables.flatMap((table) => (table.notify === undefined ? [] : [line(table, table.notify.channel)]));
  const text = `${docstring("Names of the tables, with their schema.")}export const tables = {\n${names.join("")}} as const;\n`;
  if (channels.length === 0) return text;
  return `${text}\n${docstring("NOTIFY channels of changed rows.")}export const notifyChannels = {\n${channels.join("")}} as const;\n`;
}

export function viewNames(views: readonly View[]): string {
  const names = views.map((view) => `  ${lowerFirst(view.message.name)}: ${stringLiteral(`hawser.${view.name}`)},\n`);
  return `${docstring("Names of the views, with their schema.")}export const views = {\n${names.join("")}} as const;\n`;
}
