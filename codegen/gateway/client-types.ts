import type { GatewayFamily, GatewayVariant, PayloadType } from "../model/gateway-functions.js";
import { type GatewayKind, type GatewayValue, isTextList } from "../model/gateway-values.js";
import { pascalCase } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import { docstring } from "../print.js";
import { sqlParameters } from "./sql-argument.js";
import { nameWithStar } from "./typescript-types.js";

/** What a caller passes and gets for a payload: JSON is a value, which is written and parsed by the client. */
const payloadType: Record<PayloadType, string> = {
  text: "string",
  json: "unknown",
  jsonb: "unknown",
  binary: "Uint8Array",
};

const typeOfKind: Record<GatewayKind, string> = {
  string: "string",
  bytes: "Uint8Array",
  boolean: "boolean",
  number: "number",
  bigint: "bigint",
  object: "{ readonly [name: string]: unknown }",
  list: "readonly unknown[]",
  timestamp: "Date",
};

/** The type of a result; that of a payload depends on the function. */
export function clientResultType(value: GatewayValue, variant: GatewayVariant): string {
  const one =
    value.payload && variant.payloadType !== undefined ? payloadType[variant.payloadType] : typeOfKind[value.kind];
  const type = isTextList(value) ? `readonly ${one}[]` : one;
  return value.optional && type !== "unknown" ? `${type} | null` : type;
}

/** The interface of what the methods of one family take; empty where that is nothing. */
export function argumentsInterface(family: GatewayFamily): string {
  const parameters = sqlParameters(family);
  if (parameters.length === 0) {
    return "";
  }
  const properties = parameters.map((value) => {
    const one = value.payload ? "Payload" : typeOfKind[value.kind];
    const type = value.repeated || isTextList(value) ? `readonly ${one}[]` : one;
    const declared = value.optional ? `${value.property}?: ${type} | null | undefined` : `${value.property}: ${type}`;
    const limits = limitPhrases(value.rules, value.kind === "object" || value.kind === "list" ? "json" : value.kind);
    const comment = limits.length === 0 ? value.comment : `${value.comment} Limits: ${limits.join("; ")}.`;
    return `${docstring(comment, "  ")}  readonly ${declared};\n`;
  });
  const generic = hasPayload(family) ? "<Payload>" : "";
  return `${docstring(`Arguments of \`${nameWithStar(family)}\`.`)}export interface ${argumentsName(family)}${generic} {\n${properties.join("")}}\n`;
}

/** The type of what one method takes. */
export function argumentsType(family: GatewayFamily, variant: GatewayVariant): string {
  const payload =
    hasPayload(family) && variant.payloadType !== undefined ? `<${payloadType[variant.payloadType]}>` : "";
  return argumentsName(family) + payload;
}

/** The interface of a row. */
export function rowInterface(family: GatewayFamily): string {
  const properties = family.results.map(
    (value) =>
      `${docstring(value.comment, "  ")}  readonly ${value.property}: ${clientResultType(value, family.variants[0]!)};\n`,
  );
  return `${docstring(`A row of \`${nameWithStar(family)}\`.`)}export interface ${rowName(family)} {\n${properties.join("")}}\n`;
}

/** The function that makes a row of what node-postgres gives. */
export function rowReader(family: GatewayFamily): string {
  const cells = family.results.map((value) => {
    const given = `row.${value.name}`;
    const number = value.optional ? `${given} === null ? null : BigInt(${given})` : `BigInt(${given})`;
    return `    ${value.property}: ${value.kind === "bigint" ? number : given},\n`;
  });
  return `function ${rowReaderName(family)}(row: any): ${rowName(family)} {\n  return {\n${cells.join("")}  };\n}\n`;
}

export function rowName(family: GatewayFamily): string {
  return `${pascalCase(family.method.name.replace(/^Get/, ""))}Row`;
}

export function rowReaderName(family: GatewayFamily): string {
  return `read${rowName(family)}`;
}

function argumentsName(family: GatewayFamily): string {
  return `${family.method.name}Arguments`;
}

function hasPayload(family: GatewayFamily): boolean {
  return family.parameters.some(({ payload }) => payload);
}
