import type { GatewayFamily, GatewayVariant } from "../model/gateway-functions.js";
import { payloadTypes } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import type { SqlConstants } from "../sql/body.js";
import type { LimitedArgument } from "../sql/limits.js";
import { sqlString } from "../sql/literal.js";
import { withTrace } from "../sql/trace.js";

/** Parameters of the SQL function, without the values that are only sent with the call. */
export function sqlParameters(family: GatewayFamily): GatewayValue[] {
  return family.parameters.filter(({ payloadType, messageContext }) => !payloadType && !messageContext);
}

/** SQL type of a value in a variant of the function. */
export function sqlTypeOf(value: GatewayValue, { payloadType }: GatewayVariant): string {
  const type = value.payload && payloadType !== undefined ? payloadTypes[payloadType] : value.sqlType;
  return value.repeated ? `${type}[]` : type;
}

/**
 * Expression for the text of a call: the method, a space, and the argument as JSON in protobuf's format: bytes in
 * base64, an absent value as null. Parameters are written as $1, $2, …, because results may have the same names.
 */
export function queryExpression(family: GatewayFamily, variant: GatewayVariant, constants: SqlConstants): string {
  const parts: string[] = [];
  let text = `${family.method.name} {`;
  for (const value of family.parameters.filter(({ repeated }) => !repeated)) {
    text += `${text.endsWith("{") ? "" : ","}"${value.property}":`;
    if (value.messageContext) {
      parts.push(sqlString(text), "coalesce(to_json(hawser.next_message_id())::text, 'null')");
      text = "";
    } else if (value.payloadType) {
      text += JSON.stringify(variant.payloadType);
    } else {
      parts.push(sqlString(text), jsonExpression(value, positionOf(family, value), variant, constants));
      text = "";
    }
  }
  parts.push(sqlString(`${text}}`));
  return parts.join(" || ");
}

/** Arguments whose limits are checked. Parameters are written as $1, $2, …, unless `expressionOf` names them. */
export function limitedArguments(
  family: GatewayFamily,
  variant: GatewayVariant,
  expressionOf: (value: GatewayValue) => string = (value) => positionOf(family, value),
): LimitedArgument[] {
  return sqlParameters(family).map((value) => {
    const type = sqlTypeOf(value, variant);
    return {
      name: value.name,
      expression: expressionOf(value),
      sqlType: type.replace("[]", ""),
      repeated: type.endsWith("[]"),
      rules: value.rules,
      qualified: family.invoker,
    };
  });
}

/** Position of a parameter, starting with $1. */
export function positionOf(family: GatewayFamily, value: GatewayValue): string {
  return `$${sqlParameters(family).indexOf(value) + 1}`;
}

function jsonExpression(
  value: GatewayValue,
  position: string,
  variant: GatewayVariant,
  constants: SqlConstants,
): string {
  if (value.traceContext) {
    return `coalesce((${withTrace(position, value.rules.maxItems!, constants)})::text, 'null')`;
  }
  switch (value.kind) {
    case "string":
      return `coalesce(to_json(${position})::text, 'null')`;
    case "bytes":
      return `coalesce('"' || replace(encode(${value.payload ? bytesOf(position, variant) : position}, 'base64'), E'\\n', '') || '"', 'null')`;
    case "bigint":
      // As a text: a JSON number loses digits in JavaScript.
      return `coalesce('"' || ${position} || '"', 'null')`;
    default:
      return `coalesce(${position}::text, 'null')`;
  }
}

/** Expression for the bytes of a payload. */
export function bytesOf(one: string, { payloadType }: GatewayVariant): string {
  if (payloadType === undefined || payloadType === "binary") return one;
  return `convert_to(${payloadType === "text" ? one : `${one}::text`}, 'UTF8')`;
}
