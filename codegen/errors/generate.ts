import type { ErrorEntry } from "../model/errors.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, fileOfEachArea, propertyName, stringLiteral, typescriptHead } from "../print.js";

/** Generates `<area>.ts` for each package with errors: the table by code, its types, and the look-up by wire code. */
export function generateErrors(spec: Spec): GeneratedFile[] {
  return fileOfEachArea(spec, (file) => file.errorTables.length > 0, errorsModule);
}

function errorsModule(sources: readonly SpecFile[]): string {
  const tables = sources.flatMap((file) => file.errorTables);
  const entries = tables.flatMap((table) => table.errors).map(errorEntry);
  return [
    typescriptHead("codegen/errors", sources),
    entryInterface,
    `${docstring(tables.map((table) => table.comment).join("\n\n"))}export const errorTable = {\n${entries.join("")}} as const satisfies Record<string, ErrorEntry>;\n`,
    `${docstring("Stable code of an error.")}export type ErrorCodeName = keyof typeof errorTable;\n`,
    byWireCode,
  ].join("\n");
}

const entryInterface = `${docstring("Entry of the error table.")}export interface ErrorEntry {
  /** Stable code, by which programs distinguish errors. */
  readonly code: string;
  /** Number in frames. */
  readonly wireCode: number;
  /** SQLSTATE in SQL. */
  readonly sqlstate: string;
  /** Exit status of a command that ends with the error. */
  readonly exitStatus: number;
  /** True if a retry may succeed. */
  readonly retryable: boolean;
  /** Description of the failure. */
  readonly summary: string;
  /** Remedy. */
  readonly remedy: string;
}
`;

const byWireCode = `const codesByWireCode: ReadonlyMap<number, ErrorCodeName> = new Map(
  Object.values(errorTable).map((error) => [error.wireCode, error.code]),
);

${docstring("Finds the error with a number in a frame; undefined if this version does not know the number.")}export function errorByWireCode(wireCode: number): (typeof errorTable)[ErrorCodeName] | undefined {
  const code = codesByWireCode.get(wireCode);
  return code === undefined ? undefined : errorTable[code];
}
`;

function errorEntry(error: ErrorEntry): string {
  return [
    `${docstring(error.summary, "  ")}  ${propertyName(error.code)}: {`,
    `    code: ${stringLiteral(error.code)},`,
    `    wireCode: ${error.wireCode},`,
    `    sqlstate: ${stringLiteral(error.sqlstate)},`,
    `    exitStatus: ${error.exitStatus},`,
    `    retryable: ${error.retryable},`,
    `    summary: ${stringLiteral(error.summary)},`,
    `    remedy: ${stringLiteral(error.remedy)},`,
    "  },",
    "",
  ].join("\n");
}
