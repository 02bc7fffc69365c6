import { parameterCast } from "../model/columns.js";
import type { GatewayFamily, GatewayGroup } from "../model/gateway-functions.js";
import { type GatewayValue, isTextList } from "../model/gateway-values.js";
import { pascalCase } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { integerRangeOf } from "../model/value-kind.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import { sqlParameters } from "./sql-argument.js";
import { typeOfKind as handlerTypes, nameWithStar } from "./typescript-types.js";

/** Function that has a method in the client. */
interface ClientFamily extends GatewayFamily {
  readonly clientMethod: string;
}

/** Result that the client returns. */
interface ClientResult extends GatewayValue {
  readonly clientName: string;
}

/**
 * Prints `client.ts`: the interface `NatsSql`, whose methods call the SQL functions; a table of the function that each
 * method calls; and the ranges and choices of arguments. `src/nats/client/nats-sql.ts` creates the methods from the table.
 */
export function clientModule(sources: readonly SpecFile[], groups: readonly GatewayGroup[]): string {
  const families = groups.flatMap((group) => group.families.filter(isOfClient));
  const types = families.flatMap((family) => [optionsInterface(family), resultInterface(family)]);
  const isTyped = families.some(publishes);
  return [
    typescriptHead("codegen/gateway", sources) + (isTyped ? protobufImport : ""),
    prelude,
    ...(isTyped ? [typedOptions] : []),
    ...types.filter((text) => text !== ""),
    clientInterface(groups[0]!.comment, families),
    methodTable(families),
    rangesObject(families),
  ].join("\n");
}

function isOfClient(family: GatewayFamily): family is ClientFamily {
  return family.clientMethod !== undefined;
}

const protobufImport = 'import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";\n';

const prelude = `/** Payload, or the value of a key. An object that is no \`Uint8Array\` travels as JSON. */
type Payload = string | Uint8Array | object;

/** Headers by name; an array for a name that occurs several times. */
type Headers = Readonly<Record<string, string | readonly string[]>>;

/** Bytes of an answer, a value or a file. */
export interface Content {
  readonly payload: Uint8Array;
  /** Decodes the bytes as text. Bytes that are not valid UTF-8 become U+FFFD. */
  text(): string;
  /** Parses the bytes as JSON. @throws HawserError \`invalid_message\` if they are not valid JSON */
  json<T = any>(): T;
}

/** SQL function that a method of the client calls. */
export interface SqlMethod {
  /** Name of the SQL function, with \`{T}\` for the type of the payload. */
  readonly sqlName: string;
  /** True if Postgres answers the call itself, without the gateway. */
  readonly local: boolean;
  /** True if a schema can be given instead of the subject. */
  readonly publishes: boolean;
  readonly returns: "nothing" | "value" | "row" | "rows";
  /** Parameters in the order of the SQL function. */
  readonly parameters: readonly SqlParameter[];
  /** Results that the client returns. */
  readonly results: readonly SqlResult[];
}

/** Parameter of an SQL function. */
export interface SqlParameter {
  readonly name: string;
  readonly kind: "value" | "bytes" | "json" | "payload" | "payloads";
  /** SQL type that a value is cast to; empty for a payload. */
  readonly type: string;
  /** True for a property of the options; the others are arguments, in their order. */
  readonly isOption: boolean;
}

/** Result of an SQL function. */
export interface SqlResult {
  readonly column: string;
  readonly name: string;
  readonly kind: "number" | "bigint" | "string" | "bytes" | "boolean" | "timestamp" | "json" | "string[]";
}
`;

const typedOptions = `/** Options of a typed message. */
interface TypedOptions {
  /** Default \`binary\`: the binary format of Protobuf. \`json\` is the JSON of Protobuf. */
  readonly format?: "binary" | "json" | undefined;
}
`;

const typeOfKind = { ...handlerTypes, object: "{ readonly [name: string]: unknown }" };

function parameterType(value: GatewayValue): string {
  const { kind, payload, repeated, rules } = value;
  if (payload) return repeated ? "readonly Payload[]" : "Payload";
  if (isTextList(value)) return "readonly string[]";
  if (rules.in !== undefined) return rules.in.map(stringLiteral).join(" | ");
  if (kind === "object" && (rules.maxNameBytes ?? rules.maxValueBytes) !== undefined) return "Headers";
  return typeOfKind[kind];
}

