import { readFileSync } from "node:fs";
import type { GeneratedFile } from "../plugin.js";
import { docstring, templateLiteral } from "../typescript.js";
import { typescriptHead } from "./head.js";
import type { OptionsModel } from "./model.js";
import { printAuth } from "./print-auth.js";
import { foreignDataSql, functionsSql, grantsSql } from "./print-sql.js";
import { printTable } from "./print-table.js";
import { printTypes } from "./print-types.js";
import { printValidator } from "./print-validator.js";

/** Files that are the same for every schema: ordinary TypeScript, copied as it is. */
const runtimeFiles = ["check.ts", "coerce.ts", "suggest.ts"];

/** The folder `generated/ts/nats-options`. */
export async function printTypeScript(model: OptionsModel): Promise<GeneratedFile[]> {
  const fromSchema: Record<string, string> = {
    "auth.ts": printAuth(model),
    "index.ts": printIndex(model),
    "sql.ts": printSqlText(model),
    "table.ts": printTable(model),
    "types.ts": await printTypes(model),
    "validator.ts": printValidator(model),
  };
  return [
    ...Object.entries(fromSchema).map(([path, body]) => ({ path, content: `${typescriptHead(model.file)}${body}` })),
    ...runtimeFiles.map(copyRuntime),
  ];
}

function copyRuntime(name: string): GeneratedFile {
  const text = readFileSync(new URL(`runtime/${name}`, import.meta.url), "utf8").replaceAll("\r\n", "\n");
  return { path: name, content: `${typescriptHead(`codegen/nats-options/runtime/${name}`)}${text}` };
}

/** The public names. */
function printIndex({ title, options }: OptionsModel): string {
  const ofConnection = options.filter(({ connection }) => connection).map(({ name }) => `\n  "${name}",`);
  return `
import { checkOptions, type OptionsResult } from "./check.js";
import { table } from "./table.js";
import type { Complete${title} } from "./types.js";
import { validate } from "./validator.js";

export { authModes, type NatsAuth, type NatsAuthMode, resolveAuth } from "./auth.js";
export type { OptionsResult, OptionViolation } from "./check.js";
export { natsForeignDataSql, natsOptionsFunctionsSql, natsOptionsGrantsSql } from "./sql.js";
export type { Complete${title}, ${title} } from "./types.js";

/** The options that the connection is made of: a change of any other one needs no new connection. */
export const connectionOptions: readonly (keyof Complete${title})[] = [${ofConnection.join("")}
];

/**
 * Checks the options of server and user mapping put together: strings, as a foreign server has them, or typed, as in
 * JSON. Gives them in their own types and with the defaults, or the first violation, in the words and with the SQLSTATE
 * of the SQL function \`hawser.nats_server_options_violation\`. No secret value is ever part of it. Does not throw.
 */
export function check${title}(input: Readonly<Record<string, unknown>>): OptionsResult<Complete${title}> {
  return checkOptions(table, validate, input);
}
`;
}

function printSqlText(model: OptionsModel): string {
  const texts = [
    [
      "natsOptionsFunctionsSql",
      functionsSql(model),
      "Makes or replaces the functions; the schema `hawser` must be there.",
    ],
    [
      "natsOptionsGrantsSql",
      grantsSql(model),
      "Takes the functions from PUBLIC and gives them to the owner of the schema.",
    ],
    [
      "natsForeignDataSql",
      foreignDataSql(model),
      "Makes or replaces the validator of the foreign data wrappers; the schema `hawser_fdw` must be there.",
    ],
  ] as const;
  return texts
    .map(([name, sql, doc]) => `\n${docstring(doc)}export const ${name} = ${templateLiteral(sql)};\n`)
    .join("");
}
