import type { GatewayFamily } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { handlerResult } from "./typescript-types.js";

/** Line of a method's `write`: the answer in the form that the SQL function reads. */
export function writeLine(family: GatewayFamily): string {
  const result = `result as ${handlerResult(family)}`;
  switch (family.returns) {
    case "nothing":
      return "    write: () => null,";
    case "value":
      return valueLine(family, result);
    case "row":
      return `    write: (result) => JSON.stringify([${rowWriterName(family)}(${result})]),`;
    case "rows":
      return `    write: (result) => JSON.stringify((${result}).map(${rowWriterName(family)})),`;
  }
}

function valueLine(family: GatewayFamily, result: string): string {
  const value = family.results[0]!;
  const type = family.parameters.find(({ payloadType }) => payloadType);
  const text = value.payload
    ? `(request as ${family.method.input.name}).${type!.property} === "binary" ? bytesText(value) : decodeText(value)`
    : valueText(value, "value");
  return [
    `    write: (${value.payload ? "result, request" : "result"}) => {`,
    `      const value = ${result};`,
    `      return ${value.optional ? `value === undefined ? null : ${text}` : text};`,
    "    },",
  ].join("\n");
}

/** Row in the form that json_to_recordset reads: keyed by column name; types without a JSON form are texts. */
export function rowWriter(family: GatewayFamily): string {
  const cells = family.results.map((value) => {
    const given = `row.${value.property}`;
    const isText = value.kind === "bigint" || value.kind === "bytes";
    const cell = isText ? valueText(value, given) : given;
    return `    ${value.name}: ${value.optional && isText ? `${given} === undefined ? null : ${cell}` : cell},\n`;
  });
  return `function ${rowWriterName(family)}(row: ${family.method.output.name}): unknown {\n  return {\n${cells.join("")}  };\n}\n`;
}

function rowWriterName(family: GatewayFamily): string {
  return `write${family.method.output.name}`;
}

/** Value in the input format of its Postgres type. */
function valueText({ kind }: GatewayValue, given: string): string {
  switch (kind) {
    case "bytes":
      return `bytesText(${given})`;
    case "string":
      return given;
    default:
      return `String(${given})`;
  }
}
