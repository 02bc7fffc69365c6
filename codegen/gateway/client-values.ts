import type { GatewayFamily, GatewayVariant } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { clientResultType, rowName, rowReaderName } from "./client-types.js";
import { sqlTypeOf } from "./sql-argument.js";

/** The expression of a parameter's value as node-postgres takes it. */
export function argumentExpression(value: GatewayValue, variant: GatewayVariant): string {
  const given = `args.${value.property}`;
  const converter = converterOf({ ...value, repeated: false }, variant);
  if (value.repeated) {
    return converter === undefined ? given : `${given}.map(${converter})`;
  }
  if (!value.optional) {
    return converter === undefined ? given : `${converter}(${given})`;
  }
  return converter === undefined ? `${given} ?? null` : `${given} == null ? null : ${converter}(${given})`;
}

function converterOf(value: GatewayValue, variant: GatewayVariant): "toJson" | "toBuffer" | undefined {
  switch (sqlTypeOf(value, variant)) {
    case "json":
    case "jsonb":
      return "toJson";
    case "bytea":
      return "toBuffer";
    default:
      return undefined;
  }
}

/** What is selected, the type of what the method resolves with, and its expression; undefined for nothing. */
export interface ClientResult {
  readonly columns: string;
  readonly type: string;
  readonly result?: string;
}

export function resultOf(family: GatewayFamily, variant: GatewayVariant): ClientResult {
  // As text where node-postgres would not give the whole value.
  const columns = family.results
    .map((value) => (value.kind === "bigint" ? `${value.name}::text` : value.name))
    .join(", ");
  switch (family.returns) {
    case "nothing":
      return { columns: "1", type: "void" };
    case "value":
      return singleValue(family.results[0]!, variant);
    case "row":
      return { columns, type: rowName(family), result: `${rowReaderName(family)}(rows[0])` };
    case "rows":
      return { columns, type: `${rowName(family)}[]`, result: `rows.map(${rowReaderName(family)})` };
  }
}

function singleValue(value: GatewayValue, variant: GatewayVariant): ClientResult {
  const name = variant.names[0]!;
  const type = clientResultType(value, variant);
  const parser =
    converterOf(value, variant) === "toJson" ? "JSON.parse" : value.kind === "bigint" ? "BigInt" : undefined;
  if (parser === undefined) {
    return { columns: `${name} AS value`, type, result: "rows[0].value" };
  }
  const parsed = `${parser}(rows[0].value)`;
  const result = value.optional ? `rows[0].value === null ? null : ${parsed}` : parsed;
  return { columns: `${name}::text AS value`, type, result };
}