function resultType(value: GatewayValue): string {
  const { kind, optional } = value;
  const type = kind === "bytes" ? "Content" : isTextList(value) ? "readonly string[]" : typeOfKind[kind];
  return optional ? `${type} | undefined` : type;
}

/** True for a function that publishes: it has a subject, a payload and headers, which carry the type of the payload. */
function publishes({ parameters }: GatewayFamily): boolean {
  const isHeaders = (value: GatewayValue) => parameterType(value) === "Headers";
  return parameters[0]?.name === "subject" && parameters.some(({ payload }) => payload) && parameters.some(isHeaders);
}

function isOption({ optional, clientOption }: GatewayValue): boolean {
  return optional || clientOption;
}

function resultsOf({ results }: GatewayFamily): ClientResult[] {
  return results.filter((value): value is ClientResult => value.clientName !== undefined);
}

function describe(value: GatewayValue): string {
  const limits = limitPhrases(value.rules, value.kind === "object" || value.kind === "list" ? "json" : value.kind);
  return limits.length === 0 ? value.comment : `${value.comment} Limits: ${limits.join("; ")}.`;
}

function optionsName({ clientMethod }: ClientFamily): string {
  return `${pascalCase(clientMethod)}Options`;
}

/** Interface of a method's options; empty if it has none. */
function optionsInterface(family: ClientFamily): string {
  const options = sqlParameters(family).filter(isOption);
  if (options.length === 0) return "";
  const properties = options.map((value) => {
    const type = parameterType(value);
    const declared = value.optional ? `?: ${type} | undefined` : `: ${type}`;
    return `${docstring(describe(value), "  ")}  readonly ${value.clientName}${declared};\n`;
  });
  const doc = `Options of {@link NatsSql.${family.clientMethod}}.`;
  return `${docstring(doc)}interface ${optionsName(family)} {\n${properties.join("")}}\n`;
}

function resultName({ clientMethod }: ClientFamily): string {
  return `${pascalCase(clientMethod)}Result`;
}

/** True for a function whose rows have a single column: the client returns a list of its values. */
function isListOfValues(family: GatewayFamily): boolean {
  return family.returns === "rows" && resultsOf(family).length === 1;
}

/** Interface of a row; empty if the method returns no rows. */
function resultInterface(family: ClientFamily): string {
  if ((family.returns !== "row" && family.returns !== "rows") || isListOfValues(family)) return "";
  const properties = resultsOf(family).map(
    (value) => `${docstring(value.comment, "  ")}  readonly ${value.clientName}: ${resultType(value)};\n`,
  );
  const doc = `Row of {@link NatsSql.${family.clientMethod}}.`;
  return `${docstring(doc)}interface ${resultName(family)} {\n${properties.join("")}}\n`;
}

/** Type that a method's promise resolves to. */
function returnType(family: ClientFamily): string {
  switch (family.returns) {
    case "nothing":
      return "void";
    case "value":
      return resultType(family.results[0]!);
    case "row":
      return resultName(family);
    case "rows":
      return isListOfValues(family) ? `${resultType(resultsOf(family)[0]!)}[]` : `${resultName(family)}[]`;
  }
}

function clientInterface(comment: string, families: readonly ClientFamily[]): string {
  const doc = [
    `${comment} The SQL functions as methods: each call is one SELECT in the client's current transaction.`,
    "",
    "In the descriptions NULL is `undefined` in TypeScript.",
  ].join("\n");
  return `${docstring(doc)}export interface NatsSql {\n${families.map(methodSignatures).join("\n")}}\n`;
}

