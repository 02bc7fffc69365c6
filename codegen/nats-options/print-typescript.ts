import type { GeneratedFile } from "../plugin.js";
import { docstring, patternLiteral, stringLiteral, templateLiteral, typescriptHead } from "../print.js";
import { sourceText } from "../source-text.js";
import { limitsOf, typeRule } from "./checks.js";
import { booleanPattern, farNumber, integerPattern, maxDigits, maxShownLength, maxSuggestedLength } from "./grammar.js";
import { type AuthMode, type Condition, isHidden, type Option, type OptionsModel, type Rule } from "./model.js";
import { sqlTexts } from "./print-sql.js";
import { printTypes } from "./print-types.js";

/** Files that are the same for every schema, copied unchanged. */
const runtimeFiles = ["check.ts", "suggest.ts"];

/** Generates the folder `generated/ts/nats-options`. */
export async function printTypeScript(model: OptionsModel): Promise<GeneratedFile[]> {
  const fromSchema: Record<string, string> = {
    "auth.ts": printAuth(model),
    "index.ts": printIndex(model),
    "sql.ts": printSql(model),
    "table.ts": printTable(model),
    "types.ts": await printTypes(model),
  };
  return [
    ...Object.entries(fromSchema).map(([path, body]) => ({
      path,
      content: `${typescriptHead("codegen/nats-options", [model.file])}\n${body}`,
    })),
    ...runtimeFiles.map((path) => {
      const source = `codegen/nats-options/runtime/${path}`;
      const text = sourceText(`nats-options/runtime/${path}`);
      return { path, content: `${typescriptHead("codegen/nats-options", [source])}\n${text}` };
    }),
  ];
}

/** Prints the schema as the data that `checkOptions` reads: a row for each option and for each rule. */
function printTable(model: OptionsModel): string {
  return `import type { OptionTable } from "./check.js";
import type { ${model.title} } from "./types.js";

/** Options, their types and limits, and the rules over several options. */
export const table: OptionTable<${model.title}> = {
  options: {
${model.options.map(printOption).join("")}  },
  rules: [
${model.rules.map((rule) => printRule(rule, model)).join("")}  ],
  grammar: {
    integer: ${patternLiteral(integerPattern)},
    true: ${patternLiteral(booleanPattern(true))},
    false: ${patternLiteral(booleanPattern(false))},
    farNumber: ${farNumber},
    maxDigits: ${maxDigits},
  },
  sqlstates: { unknown: "${model.sqlstates.unknown}", value: "${model.sqlstates.value}" },
  maxSuggestedLength: ${maxSuggestedLength},
  maxShownLength: ${maxShownLength},
};
`;
}

function printOption(option: Option): string {
  const limits = limitsOf(option).map(({ keyword, limit, rule }) => {
    const printed = keyword === "pattern" ? patternLiteral(limit) : limit;
    return `        { ${keyword}: ${printed}, rule: ${stringLiteral(rule)} },\n`;
  });
  return [
    `    ${option.name}: {\n`,
    `      type: "${option.type}",\n`,
    ...(option.default === undefined ? [] : [`      default: ${JSON.stringify(option.default)},\n`]),
    `      hidden: ${isHidden(option)},\n`,
    `      typeRule: ${stringLiteral(typeRule(option))},\n`,
    limits.length === 0 ? "      limits: [],\n" : `      limits: [\n${limits.join("")}      ],\n`,
    `      remedy: ${stringLiteral(option.remedy)},\n`,
    "    },\n",
  ].join("");
}

function printRule({ holds, about, violation }: Rule, { sqlstates }: OptionsModel): string {
  return [
    "    {\n",
    `      holds: (options) => ${printCondition(holds)},\n`,
    `      option: "${violation.option}",\n`,
    `      sqlstate: "${sqlstates[violation.kind]}",\n`,
    `      message: ${stringLiteral(violation.message)},\n`,
    `      hint: ${stringLiteral(violation.hint)},\n`,
    `      about: [${about.map(stringLiteral).join(", ")}],\n`,
    "    },\n",
  ].join("");
}

