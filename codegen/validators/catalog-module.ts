import type { SpecFile } from "../model/spec.js";
import type { Table } from "../model/tables.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import { printCheck } from "./check-function.js";
import { checkedColumn } from "./checked-value.js";
import { importLine } from "./imports.js";
import { printLimits } from "./limits.js";

/** The checks of the columns of one file's tables: what the CHECKs in Postgres say, before a row is sent there. */
export function catalogModule(file: SpecFile, area: string): string {
  const checks = file.tables.flatMap((table) => table.columns.flatMap((column) => checkedColumn(column) ?? []));
  const body = [
    printLimits(file.tables.map((table) => ({ name: table.message.name, values: table.columns }))),
    ...checks.map((value) => printCheck(value)),
    ...file.tables.map(rowValidator),
    columnChecks(file.tables),
  ];
  const types = file.tables.map((table) => `${table.message.name}Row`).sort();
  return [
    typescriptHead("codegen/validators", [file]),
    `import type { ${types.join(", ")} } from ${stringLiteral(`../../rows/${area}.js`)};\n${importLine(body, "../violation.js")}`,
    ...body,
  ].join("\n");
}

function rowValidator(table: Table): string {
  const steps = table.columns.flatMap((column) => {
    const check = checkedColumn(column);
    if (check === undefined) {
      return [];
    }
    const value = `row.${column.name}`;
    const call = `${check.functionName}(${value})`;
    return [column.nullable ? `(${value} === null ? undefined : ${call})` : call];
  });
  const name = table.message.name;
  return [
    `${docstring(`Checks each column of a row of hawser.${table.name}; checks over several columns are Postgres's alone.`)}export function validate${name}Row(row: ${name}Row): Violation | undefined {`,
    `  return ${steps.length === 0 ? "undefined" : steps.join(" ??\n    ")};`,
    "}",
    "",
  ].join("\n");
}

/** All checks by table and column, for tools and tests that go through them. */
function columnChecks(tables: readonly Table[]): string {
  const entries = tables.map((table) => {
    const checks = table.columns.flatMap((column) => {
      const check = checkedColumn(column);
      return check === undefined ? [] : [`    ${column.name}: ${check.functionName},\n`];
    });
    return `  ${table.name}: {\n${checks.join("")}  },\n`;
  });
  return `${docstring("The check of each column, by table and column as they are named in SQL.")}export const columnChecks = {\n${entries.join("")}} as const;\n`;
}
