import { typeName } from "../model/columns.js";
import { inTableSchema } from "../model/tables.js";
import type { View } from "../model/views.js";
import { readQuery, type SqlConstants } from "./body.js";
import { sqlString } from "./literal.js";

/**
 * CREATE VIEW with the query of the file that the spec names, or of a table; columns are cast to the types of the spec.
 * The casts of a table's columns change nothing, so that Postgres writes through them. A view of a table hides no row, and
 * is no barrier, so that its conditions reach the table's indexes. An installed view can be replaced as long as columns
 * are only added at its end.
 *
 * @throws SpecError if the file cannot be read, or is not a query
 */
export function viewStatements(view: View, constants: SqlConstants): string {
  const columns = view.columns.map(
    (column) => `  v.${column.source ?? column.name}::${typeName(column)} AS ${column.name}`,
  );
  return [
    `CREATE OR REPLACE VIEW hawser.${view.name} ${"table" in view.from ? "" : "WITH (security_barrier) "}AS`,
    `SELECT\n${columns.join(",\n")}`,
    `FROM ${source(view, constants)} AS v;`,
    `COMMENT ON VIEW hawser.${view.name} IS ${sqlString(view.comment)};`,
    ...view.columns
      .filter(({ comment }) => comment !== "")
      .map(({ name, comment }) => `COMMENT ON COLUMN hawser.${view.name}.${name} IS ${sqlString(comment)};`),
    "",
  ].join("\n");
}

function source({ message, from }: View, constants: SqlConstants): string {
  return "table" in from ? inTableSchema(from.table) : `(\n${readQuery(message, from.queryFile, constants)}\n)`;
}