function methodSignatures(family: ClientFamily): string {
  const given = sqlParameters(family);
  const positional = given.filter((value) => !isOption(value));
  const options = given.filter(isOption);
  const mark = options.some(({ optional }) => !optional) ? "" : "?";
  const result = `Promise<${returnType(family)}>`;
  const doc = [
    `${family.comment}\n\nSQL: \`${nameWithStar(family)}\`.\n`,
    ...positional.map((value) => `@param ${value.clientName} ${describe(value)}`),
  ].join("\n");
  const plain = positional.map((value) => `${value.clientName}: ${parameterType(value)}`);
  if (options.length > 0) plain.push(`options${mark}: ${optionsName(family)}`);
  const signature = `${docstring(doc.trimEnd(), "  ")}  ${family.clientMethod}(${plain.join(", ")}): ${result};\n`;
  if (!publishes(family)) return signature;
  const shape = "MessageInitShape<Desc>";
  const message = family.batch === undefined ? `message: ${shape}` : `messages: readonly ${shape}[]`;
  const typed = [
    `${docstring(typedDoc, "  ")}  ${family.clientMethod}<Desc extends DescMessage>(`,
    `    schema: Desc,`,
    `    ${message},`,
    `    options?: ${optionsName(family)} & TypedOptions,`,
    `  ): ${result};\n`,
  ].join("\n");
  return signature + typed;
}

const typedDoc =
  "Publishes typed messages: the option `hawser.v1.topic` of the schema has the subject, and defines whether a stream stores\nthe messages.";

/** Entry of a parameter, with the SQL type of its cast unless it is a payload. */
function parameterEntry(value: GatewayValue): string {
  const kind = value.payload
    ? value.repeated
      ? "payloads"
      : "payload"
    : value.kind === "object"
      ? "json"
      : value.kind === "bytes"
        ? "bytes"
        : "value";
  const type = value.payload ? "" : parameterCast(value.sqlType);
  const facts = [
    `name: ${stringLiteral(value.clientName!)}`,
    `kind: "${kind}"`,
    `type: ${stringLiteral(type)}`,
    `isOption: ${isOption(value)}`,
  ];
  return `      { ${facts.join(", ")} },\n`;
}

function resultEntry(value: ClientResult): string {
  const kind = isTextList(value) ? "string[]" : value.kind === "object" || value.kind === "list" ? "json" : value.kind;
  return `      { column: ${stringLiteral(value.name)}, name: ${stringLiteral(value.clientName)}, kind: "${kind}" },\n`;
}

function methodTable(families: readonly ClientFamily[]): string {
  const list = (entries: readonly string[]) => (entries.length === 0 ? "[]" : `[\n${entries.join("")}    ]`);
  const entries = families.map((family) =>
    [
      `  ${family.clientMethod}: {`,
      `    sqlName: ${stringLiteral(family.names[0]!)},`,
      `    local: ${family.local},`,
      `    publishes: ${publishes(family)},`,
      `    returns: "${family.returns}",`,
      `    parameters: ${list(sqlParameters(family).map(parameterEntry))},`,
      `    results: ${list(resultsOf(family).map(resultEntry))},`,
      "  },\n",
    ].join("\n"),
  );
  const type = "{ readonly [Method in keyof NatsSql]: SqlMethod }";
  return `${docstring("SQL function of each method.")}export const natsSqlMethods: ${type} = {\n${entries.join("")}};\n`;
}

/** Ranges and choices of all methods that have some. */
function rangesObject(families: readonly ClientFamily[]): string {
  const entries = families.flatMap((family) => {
    const lines = sqlParameters(family).flatMap(rangeEntry);
    return lines.length === 0 ? [] : [`  ${family.clientMethod}: {\n${lines.join("")}  },\n`];
  });
  const doc = "Ranges and choices of arguments, by method and argument. An absent bound does not limit.";
  return `${docstring(doc)}export const natsSqlRanges = {\n${entries.join("")}} as const;\n`;
}

/** Entry of an argument with a range or choices. A bound of an int32 that the spec does not set is that of the type. */
function rangeEntry({ field, kind, rules, clientName }: GatewayValue): string[] {
  if (rules.in !== undefined) return [`    ${clientName}: { values: [${rules.in.map(stringLiteral).join(", ")}] },\n`];
  if (rules.min === undefined && rules.max === undefined) return [];
  const type = kind === "number" ? integerRangeOf(field) : undefined;
  const bounds = { min: rules.min ?? type?.min, max: rules.max ?? type?.max };
  const facts = Object.entries(bounds).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
  return [`    ${clientName}: { ${facts.join(", ")} },\n`];
}
