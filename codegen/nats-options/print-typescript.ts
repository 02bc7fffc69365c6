import type { GeneratedFile } from "../plugin.js";
import { docstring, templateLiteral, typescriptHead } from "../print.js";
import { functionsFile, sqlTexts } from "./print-sql.js";
import { printTypes } from "./print-types.js";
import type { OptionsModel } from "./read.js";

/** Generates the folder `generated/ts/nats-options`. */
export async function printTypeScript(model: OptionsModel): Promise<GeneratedFile[]> {
  const file = (path: string, body: string, sources = [model.file]) => ({
    path,
    content: `${typescriptHead("codegen/nats-options", sources)}\n${body}`,
  });
  return [
    file("index.ts", printIndex(model)),
    file("sql.ts", printSql(model), [model.file, functionsFile]),
    file("types.ts", await printTypes(model)),
  ];
}

/** Prints the options and their rules as the data that src/nats/connections/server-options.ts reads, with a line for each. */
function printIndex({ options, rules, modes }: OptionsModel): string {
  const entries = options.map(
    ({ name, type, hidden, default: value }) => `${name}: ${data({ type, hidden, default: value })}`,
  );
  const rows = rules.map(({ option, holds, sqlstate, message, hint, about }) =>
    data({ option, holds, sqlstate, message, hint, about }),
  );
  const order = modes.map(({ mode, requires }) => `${mode}: ${data(requires)}`);
  const connection = options.flatMap((option) => (option["x-connection"] ? [data(option.name)] : []));
  const list = (doc: string, name: string, [open, close]: string, lines: readonly string[], satisfies = "") =>
    `${docstring(doc)}export const ${name} = ${open}\n${lines.map((line) => `  ${line},\n`).join("")}${close} as const${satisfies};\n`;
  return `import type { NatsAuth, NatsServerOptions } from "./types.js";

export { natsForeignDataSql, natsOptionsFunctionsSql, natsOptionsGrantsSql } from "./sql.js";
export type { CompleteNatsServerOptions, NatsAuth, NatsServerOptions } from "./types.js";

${list("Options in the order of the schema. Hidden values are never shown.", "serverOptions", "{}", entries, ` satisfies Record<keyof NatsServerOptions, object>`)}
${list("Rules in the order in which violations are reported; those with `about` are over several options.", "optionRules", "[]", rows)}
${list("Authentication modes with the options that they need; the first whose options are all set is used.", "authModes", "{}", order, ' satisfies Record<NatsAuth["mode"], readonly (keyof NatsServerOptions)[]>')}
export type NatsAuthMode = keyof typeof authModes;

${list("Options that affect the connection: a change of any other option needs no new connection.", "connectionOptions", "[]", connection, ` satisfies readonly (keyof NatsServerOptions)[]`)}
export type ConnectionOption = (typeof connectionOptions)[number];
`;
}

/** Literal on one line. */
function data(value: unknown): string {
  return JSON.stringify(value, null, 1)
    .replace(/\n */g, " ")
    .replace(/"(\w+)": /g, "$1: ");
}

function printSql(model: OptionsModel): string {
  const { shared, ownOnly, foreignOnly, wrapped, grants } = sqlTexts(model);
  const text = (name: string, doc: string, sql: string, assembled = "") =>
    `${docstring(doc)}${name} = ${templateLiteral(sql)}${assembled};\n`;
  return [
    text("const shared", "Validator functions that both schemas have; `@schema@` is the schema.", shared),
    text("const ownOnly", "Functions that only the schema `hawser` has.", ownOnly),
    text("const foreignOnly", "Functions that only the schema `hawser_fdw` has.", foreignOnly),
    text(
      "export const natsOptionsFunctionsSql",
      "Creates or replaces the functions; the schema `hawser` must exist.",
      wrapped,
      '\n  .replace("@functions@", () => shared + ownOnly)\n  .replaceAll("@schema@", "hawser")',
    ),
    text(
      "export const natsOptionsGrantsSql",
      "Revokes the functions from PUBLIC and makes the owner of the schema their owner.",
      grants,
    ),
    `${docstring("Creates or replaces the validator of the foreign data wrappers; the schema `hawser_fdw` must exist. Superusers run it.")}export const natsForeignDataSql = (shared + foreignOnly).replaceAll("@schema@", "hawser_fdw");\n`,
  ].join("\n");
}
