import { type GatewayFamily, isMadeWithTables } from "../model/gateway-functions.js";
import { type GatewayKind, type GatewayValue, isTextList } from "../model/gateway-values.js";
import { docstring } from "../print.js";

/** Type of a value of each kind in a handler. */
export const typeOfKind: Record<GatewayKind, string> = {
  string: "string",
  bytes: "Uint8Array",
  boolean: "boolean",
  number: "number",
  bigint: "bigint",
  object: "JsonObject",
  list: "readonly unknown[]",
  timestamp: "Date",
};

/** Type of a value in a handler's request or result. */
function handlerType(value: GatewayValue): string {
  if (value.payloadType) {
    return "PayloadType";
  }
  return value.repeated || isTextList(value) ? `readonly ${typeOfKind[value.kind]}[]` : typeOfKind[value.kind];
}

/** Name of the SQL function, with `*` for the type of the payload. */
export function nameWithStar(family: GatewayFamily): string {
  return `${isMadeWithTables(family) ? "hawser." : ""}${family.names[0]!.replace("{T}", "*")}`;
}

/** Type of a method's request. */
export function requestType(family: GatewayFamily): string {
  const { name } = family.method.input;
  const doc = `Arguments of \`${nameWithStar(family)}\`.`;
  return family.parameters.length === 0
    ? `${docstring(doc)}export type ${name} = Readonly<Record<string, never>>;\n`
    : printInterface(name, doc, family.parameters);
}

/** Interface of a method's answer; empty for a method without result or with a single value. */
export function responseInterface(family: GatewayFamily): string {
  return family.returns === "row" || family.returns === "rows"
    ? printInterface(family.method.output.name, `Result row of \`${nameWithStar(family)}\`.`, family.results)
    : "";
}

/** Type that a handler's promise resolves to. */
export function handlerResult(family: GatewayFamily): string {
  switch (family.returns) {
    case "nothing":
      return "void";
    case "value": {
      const result = family.results[0]!;
      return `${handlerType(result)}${result.optional ? " | undefined" : ""}`;
    }
    case "row":
      return family.method.output.name;
    case "rows":
      return `readonly ${family.method.output.name}[]`;
  }
}

function printInterface(name: string, doc: string, values: readonly GatewayValue[]): string {
  const properties = values.map(
    (value) =>
      `${docstring(value.comment, "  ")}  readonly ${value.property}${value.optional ? "?" : ""}: ${handlerType(value)}${value.optional ? " | undefined" : ""};\n`,
  );
  return `${docstring(doc)}export interface ${name} {\n${properties.join("")}}\n`;
}
