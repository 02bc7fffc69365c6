/** Overviews of the console as tables of a command. Apart from `output.ts`, which every start of the command loads. */
import { columnsIn, type OverviewTable } from "../console/index.js";
import type { Column } from "./output.js";

/** Options of {@link printRows} for an overview. */
export function overviewRows<Row>(overview: OverviewTable<Row>, json: boolean) {
  const now = Date.now();
  const columns = columnsIn(overview, "list").map(({ head, cell }): Column<Row> => {
    const textOf = (row: Row) => {
      const value = cell(row, now) ?? "";
      return value instanceof Date ? value.toISOString() : value;
    };
    return { head: head.toUpperCase(), cell: textOf };
  });
  return { json, none: overview.none, columns };
}
