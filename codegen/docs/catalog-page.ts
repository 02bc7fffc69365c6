import { type Column, typeName } from "../model/columns.js";
import { commentOf } from "../model/comments.js";
import type { FunctionGroup, SqlFunction } from "../model/functions.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { inTableSchema, type Table } from "../model/tables.js";
import type { View } from "../model/views.js";
import { code, codes, markdownTable, prose, section } from "../print.js";
import { functionSignature } from "../sql/function.js";

/** Tables and functions of one file: columns, keys, indexes, channels, grants. */
export function catalogSection(file: SpecFile): string {
  return section(
    `## ${file.file.proto.package}`,
    commentOf(file.file),
    ...file.tables.map(tableSection),
    ...file.views.filter(({ message }) => !file.tables.some((table) => table.message === message)).map(viewSection),
    ...file.functionGroups.map(functionsSection),
  );
}

/** Name and type of a column. */
function nameAndType(column: Column): string[] {
  return [code(column.name), code(typeName(column)) + (column.nullable ? ", may be NULL" : "")];
}

function tableSection(table: Table): string {
  const rows = table.columns.map((column) => [
    ...nameAndType(column),
    column.generated !== undefined ? `always ${code(column.generated)}` : column.default ? code(column.default) : "",
    limitPhrases(column.rules, column.kind).join("; "),
    prose(column.comment),
  ]);
  return section(
    `### ${inTableSchema(table)}`,
    table.comment,
    markdownTable(["Column", "Type", "Default", "Limits", "Meaning"], rows),
    tableFacts(table)
      .map((fact) => `- ${fact}\n`)
      .join(""),
  );
}

function viewSection(view: View): string {
  return section(
    `### hawser.${view.name} (view)`,
    view.comment,
    markdownTable(
      ["Column", "Type", "Meaning"],
      view.columns.map((column) => [...nameAndType(column), prose(column.comment)]),
    ),
    "table" in view.from
      ? `Shows ${code(inTableSchema(view.from.table))}, with the same privileges; what is written into the view is written there.\n`
      : `Readable by ${view.select.length === 0 ? "nobody but its owner" : codes(view.select)}.\n`,
  );
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
    ...(table.shownTo.length === 0
      ? []
      : [`The view ${code(`hawser.${table.name}`)} shows it to ${codes(table.shownTo)}`]),
    ...table.grants.map((grant) => {
      const columns = grant.columns.length === 0 ? "" : ` on ${codes(grant.columns)}`;
      return `${code(grant.role)} may ${grant.privileges.join(", ")}${columns}`;
    }),
  ];
}

function functionsSection(group: FunctionGroup): string {
  return section("### Functions", group.comment, ...group.functions.map(functionSection));
}

function functionSection(fn: SqlFunction): string {
  const row = (kind: string, column: Column) => [
    kind,
    ...nameAndType(column),
    fn.execute.length === 0 ? "" : limitPhrases(column.rules, column.kind).join("; "),
    prose(column.comment),
  ];
  const parameters = fn.parameters.map(({ column }) => row("parameter", column));
  const results = fn.results.map((column) => row("result", column));
  const roles = fn.execute.length === 0 ? "nobody but its owner" : codes(fn.execute);
  return section(
    `#### ${functionSignature(fn)}`,
    fn.comment,
    markdownTable(["", "Name", "Type", "Limits", "Meaning"], [...parameters, ...results]),
    `Returns ${fn.returnsSet ? "any number of rows" : "one row"}. Executable by ${roles}${fn.securityDefiner ? ", as its owner" : ""}.\n`,
  );
}
