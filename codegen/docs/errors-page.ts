import type { SpecFile } from "../model/spec.js";
import { code, markdownTable, prose } from "../print.js";

/** The errors of one file: by which numbers and names they are known, what they mean, what to do. */
export function errorsSections(file: SpecFile): string {
  return file.errorTables
    .map((table) => {
      const rows = table.errors.map((error) => [
        code(error.code),
        String(error.wireCode),
        code(error.sqlstate),
        String(error.exitStatus),
        error.retryable ? "yes" : "no",
        prose(error.summary),
        prose(error.remedy),
      ]);
      const head = ["Code", "Wire code", "SQLSTATE", "Exit status", "Retryable", "What happened", "What to do"];
      return `${prose(table.comment)}\n\n${markdownTable(head, rows)}`;
    })
    .join("\n");
}
