/**
 * Rows for people: aligned columns with a head.
 */
import pc from "picocolors";
import { printable } from "./printable.js";

/** A column: its head, and the text of a row's cell. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => string | number;
}

/** The rows as text, numbers to the right. Ends without a line's end. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)));
  const texts = cells.map((line) => line.map((cell) => printable(String(cell))));
  const widths = columns.map(({ head }, at) =>
    texts.reduce((width, line) => Math.max(width, line[at]!.length), head.length),
  );
  const isNumber = columns.map((_, at) => cells.some((line) => typeof line[at] === "number"));
  const line = (parts: readonly string[]) =>
    parts
      .map((part, at) => (isNumber[at] ? part.padStart(widths[at]!) : part.padEnd(widths[at]!)))
      .join("  ")
      .trimEnd();
  return [pc.bold(line(columns.map(({ head }) => head))), ...texts.map(line)].join("\n");
}

/** 1 message, 2 messages. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