/** Condition of a rule over `options`, in parentheses if it is part of another condition. */
function printCondition(condition: Condition, isPart = false): string {
  switch (condition.kind) {
    case "has":
      return `options.${condition.option} !== undefined`;
    case "unset-or": {
      const value = `options.${condition.option}`;
      return `(${value} === undefined || ${value} === ${JSON.stringify(condition.value)})`;
    }
    case "not":
      return condition.of.kind === "has"
        ? `options.${condition.of.option} === undefined`
        : `!(${printCondition(condition.of)})`;
    case "all":
    case "any": {
      const parts = condition.of.map((part) => printCondition(part, true));
      const joined = parts.join(condition.kind === "all" ? " && " : " || ");
      return isPart ? `(${joined})` : joined;
    }
  }
}

/** Prints the resolver of the authentication mode. */
function printAuth(model: OptionsModel): string {
  return `import type { NatsAuth, ${model.title} } from "./types.js";

export type NatsAuthMode = NatsAuth["mode"];

/** Authentication modes; the first that matches is used. */
export const authModes = [
${model.modes.map(({ mode }) => `  "${mode}",\n`).join("")}] as const satisfies readonly NatsAuthMode[];

/**
 * Selects the first mode whose options are all set. The empty string counts as set.
 *
 * The SQL function \`hawser.nats_auth_mode\` selects the same mode.
 */
export function resolveAuth(options: ${model.title}): Readonly<NatsAuth> {
${model.modes.map(printBranch).join("\n")}
}
`;
}

function printBranch({ mode, requires }: AuthMode): string {
  if (requires.length === 0) {
    return `  return { mode: "${mode}" };`;
  }
  const condition = requires.map((option) => `options.${option} !== undefined`).join(" && ");
  const fields = [`mode: "${mode}"`, ...requires.map((option) => `${option}: options.${option}`)];
  return `  if (${condition}) {\n    return { ${fields.join(", ")} };\n  }`;
}

/** Prints the module with the public names. */
function printIndex({ title, options }: OptionsModel): string {
  const connection = options.filter((option) => option.connection);
  return `import { checkOptions, type OptionsResult } from "./check.js";
import { table } from "./table.js";
import type { Complete${title}, ${title} } from "./types.js";

export { authModes, type NatsAuthMode, resolveAuth } from "./auth.js";
export type { OptionsResult, OptionViolation } from "./check.js";
export { natsForeignDataSql, natsOptionsFunctionsSql, natsOptionsGrantsSql } from "./sql.js";
export type { Complete${title}, NatsAuth, ${title} } from "./types.js";

/** Options that affect the connection: a change of any other option needs no new connection. */
export const connectionOptions = [
${connection.map(({ name }) => `  "${name}",\n`).join("")}] as const satisfies readonly (keyof ${title})[];
export type ConnectionOption = (typeof connectionOptions)[number];

/**
 * Checks the combined options of server and user mapping: strings, as a foreign server has them, or typed, as in JSON.
 * Returns them in their own types and with the defaults, or the first violation, with the text and SQLSTATE of the SQL
 * function \`hawser.nats_server_options_violation\`. The result never contains a secret value. Does not throw.
 */
export function check${title}(input: Readonly<Record<string, unknown>>): OptionsResult<Complete${title}> {
  return checkOptions<${title}, Complete${title}>(table, input);
}
`;
}

function printSql(model: OptionsModel): string {
  const { shared, ownOnly, foreignOnly, wrapped, grants } = sqlTexts(model);
  const text = (name: string, doc: string, sql: string) =>
    `${docstring(doc)}const ${name} = ${templateLiteral(sql)};\n`;
  return [
    text("shared", "Validator functions that both schemas have; `@schema@` is the schema.", shared),
    text("ownOnly", "Functions that only the schema `hawser` has.", ownOnly),
    text("foreignOnly", "Functions that only the schema `hawser_fdw` has.", foreignOnly),
    `${docstring("Creates or replaces the functions; the schema `hawser` must exist.")}export const natsOptionsFunctionsSql = ${templateLiteral(wrapped)}\n  .replace("@functions@", () => shared + ownOnly)\n  .replaceAll("@schema@", "hawser");\n`,
    `${docstring("Revokes the functions from PUBLIC and makes the owner of the schema their owner.")}export const natsOptionsGrantsSql = ${templateLiteral(grants)};\n`,
    `${docstring("Creates or replaces the validator of the foreign data wrappers. Superusers run it, so none of it may belong to the owner of the\nschema `hawser`, who may be no superuser. The schema `hawser_fdw` must exist.")}export const natsForeignDataSql = (shared + foreignOnly).replaceAll("@schema@", "hawser_fdw");\n`,
  ].join("\n");
}
