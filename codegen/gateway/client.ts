import { parameterCast } from "../model/columns.js";
import type { GatewayFamily, GatewayGroup, GatewayVariant } from "../model/gateway-functions.js";
import { camelCase } from "../model/names.js";
import type { SpecFile } from "../model/spec.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import { argumentsInterface, argumentsType, rowInterface, rowReader } from "./client-types.js";
import { argumentExpression, resultOf } from "./client-values.js";
import { sqlParameters, sqlTypeOf } from "./sql-argument.js";

/** Longer lines are broken. */
const lineWidth = 120;

/** `client.ts`: the SQL functions as methods of an object, for programs that have a connection to Postgres and none to NATS. */
export function clientModule(sources: readonly SpecFile[], groups: readonly GatewayGroup[]): string {
  const families = groups.flatMap((group) => group.families.filter(({ internal }) => !internal));
  const withRows = families.filter(({ returns }) => returns === "row" || returns === "rows");
  const methods = families.flatMap((family) => family.variants.map((variant) => clientMethod(family, variant)));
  const classDoc = [
    `${groups[0]!.comment} The SQL functions as methods: each is one SELECT, in whatever transaction the client is in.`,
    "",
    "What is `undefined` is NULL in SQL, and so is a JSON value that `JSON.stringify` makes nothing of; a function that needs",
    "a value refuses it with SQLSTATE 22004. `null` as a JSON value is the JSON null.",
    "",
    "@param client where the functions are called",
    "@param options.schema the schema that they were installed in. Default `public`",
    "@throws the error of Postgres, with the SQLSTATE, DETAIL and HINT of the function",
  ].join("\n");
  return [
    typescriptHead("codegen/gateway", sources),
    prelude,
    ...families.map(argumentsInterface).filter((text) => text !== ""),
    ...withRows.map(rowInterface),
    ...withRows.map(rowReader),
    methodTable(families),
    `${docstring("The functions as methods.")}export type NatsFunctions = ReturnType<typeof natsFunctions>;\n`,
    `${docstring(classDoc)}export function natsFunctions(client: RowsClient, options: { readonly schema?: string | undefined } = {}) {
  const schema = \`"\${(options.schema ?? "public").replaceAll('"', '""')}"\`;
  const select = async (columns: string, call: string, values: unknown[]) =>
    (await client.query(\`SELECT \${columns} FROM \${schema}.\${call}\`, values)).rows;
  return {
${methods.join("\n")}  };
}
`,
  ].join("\n");
}

/** What is known of each method at run time. */
function methodTable(families: readonly GatewayFamily[]): string {
  const lines = families.flatMap((family) => {
    const names = sqlParameters(family).map(({ property }) => stringLiteral(property));
    const facts = `{ local: ${family.local}, arguments: [${names.join(", ")}] }`;
    return family.variants.map((variant) => `  ${methodName(variant.names[0]!)}: ${facts},\n`);
  });
  const doc = "The names of each method's arguments, and whether it is answered in Postgres instead of by the gateway.";
  const named = "{ readonly local: boolean; readonly arguments: readonly string[] }";
  const type = `{\n  readonly [Method in keyof NatsFunctions]: ${named};\n}`;
  return `${docstring(doc)}export const natsFunctionMethods: ${type} = {\n${lines.join("")}};\n`;
}

const prelude = `/** A client that runs one statement with the parameters $1, $2, …, and resolves with its rows. */
interface RowsClient {
  // Rows are typed by what is made of them.
  query(text: string, values: unknown[]): PromiseLike<{ rows: any[] }>;
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** NULL for what JSON has no form for. */
function toJson(value: unknown): string | null {
  return JSON.stringify(value) ?? null;
}
`;

function clientMethod(family: GatewayFamily, variant: GatewayVariant): string {
  const sqlName = variant.names[0]!;
  const parameters = sqlParameters(family);
  const args = parameters.length === 0 ? "" : `args: ${argumentsType(family, variant)}`;
  const byDefault = parameters.every(({ optional }) => optional) && parameters.length > 0 ? " = {}" : "";
  const placeholders = parameters.map(
    (value, position) => `$${position + 1}::${parameterCast(sqlTypeOf(value, variant))}`,
  );
  const values = parameters.map((value) => argumentExpression(value, variant));
  const { columns, type, result } = resultOf(family, variant);
  const strings = [columns, `${sqlName}(${placeholders.join(", ")})`].map(stringLiteral);
  return [
    `${docstring(`${family.comment}\n\nSQL: \`${sqlName}\`.`, "    ")}    async ${methodName(sqlName)}(${args}${byDefault}): Promise<${type}> {`,
    selectStatement(result === undefined ? "" : "const rows = ", strings, values),
    ...(result === undefined ? [] : [`      return ${result};`]),
    "    },",
    "",
  ].join("\n");
}

function methodName(sqlName: string): string {
  return camelCase(sqlName.replace(/^(litmus_pgn|n)ats_/, ""));
}

function selectStatement(assignment: string, strings: readonly string[], values: readonly string[]): string {
  const line = `      ${assignment}await select(${strings.join(", ")}, [${values.join(", ")}]);`;
  if (line.length <= lineWidth) {
    return line;
  }
  const list = `[${values.join(", ")}]`;
  const last =
    list.length + 9 <= lineWidth
      ? `        ${list},`
      : `        [\n${values.map((one) => `          ${one},\n`).join("")}        ],`;
  return [`      ${assignment}await select(`, ...strings.map((one) => `        ${one},`), last, "      );"].join("\n");
}
