import { typeName } from "../model/columns.js";
import type { View } from "../model/views.js";
import { readQuery, type SqlConstants } from "./body.js";
import { sqlString } from "./literal.js";

/**
 * CREATE VIEW with the query of the file that the spec names; columns are cast to the types of the spec. An installed
 * view can be replaced as long as columns are only added at its end.
 *
 * @throws SpecError if the file cannot be read, or is not a query
 */
export function viewStatements(view: View, constants: SqlConstants): string {
  const columns = view.columns.map((column) => `  v.${column.name}::${typeName(column)} AS ${column.name}`);
  return [
    `CREATE OR REPLACE VIEW hawser.${view.name} WITH (security_barrier) AS`,
    `SELECT\n${columns.join(",\n")}`,
    `FROM (\n${readQuery(view.message, view.queryFile, constants)}\n) AS v;`,
    `COMMENT ON VIEW hawser.${view.name} IS ${sqlString(view.comment)};`,
    ...view.columns
      .filter(({ comment }) => comment !== "")
      .map(({ name, comment }) => `COMMENT ON COLUMN hawser.${view.name}.${name} IS ${sqlString(comment)};`),
    "",
  ].join("\n");
}
