import { typescriptHead } from "../head.js";
import type { GatewayFamily, GatewayGroup, GatewayVariant, PayloadType } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { camelCase, pascalCase } from "../model/names.js";
import type { SpecFile } from "../model/spec.js";
import { docstring, stringLiteral } from "../typescript.js";
import { sqlParameters, sqlTypeOf } from "./sql-argument.js";

/** `client.ts`: the SQL functions as methods of an object, for programs that have a connection to Postgres and none to NATS. */
export function clientModule(sources: readonly SpecFile[], groups: readonly GatewayGroup[]): string {
  const families = groups.flatMap((group) => group.families.filter(({ internal }) => !internal));
  const rows = families.filter(({ returns }) => returns === "row" || returns === "rows");
  const methods = families.flatMap((family) => family.variants.map((variant) => clientMethod(family, variant)));
  return [
    typescriptHead("codegen/gateway", sources),
    prelude,
    ...rows.map(rowInterface),
    `${docstring("The functions as methods.")}export type NatsFunctions = ReturnType<typeof natsFunctions>;\n`,
    docstring(
      `${groups[0]!.comment} The SQL functions as methods: each is one SELECT, in whatever transaction the client is in.\n\n@param client where the functions are called\n@param options.schema the schema that they were installed in\n@throws the error of Postgres, with the SQLSTATE, DETAIL and HINT of the function`,
    ) +
      `export function natsFunctions(client: QueryClient, options: { readonly schema?: string } = {}) {
  const schema = \`"\${(options.schema ?? "public").replaceAll('"', '""')}"\`;
  const select = async (columns: string, call: string, values: unknown[]) =>
    (await client.query({ text: \`SELECT \${columns} FROM \${schema}.\${call}\`, values })).rows;
  return {
${methods.join("\n")}  };
}
`,
  ].join("\n");
}

const prelude = `/** Where the functions are called: a Client, PoolClient or Pool of node-postgres, or anything with its query method. */
export interface QueryClient {
  // Rows are typed by what is made of them.
  query(config: { text: string; values: unknown[] }): Promise<{ rows: any[] }>;
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
`;

/** What a caller passes and gets for a payload: JSON is a value, which is written and parsed here. */
const payloadType: Record<PayloadType, string> = {
  text: "string",
  json: "unknown",
  jsonb: "unknown",
  binary: "Uint8Array",
};

const typeOfKind = {
  string: "string",
  bytes: "Uint8Array",
  boolean: "boolean",
  number: "number",
  bigint: "bigint",
  object: "{ readonly [name: string]: unknown }",
  list: "unknown[]",
} as const;

function typeOf(value: GatewayValue, variant: GatewayVariant): string {
  const one =
    value.payload && variant.payloadType !== undefined ? payloadType[variant.payloadType] : typeOfKind[value.kind];
  return value.repeated ? `readonly ${one}[]` : one;
}

function clientMethod(family: GatewayFamily, variant: GatewayVariant): string {
  const sqlName = variant.names[0]!;
  const parameters = sqlParameters(family);
  const needed = parameters.some(({ optional }) => !optional);
  const properties = parameters.map(
    (value) =>
      `${value.property}${value.optional ? "?" : ""}: ${typeOf(value, variant)}${value.optional ? " | null | undefined" : ""}`,
  );
  const args =
    parameters.length === 0
      ? ""
      : `args: { ${properties.map((one) => `readonly ${one}`).join("; ")} }${needed ? "" : " = {}"}`;
  const placeholders = parameters.map((value, position) => `$${position + 1}::${sqlTypeOf(value, variant)}`);
  const values = parameters.map((value) => argument(value, variant));
  const call = `${sqlName}(${placeholders.join(", ")})`;
  const { columns, type, result } = resultOf(family, variant);
  return [
    `${docstring(`${family.comment}\n\nSQL: \`${sqlName}\`.`, "    ")}    async ${camelCase(sqlName.replace(/^(litmus_pgn|n)ats_/, ""))}(${args}): Promise<${type}> {`,
    `      ${result === undefined ? "" : "const rows = "}await select(${stringLiteral(columns)}, ${stringLiteral(call)}, [${values.join(", ")}]);`,
    ...(result === undefined ? [] : [`      return ${result};`]),
    "    },",
    "",
  ].join("\n");
}

function argument(value: GatewayValue, variant: GatewayVariant): string {
  const given = `args.${value.property}`;
  const isJson = value.payload ? ["json", "jsonb"].includes(variant.payloadType ?? "") : value.sqlType === "jsonb";
  const isBytes = value.payload ? (variant.payloadType ?? "binary") === "binary" : value.kind === "bytes";
  const convert = (one: string) => (isJson ? `JSON.stringify(${one})` : isBytes ? `toBuffer(${one})` : one);
  if (value.repeated) {
    return convert("") === "" ? given : `${given}.map((one) => ${convert("one")})`;
  }
  if (!value.optional) {
    return convert(given);
  }
  return convert("") === "" ? `${given} ?? null` : `${given} == null ? null : ${convert(given)}`;
}

/** What is selected, the type of what the method resolves with, and its expression; undefined for nothing. */
function resultOf(family: GatewayFamily, variant: GatewayVariant): { columns: string; type: string; result?: string } {
  if (family.returns === "nothing") {
    return { columns: "1", type: "void" };
  }
  if (family.returns === "value") {
    const value = family.results[0]!;
    const type = `${typeOf(value, variant)}${value.optional && typeOf(value, variant) !== "unknown" ? " | null" : ""}`;
    const isJson = value.payload && ["json", "jsonb"].includes(variant.payloadType ?? "");
    const sqlName = variant.names[0]!;
    if (isJson) {
      return {
        columns: `${sqlName}::text AS value`,
        type,
        result: "rows[0].value === null ? null : JSON.parse(rows[0].value)",
      };
    }
    if (value.kind === "bigint") {
      return { columns: `${sqlName}::text AS value`, type, result: "BigInt(rows[0].value)" };
    }
    return { columns: `${sqlName} AS value`, type, result: "rows[0].value" };
  }
  const columns = family.results.map((value) => (value.kind === "bigint" ? `${value.name}::text` : value.name));
  const cells = family.results.map((value) => `${value.property}: ${cell(value)}`);
  const row = `({ ${cells.join(", ")} })`;
  const type = rowName(family);
  return family.returns === "rows"
    ? { columns: columns.join(", "), type: `${type}[]`, result: `rows.map((row) => ${row})` }
    : { columns: columns.join(", "), type, result: `rows.map((row) => ${row})[0]!` };
}

function cell(value: GatewayValue): string {
  if (value.kind !== "bigint") {
    return `row.${value.name}`;
  }
  const text = `row.${value.name}`;
  return value.optional ? `${text} === null ? null : BigInt(${text})` : `BigInt(${text})`;
}

function rowInterface(family: GatewayFamily): string {
  const properties = family.results.map(
    (value) =>
      `${docstring(value.comment, "  ")}  ${value.property}: ${typeOf(value, family.variants[0]!)}${value.optional ? " | null" : ""};\n`,
  );
  return `${docstring(`A row of ${family.variants[0]!.names[0]}.`)}export interface ${rowName(family)} {\n${properties.join("")}}\n`;
}

function rowName(family: GatewayFamily): string {
  return `${pascalCase(family.method.name.replace(/^Get/, ""))}Row`;
}
