import type { ErrorEntry } from "../model/errors.js";
import type { SpecFile } from "../model/spec.js";
import { code, markdownTable, prose } from "../print.js";

/** Errors of one file: first the codes that programs branch on, then the codes for people. */
export function errorsSections(file: SpecFile): string {
  return file.errorTables
    .map(({ comment, errors }) => {
      const forPrograms = errors.filter(({ branchAfter }) => branchAfter !== "");
      const forPeople = errors.filter(({ branchAfter }) => branchAfter === "");
      const calls = [...new Set(forPrograms.map(({ branchAfter }) => branchAfter))];
      const rows = calls.flatMap((call) =>
        forPrograms.filter(({ branchAfter }) => branchAfter === call).map((error) => [call, ...columns(error)]),
      );
      return [
        prose(comment),
        ...(rows.length === 0 ? [] : [programsHead, markdownTable(["After", ...head], rows)]),
        peopleHead,
        markdownTable(head, forPeople.map(columns)),
      ].join("\n\n");
    })
    .join("\n");
}

const programsHead = `## Codes that programs branch on

Each is an answer that a program can act on, after the call in the first column.`;

const peopleHead = `## Codes for people

Their messages say what to do. A program treats them alike: it logs the error, and tries again if \`retryable\` is true.`;

const head = ["Code", "Wire code", "SQLSTATE", "Exit status", "Retryable", "Meaning", "Remedy"];

function columns(error: ErrorEntry): string[] {
  return [
    code(error.code),
    String(error.wireCode),
    code(error.sqlstate),
    String(error.exitStatus),
    error.retryable ? "yes" : "no",
    prose(error.summary),
    prose(error.remedy),
  ];
}
