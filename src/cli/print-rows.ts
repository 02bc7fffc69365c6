/**
 * Rows on standard output: a table for people, or a line of JSON each.
 */
import { Output, print } from "./output.js";
import { jsonText } from "./printable.js";
import { type Column, table } from "./table.js";

/** Prints the rows. An empty list is a line on standard error for people, and nothing for programs. */
export async function printRows<Row extends object>(
  rows: readonly Row[],
  options: { readonly json: boolean; readonly none: string; readonly columns: readonly Column<Row>[] },
): Promise<void> {
  if (options.json) {
    await new Output().write(rows.map((row) => `${jsonText(row)}\n`).join(""));
  } else if (rows.length === 0) print(process.stderr, options.none);
  else print(process.stdout, table(rows, options.columns));
}
