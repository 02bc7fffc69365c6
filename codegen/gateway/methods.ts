import { type GatewayFamily, type GatewayGroup, payloadTypes } from "../model/gateway-functions.js";
import { type GatewayValue, isTextList } from "../model/gateway-values.js";
import { lowerFirst } from "../model/names.js";
import type { SpecFile } from "../model/spec.js";
import type { ValueKind } from "../model/value-kind.js";
import { docstring, stringLiteral, typescriptHead } from "../print.js";
import { checkExpression, importLine, ruleImports } from "../validators/checks.js";
import { handlerResult, nameWithStar, requestType, responseInterface } from "./typescript-types.js";
import { rowWriter, writeLine } from "./write-line.js";

/** Exports of argument.ts. */
const argumentNames = [
  "bytesText",
  "decodeText",
  "type JsonObject",
  "needed",
  "obey",
  "type PayloadList",
  "readArgument",
  "readBigint",
  "readBytes",
  "readInteger",
  "readObject",
  "readPayloads",
  "readPayloadType",
  "readString",
  "readTexts",
];

/**
 * Generates `methods.ts`: the requests and answers, the interface of the handlers, and for each method the functions
 * that read and check its argument, call the handler, and write the answer.
 */
export function methodsModule(sources: readonly SpecFile[], groups: readonly GatewayGroup[]): string {
  const answered = groups.flatMap(({ families }) => families.filter(({ local }) => !local));
  const body = [
    `${docstring("Part of an SQL function's name that selects the type of its payload.")}export type PayloadType = ${Object.keys(payloadTypes).map(stringLiteral).join(" | ")};\n`,
    ...answered.map((family) =>
      [requestType(family), responseInterface(family)].filter((text) => text !== "").join("\n"),
    ),
    handlerInterface(groups, answered),
    methodType,
    ...answered.map(readFunction),
    ...answered.filter(({ returns }) => returns === "row" || returns === "rows").map(rowWriter),
    methodTable(answered),
  ];
  return [
    typescriptHead("codegen/gateway", sources),
    ruleImports(body, "../rules") + importLine(body.join("\n"), "./argument.js", argumentNames),
    ...body,
  ].join("\n");
}

function handlerInterface(groups: readonly GatewayGroup[], families: readonly GatewayFamily[]): string {
  const methods = families.map(
    (family) =>
      `${docstring(family.comment, "  ")}  ${lowerFirst(family.method.name)}(request: ${family.method.input.name}, call: Call): Answer<${handlerResult(family)}>;\n`,
  );
  return [
    `${docstring("Answer, or a promise of it.")}export type Answer<T> = T | Promise<T>;\n`,
    `${docstring(`Handlers of the functions. ${groups[0]!.comment}\n\n\`Call\` is the context of a call: its session and its deadline.`)}export interface NatsFunctionsHandler<Call> {\n${methods.join("\n")}}\n`,
  ].join("\n");
}

const methodType = `${docstring("Method as the gateway calls it.")}export interface Method {
  /** Name of the SQL function, with * for the type of the payload. */
  readonly sqlName: string;
  /** True if the outcome is unknown after a lost answer, because the call may change something in NATS. */
  readonly changes: boolean;
  /** True if a list of payloads follows the argument. */
  readonly takesList: boolean;
  /** Time limit of the call in milliseconds, as the caller set it; undefined for methods without one. */
  timeoutMs?(request: unknown): number | undefined;
  /** Reads and checks the argument. @throws BadArgument */
  read(json: unknown, list: PayloadList | undefined): unknown;
  /** Calls the handler. */
  handle<Call>(handler: NatsFunctionsHandler<Call>, request: unknown, call: Call): Answer<unknown>;
  /** Answer in the form that the SQL function reads. @throws NotText */
  write(result: unknown, request: unknown): string | null;
}
`;

/** True if the gateway checks rules of the value. Postgres checks the rules of lists and headers. */
function hasRules(value: GatewayValue): boolean {
  const { kind, repeated, rules } = value;
  const isList = repeated || isTextList(value) || kind === "list";
  return Object.keys(rules).length > 0 && !isList && kind !== "object";
}

function readFunction(family: GatewayFamily): string {
  const names = family.parameters.filter(({ repeated }) => !repeated).map(({ property }) => stringLiteral(property));
  const namesConstant = `${lowerFirst(family.method.name)}Names`;
  const lines = family.parameters.flatMap((value) => {
    const read = readExpression(value);
    const check = {
      path: value.name,
      kind: value.kind as ValueKind,
      repeated: false,
      range: undefined,
      rules: value.rules,
      inline: true,
    };
    const call = `obey(${checkExpression(check, value.property)});`;
    return [
      `  const ${value.property} = ${value.optional || value.repeated ? read : `needed(${stringLiteral(value.name)}, ${read})`};`,
      ...(hasRules(value) ? [value.optional ? `  if (${value.property} !== undefined) ${call}` : `  ${call}`] : []),
    ];
  });
  const properties = family.parameters.map(({ property }) => property);
  const list = family.batch === undefined ? "" : ", list: PayloadList | undefined";
  return [
    `const ${namesConstant}: ReadonlySet<string> = new Set([${names.join(", ")}]);\n`,
    `function read${family.method.name}(json: unknown${list}): ${family.method.input.name} {`,
    `  ${names.length > 0 ? "const argument = " : ""}readArgument(json, ${namesConstant});`,
    ...lines,
    `  return {${properties.length === 0 ? "" : ` ${properties.join(", ")} `}};`,
    "}",
    "",
  ].join("\n");
}

function readExpression(value: GatewayValue): string {
  const name = stringLiteral(value.name);
  if (value.repeated) return `readPayloads(${name}, list)`;
  const given = `argument[${stringLiteral(value.property)}]`;
  if (isTextList(value)) return `readTexts(${name}, ${given})`;
  const reader = { bytes: "readBytes", number: "readInteger", bigint: "readBigint", object: "readObject" } as const;
  const ofKind = reader[value.kind as keyof typeof reader] ?? (value.payloadType ? "readPayloadType" : "readString");
  return `${ofKind}(${name}, ${given})`;
}

function methodTable(families: readonly GatewayFamily[]): string {
  const entries = families.map((family) => {
    const request = family.method.input.name;
    const timeout = family.parameters.find((value) => value.timeout);
    return [
      `  ${family.method.name}: {`,
      `    sqlName: ${stringLiteral(nameWithStar(family))},`,
      `    changes: ${family.changes},`,
      `    takesList: ${family.batch !== undefined},`,
      ...(timeout === undefined ? [] : [`    timeoutMs: (request) => (request as ${request}).${timeout.property},`]),
      family.batch === undefined
        ? `    read: (json) => read${family.method.name}(json),`
        : `    read: (json, list) => read${family.method.name}(json, list),`,
      `    handle: (handler, request, call) => handler.${lowerFirst(family.method.name)}(request as ${request}, call),`,
      writeLine(family),
      "  },",
    ].join("\n");
  });
  return `${docstring("Methods by their names in calls.")}export const methods: Readonly<Record<string, Method>> = {\n${entries.join("\n")}\n};\n`;
}
