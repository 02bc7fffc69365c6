import type { GatewayFamily } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { columnLimits } from "../sql/checks.js";
import { sqlString } from "../sql/literal.js";
import { bytesText, rangeText } from "../validators/runtime/violation.js";
import { sqlParameters } from "./sql-argument.js";
import { nameWithStar } from "./typescript-types.js";

/**
 * The body of a function that is answered in Postgres, behind the checks of its arguments, which fail with the words that the
 * gateway has for those of the other functions. Those that run as their caller check for themselves.
 */
export function withChecks(family: GatewayFamily, body: string): string {
  const checks =
    family.invoker || family.internal ? [] : sqlParameters(family).flatMap((value) => checksOf(family, value));
  return checks.length === 0 ? body : ["BEGIN", ...checks, `${body.trimEnd()};`, "END", ""].join("\n");
}

function checksOf(family: GatewayFamily, value: GatewayValue): string[] {
  const { name } = value;
  const whole = value.repeated ? `${name} IS NULL OR array_position(${name}, NULL) IS NOT NULL` : `${name} IS NULL`;
  const empty = value.repeated
    ? "; an array without messages is '{}', an empty message ''"
    : value.payload
      ? "; an empty message is '', and in JSON 'null'"
      : "";
  return [
    ...(value.optional
      ? []
      : refusal(
          whole,
          "null_argument",
          sqlString(`${nameWithStar(family)}: the argument ${name} is NULL, and needs a value`),
          `Give ${name} a value${empty}.`,
        )),
    ...rulesOf(value).flatMap(([condition, rule]) =>
      refusal(
        `NOT (${condition})`,
        "invalid_argument",
        `format(${sqlString(`${nameWithStar(family)}: the argument ${name} is %s, and ${rule.replaceAll("%", "%%")}`)}, to_json(CASE WHEN char_length(${name}) > 60 THEN left(${name}, 60) || chr(8230) ELSE ${name} END))`,
        `Give an argument that obeys the rule: it ${rule}.`,
      ),
    ),
  ];
}

/** What a value has to fulfil, and in words. */
function rulesOf(value: GatewayValue): [condition: string, rule: string][] {
  const { bytes, pattern, range } = columnLimits(value.name, value.rules);
  const words = {
    bytes: bytesText(value.rules, value.kind === "bytes" ? "bytes" : "string")?.rule,
    pattern: value.rules.pattern?.means,
    range: rangeText(value.rules)?.rule,
  };
  return [
    ...(range === undefined ? [] : [[range, words.range!] as [string, string]]),
    ...(bytes === undefined ? [] : [[bytes, words.bytes!] as [string, string]]),
    ...(pattern === undefined ? [] : [[pattern, words.pattern!] as [string, string]]),
  ];
}

function refusal(condition: string, code: string, message: string, hint: string): string[] {
  return [
    `  IF ${condition} THEN`,
    "    RAISE EXCEPTION USING",
    `      ERRCODE = hawser.error_sqlstate('${code}'),`,
    `      MESSAGE = ${message},`,
    `      HINT = ${sqlString(hint)};`,
    "  END IF;",
  ];
}
