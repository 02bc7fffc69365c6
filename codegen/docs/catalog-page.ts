import { type Column, typeName } from "../model/columns.js";
import { commentOf } from "../model/comments.js";
import type { FunctionGroup, SqlFunction } from "../model/functions.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { inTableSchema, type Table } from "../model/tables.js";
import type { View } from "../model/views.js";
import { code, codes, markdownTable, prose } from "../print.js";
import { functionSignature } from "../sql/function.js";

/** Tables and functions of one file: columns, keys, indexes, channels, grants. */
export function catalogSection(file: SpecFile): string {
  return [
    `## ${file.file.proto.package}\n`,
    `${prose(commentOf(file.file))}\n`,
    ...file.tables.map(tableSection),
    ...file.views.map(viewSection),
    ...file.functionGroups.map(functionsSection),
  ].join("\n");
}

function tableSection(table: Table): string {
  const rows = table.columns.map((column) => [
    code(column.name),
    code(typeName(column)) + (column.nullable ? ", may be NULL" : ""),
    column.generated === undefined
      ? (column.default ?? "")
        ? code(column.default!)
        : ""
      : `always ${code(column.generated)}`,
    limitPhrases(column.rules, column.kind).join("; "),
    prose(column.comment),
  ]);
  return [
    `### ${inTableSchema(table.name)}\n`,
    `${prose(table.comment)}\n`,
    markdownTable(["Column", "Type", "Default", "Limits", "Meaning"], rows),
    `${tableFacts(table)
      .map((fact) => `- ${fact}\n`)
      .join("")}`,
  ].join("\n");
}

function viewSection(view: View): string {
  const rows = view.columns.map((column) => [
    code(column.name),
    code(typeName(column)) + (column.nullable ? ", may be NULL" : ""),
    prose(column.comment),
  ]);
  return [
    `### hawser.${view.name} (view)\n`,
    `${prose(view.comment)}\n`,
    markdownTable(["Column", "Type", "Meaning"], rows),
    "table" in view.from
      ? `Shows ${code(inTableSchema(view.from.table.name))}, with the same privileges; what is written into the view is written there.\n`
      : `Readable by ${view.select.length === 0 ? "nobody but its owner" : codes(view.select)}.\n`,
  ].join("\n");
}

function tableFacts(table: Table): string[] {
  return [
    `Primary key: ${codes(table.primaryKey)}`,
    ...table.unique.map((columns) => `Unique: ${codes(columns)}`),
    ...table.indexes.map((index) => {
      const where = index.where === undefined ? "" : ` where ${code(index.where)}`;
      return `Index ${code(index.name)}: ${codes(index.columns)}${where}`;
    }),
    ...table.checks.map((check) => `Check ${code(check.name)}: ${code(check.expression)}`),
    ...(table.notify === undefined
      ? []
      : [
          `Each change is notified on channel ${code(table.notify.channel)}, as JSON with \`operation\`, ${codes(table.notify.columns)}`,
        ]),
    ...(table.fillfactor === undefined ? [] : [`Inserts fill a page to ${table.fillfactor} %`]),
    ...table.grants.map((grant) => {
      const columns = grant.columns.length === 0 ? "" : ` on ${codes(grant.columns)}`;
      return `${code(grant.role)} may ${grant.privileges.join(", ")}${columns}`;
    }),
  ];
}

function functionsSection(group: FunctionGroup): string {
  return [`### Functions\n`, `${prose(group.comment)}\n`, ...group.functions.map(functionSection)].join("\n");
}

function functionSection(fn: SqlFunction): string {
  const rows = (kind: string, columns: readonly Column[]) =>
    columns.map((column) => [
      kind,
      code(column.name),
      code(typeName(column)) + (column.nullable ? ", may be NULL" : ""),
      fn.execute.length === 0 ? "" : limitPhrases(column.rules, column.kind).join("; "),
      prose(column.comment),
    ]);
  const roles = fn.execute.length === 0 ? "nobody but its owner" : codes(fn.execute);
  return [
    `#### ${functionSignature(fn)}\n`,
    `${prose(fn.comment)}\n`,
    markdownTable(
      ["", "Name", "Type", "Limits", "Meaning"],
      [
        ...rows(
          "parameter",
          fn.parameters.map(({ column }) => column),
        ),
        ...rows("result", fn.results),
      ],
    ),
    `Returns ${fn.returnsSet ? "any number of rows" : "one row"}. Executable by ${roles}${fn.securityDefiner ? ", as its owner" : ""}.\n`,
  ].join("\n");
}
