import { type GatewayFamily, isMadeWithTables } from "../model/gateway-functions.js";
import { type GatewayKind, type GatewayValue, isTextList } from "../model/gateway-values.js";
import { docstring } from "../print.js";

const typeOfKind: Record<GatewayKind, string> = {
  string: "string",
  bytes: "Uint8Array",
  boolean: "boolean",
  number: "number",
  bigint: "bigint",
  object: "JsonObject",
  list: "readonly unknown[]",
  timestamp: "Date",
};

/** The type that a handler gets or gives. */
function handlerType(value: GatewayValue): string {
  if (value.payloadType) {
    return "PayloadType";
  }
  return value.repeated || isTextList(value) ? `readonly ${typeOfKind[value.kind]}[]` : typeOfKind[value.kind];
}

/** What SQL knows a function by, with `*` for the type of the payload. */
export function nameWithStar(family: GatewayFamily): string {
  return `${isMadeWithTables(family) ? "hawser." : ""}${family.names[0]!.replace("{T}", "*")}`;
}

/** The type of a method's request. */
export function requestType(family: GatewayFamily): string {
  const { name } = family.method.input;
  const doc = `What \`${nameWithStar(family)}\` is called with.`;
  return family.parameters.length === 0
    ? `${docstring(doc)}export type ${name} = Readonly<Record<string, never>>;\n`
    : printInterface(name, doc, family.parameters);
}

/** The interface of what a method answers; empty where that is nothing or one value. */
export function responseInterface(family: GatewayFamily): string {
  return family.returns === "row" || family.returns === "rows"
    ? printInterface(family.method.output.name, `A row of what \`${nameWithStar(family)}\` returns.`, family.results)
    : "";
}

/** The type of what a handler resolves with. */
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
