/**
 * The results as people read them: for each thing measured a table, payload sizes down, we and the baselines across.
 */
import { resultOf } from "./report.js";
import type { Measured } from "./suite.js";

/** All tables of a suite. */
export function tablesOf(measured: readonly Measured[]): string {
  const names = [...new Set(measured.map(({ name }) => name))];
  return names.map((name) => tableOf(measured.filter((each) => each.name === name))).join("\n\n");
}

/** The table of one thing, measured with one payload size or more. */
function tableOf(measured: readonly Measured[]): string {
  const { name, unit, better } = measured[0]!;
  const results = measured.map(resultOf);
  const baselines = [...new Set(results.flatMap((result) => Object.keys(result.baselines)))];
  const head = [rowHeading(measured), name, "min", "max", ...baselines.flatMap((baseline) => [baseline, "ratio"])];
  const rows = results.map((result, index) => [
    rowLabel(measured[index]!),
    formatValue(result.median),
    formatValue(result.min),
    formatValue(result.max),
    ...baselines.flatMap((baseline) => {
      const theirs = result.baselines[baseline];
      return theirs === undefined ? ["", ""] : [formatValue(theirs.median), `${theirs.ratio.toFixed(2)}×`];
    }),
  ]);
  const ratio = better === "higher" ? `${name} over the baseline` : `the baseline over ${name}`;
  return `${unit}, medians; ratio: ${ratio}, above 1 is better\n${aligned([head, ...rows])}`;
}

/** What the rows of a table are: payload sizes, or what else was varied. */
export function rowHeading(measured: readonly Measured[]): string {
  return measured.some(({ variant }) => variant !== undefined) ? "case" : "payload";
}

/** One of them. */
export function rowLabel({ variant, payloadBytes }: Pick<Measured, "variant" | "payloadBytes">): string {
  return variant ?? formatBytes(payloadBytes);
}

/** Columns side by side, flush right. */
function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padStart(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A size as people say it: 10 B, 1 KiB. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1 << 20 && bytes % (1 << 20) === 0) return `${bytes / (1 << 20)} MiB`;
  return bytes >= 1024 && bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} B`;
}

/** Thousands apart; decimals only where there is little before them. */
export function formatValue(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 100 ? 2 : 0 });
}
