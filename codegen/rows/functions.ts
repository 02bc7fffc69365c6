import type { DescService } from "@bufbuild/protobuf";
import type { Column } from "../model/columns.js";
import { parameterCast, typeName } from "../model/columns.js";
import type { Parameter, SqlFunction } from "../model/functions.js";
import type { GatewayFamily } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { camelCase, lowerFirst } from "../model/names.js";
import { docstring, stringLiteral } from "../print.js";
import { argumentType, rowType } from "./types.js";

/** Properties of a function that its client needs. */
interface CalledFunction
  extends Pick<SqlFunction, "method" | "name" | "comment" | "parameters" | "results" | "returnsSet"> {
  /**
   * True for a function without OUT parameters: its single result column has the function's name, and needs an alias.
   */
  readonly namesResults?: boolean;
}

/** Functions of one service. */
export interface FunctionGroup {
  readonly service: DescService;
  readonly comment: string;
  readonly functions: readonly CalledFunction[];
}

/** Converts a gateway function of the schema `hawser`. Programs call its overload for bytes. */
export function withBytes({ method, names, comment, parameters, results }: GatewayFamily): CalledFunction {
  const columnOf = ({
    field,
    name,
    kind,
    sqlType,
    optional,
    repeated,
    payload,
    rules,
    comment: about,
  }: GatewayValue): Column => ({
    field,
    name,
    type: payload ? "bytea" : (sqlType as Column["type"]),
    repeated,
    nullable: optional,
    uncompressed: false,
    kind: kind === "object" || kind === "list" ? "json" : kind,
    range: undefined,
    rules,
    comment: about,
  });
  return {
    method,
    name: names[0]!.replace("{T}", "binary"),
    comment,
    parameters: parameters.map((value) => ({ column: columnOf(value), argument: value.property })),
    results: results.map(columnOf),
    returnsSet: false,
    namesResults: true,
  };
}

/** Client interface that the functions need, a subset of node-postgres's Client, Pool and PoolClient. */
export const queryClient = `${docstring(
  "Client for the functions: a Client, PoolClient or Pool of node-postgres, or any object with its query method.",
)}export interface QueryClient {
  // An any type, because each method assigns the rows to its own result type.
  query(config: { name?: string; text: string; values: unknown[]; results: ResultColumns }): Promise<{ rows: any[] }>;
}

/** Columns of the results in their order, with their kinds; \`[]\` for an array. */
export type ResultColumns = Readonly<Record<string, ResultKind | \`\${ResultKind}[]\`>>;
export type ResultKind = "number" | "bigint" | "string" | "bytes" | "boolean" | "timestamp" | "json";
`;

/** Helper that converts bytes to the Buffer that node-postgres sends in binary, without a copy. */
export const bufferHelper = `function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
`;

/** Helper that returns the only row, or throws an error that names the function without one. */
export const onlyRowHelper = `function onlyRow<Row>(rows: Row[], fn: string): Row {
  const row = rows[0];
  if (row === undefined) {
    throw new Error(\`\${fn} returned no row; is the function in the database the one of this version?\`);
  }
  return row;
}
`;

/** Prints arguments, results and the typed client of the functions of one service. */
export function functionClient(group: FunctionGroup): string {
  const typeNameOf = group.service.name.replace(/Service$/, "");
  const methods = group.functions.map((fn) => `${docstring(fn.comment, "    ")}${clientMethod(fn)}`);
  return [
    ...group.functions.flatMap((fn) => [
      ...(fn.parameters.length === 0 ? [] : [argumentsInterface(fn)]),
      resultInterface(fn),
    ]),
    `${docstring(group.comment)}export type ${typeNameOf} = ReturnType<typeof ${lowerFirst(typeNameOf)}>;\n`,
    docstring(
      `${group.comment}\n\nEach call is a named prepared statement. bigint travels as text, bytes in binary.`.trim(),
    ) + `export function ${lowerFirst(typeNameOf)}(client: QueryClient) {\n  return {\n${methods.join("\n")}  };\n}\n`,
  ].join("\n");
}

function argumentsInterface(fn: CalledFunction): string {
  const properties = fn.parameters.map(
    ({ column, argument }) => `${docstring(column.comment, "  ")}  ${argument}: ${argumentType(column)};\n`,
  );
  return `${docstring(`Arguments of hawser.${fn.name}.`)}export interface ${fn.method.name}Arguments {\n${properties.join("")}}\n`;
}

function resultInterface(fn: CalledFunction): string {
  const properties = fn.results.map(
    (column) => `${docstring(column.comment, "  ")}  ${camelCase(column.name)}: ${rowType(column)};\n`,
  );
  const text = `${fn.returnsSet ? "Row" : "Result"} of hawser.${fn.name}.`;
  return `${docstring(text)}export interface ${fn.method.name}Result {\n${properties.join("")}}\n`;
}

function clientMethod(fn: CalledFunction): string {
  const placeholders = fn.parameters.map(
    ({ column }, position) => `$${position + 1}::${parameterCast(typeName(column))}`,
  );
  const names = fn.results.map((column) => column.name).join(", ");
  const called = `hawser.${fn.name}(${placeholders.join(", ")})${fn.namesResults ? ` AS r (${names})` : ""}`;
  const text = `SELECT ${names} FROM ${called}`;
  const result = `${fn.method.name}Result`;
  const values = fn.parameters.map((parameter) => `          ${argumentExpression(parameter)},\n`);
  const properties = fn.results.map((column) => `${camelCase(column.name)}: ${resultExpression(column)}`);
  const row = `({ ${properties.join(", ")} })`;
  return [
    `    async ${lowerFirst(fn.method.name)}(${fn.parameters.length === 0 ? "" : `args: ${fn.method.name}Arguments`}): Promise<${result}${fn.returnsSet ? "[]" : ""}> {`,
    "      const { rows } = await client.query({",
    `        name: ${stringLiteral(`hawser.${fn.namesResults ? lowerFirst(fn.method.name) : fn.name}`)},`,
    `        text: ${stringLiteral(text)},`,
    `        values: [${values.length === 0 ? "" : `\n${values.join("")}        `}],`,
    `        results: { ${fn.results.map((column) => `${column.name}: "${column.kind}${column.repeated ? "[]" : ""}"`).join(", ")} },`,
    "      });",
    ...(fn.returnsSet
      ? [`      return rows.map((row) => ${row});`]
      : [
          `      const row = onlyRow(rows, ${stringLiteral(`hawser.${fn.name}`)});`,
          `      return ${row.slice(1, -1)};`,
        ]),
    "    },",
    "",
  ].join("\n");
}

function argumentExpression({ column, argument }: Parameter): string {
  const value = `args.${argument}`;
  const converted = (one: string) => {
    switch (column.kind) {
      case "bigint":
        return `String(${one})`;
      case "bytes":
        return `toBuffer(${one})`;
      default:
        return one;
    }
  };
  if (converted("") === "") {
    return value;
  }
  const whole = column.repeated ? `${value}.map((one) => ${converted("one")})` : converted(value);
  return column.nullable ? `${value} === null ? null : ${whole}` : whole;
}

/** Expression for a result. It converts a bigint, so that a client without this project's parser returns the same. */
function resultExpression(column: Column): string {
  const value = `row.${column.name}`;
  if (column.kind !== "bigint") {
    return value;
  }
  // A function without a result returns one row of NULLs.
  const whole = column.repeated ? `(${value}?.map(BigInt) ?? [])` : `BigInt(${value})`;
  return column.nullable ? `${value} === null ? null : ${whole}` : whole;
}
