import { baseNameOf, camelCase } from "../model/names.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, filesByArea, typescriptHead } from "../print.js";
import { sourceText } from "../source-text.js";
import { checkExpression, checkedColumn, checkedType, printLimits, ruleImports, textEntries } from "./checks.js";
import { framesModule, messagesWithRules } from "./frames.js";

/**
 * Generates `<area>/<file>.ts` for each file with rules on messages or with tables, `named.ts` with the named rules,
 * and their runtime `violation.ts`.
 */
export function generateValidators(spec: Spec): GeneratedFile[] {
  const checked = messagesWithRules(spec.files.flatMap((file) => file.messages));
  const modules = filesByArea(spec).flatMap(([area, files]) =>
    files.flatMap((file) => {
      const hasMessages = file.messages.some((message) => checked.has(message.desc.typeName));
      const path = `${area}/${baseNameOf(file.file.proto.name)}`;
      return [
        ...(hasMessages ? [{ path: `${path}.ts`, content: framesModule(file, checked) }] : []),
        ...(file.tables.length > 0
          ? [{ path: `${path}${hasMessages ? "-rows" : ""}.ts`, content: catalogModule(file) }]
          : []),
      ];
    }),
  );
  const named = namedModule(spec);
  return [
    ...(named === undefined ? [] : [{ path: "named.ts", content: named }]),
    { path: "violation.ts", content: `${typescriptHead("codegen/validators", [runtimeFile])}\n${runtime()}` },
    ...modules,
  ];
}

/** Prints the named rules, which fields refer to; undefined if there are none. */
function namedModule(spec: Spec): string | undefined {
  const entries = spec.namedRules
    .filter(({ rules }) => textEntries(rules) !== "")
    .map(
      ({ name, about, rules }) =>
        `${docstring(about, "  ")}  ${camelCase(name)}: {\n    ${textEntries(rules, ",\n    ")},\n  },\n`,
    );
  return entries.length === 0
    ? undefined
    : [
        typescriptHead("codegen/validators", [...new Set(spec.namedRules.map(({ file }) => file.proto.name))]),
        'import type { TextRules } from "./violation.js";\n',
        `${docstring("Named rules of the spec.")}export const namedRules = {\n${entries.join("")}} satisfies Readonly<Record<string, TextRules>>;\n`,
      ].join("\n");
}

/**
 * Prints the checks of the columns of one file's tables: the same as the CHECKs in Postgres, for use before a row is
 * sent.
 */
function catalogModule(file: SpecFile): string {
  const entries = file.tables.map((table) => {
    const checks = table.columns.flatMap((column) => {
      const check = checkedColumn(column);
      return check === undefined
        ? []
        : [`    ${column.name}: (value: ${checkedType(check)}) => ${checkExpression(check, "value")},\n`];
    });
    return `  ${table.name}: {\n${checks.join("")}  },\n`;
  });
  const doc = "Check of each column, by the SQL names of table and column; returns a `Violation` or undefined.";
  const body = [
    printLimits(file.tables.map((table) => ({ name: table.message.name, values: table.columns }))),
    `${docstring(doc)}export const columnChecks = {\n${entries.join("")}};\n`,
  ];
  return [typescriptHead("codegen/validators", [file]), ruleImports(body, ".."), ...body].join("\n");
}

const runtimeFile = "codegen/validators/runtime/violation.ts";

/**
 * Reads the source of `violation.ts`, which is the same for every spec. It is a source file of its own, so that it is
 * compiled and checked like any other.
 */
function runtime(): string {
  return sourceText("validators/runtime/violation.ts");
}
