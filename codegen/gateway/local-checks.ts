import type { GatewayFamily, GatewayVariant } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { columnLimits } from "../sql/checks.js";
import { behind } from "../sql/function.js";
import { limitStatements } from "../sql/limits.js";
import { sqlString } from "../sql/literal.js";
import { bytesText, rangeText } from "../validators/runtime/violation.js";
import { limitedArguments, sqlParameters } from "./sql-argument.js";
import { nameWithStar } from "./typescript-types.js";

/** Holds the bytes of a payload, or of all of them, that are made of another type: their length is known only then. */
export const madeOnce = "payload_bytes";

/** Whether payloads of the type are. */
export function isMadeOnce({ payloadType }: GatewayVariant): boolean {
  return payloadType !== undefined && payloadType !== "binary";
}

/**
 * The body of a function that is answered in Postgres, behind the checks of its arguments, which fail with the words that the
 * gateway has for those of the other functions. Those that run as their caller check only the limits.
 */
export function withChecks(family: GatewayFamily, variant: GatewayVariant, body: string): string {
  if (family.internal) return body;
  const called = nameWithStar(family);
  const given = limitedArguments(family, variant, ({ name }) => name);
  if (family.invoker) return behind(limitStatements(called, given), body);
  const payload = sqlParameters(family).find((value) => value.payload);
  const made = payload !== undefined && isMadeOnce(variant) ? payload : undefined;
  // The limits of texts are among the checks.
  const long = given.filter(({ name, repeated, sqlType }) => name !== made?.name && (repeated || sqlType !== "text"));
  const checks = [
    ...limitStatements(called, long),
    ...sqlParameters(family).flatMap((value) => checksOf(family, value)),
    ...(made === undefined ? [] : madePayload(called, made, variant)),
  ];
  if (checks.length === 0) return body;
  const declared = made === undefined ? [] : ["DECLARE", `  ${madeOnce} bytea${made.repeated ? "[]" : ""};`];
  return [...declared, "BEGIN", ...checks, `${body.trimEnd()};`, "END", ""].join("\n");
}

/** Makes the bytes, and checks how long they are. A text is as long as its bytes, and a list has as many elements. */
function madePayload(
  called: string,
  { name, repeated, rules }: GatewayValue,
  { payloadType }: GatewayVariant,
): string[] {
  const bytesOf = (one: string) => `convert_to(${payloadType === "text" ? one : `${one}::text`}, 'UTF8')`;
  const { maxItems, ...others } = rules;
  const count = { name, expression: name, sqlType: "bytea", repeated, rules: repeated && maxItems ? { maxItems } : {} };
  const before = payloadType === "text" && !repeated ? { ...count, sqlType: "text", rules } : count;
  const after = { name, expression: madeOnce, sqlType: "bytea", repeated, rules: others };
  return [
    ...limitStatements(called, [before]),
    repeated
      ? `  ${madeOnce} := ARRAY(SELECT ${bytesOf("p.one")} FROM unnest(${name}) WITH ORDINALITY AS p (one, nth) ORDER BY p.nth);`
      : `  ${madeOnce} := ${bytesOf(name)};`,
    ...(before.sqlType === "text" ? [] : limitStatements(called, [after])),
  ];
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
        `format(${sqlString(`${nameWithStar(family)}: the argument ${name} is %s, and ${rule.replaceAll("%", "%%")}`)}, ${shown(value)})`,
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
  // Those of payloads, headers and lists are checked before.
  if (value.kind !== "string") return range === undefined ? [] : [[range, words.range!]];
  return [
    ...(range === undefined ? [] : [[range, words.range!] as [string, string]]),
    ...(bytes === undefined ? [] : [[bytes, words.bytes!] as [string, string]]),
    ...(pattern === undefined ? [] : [[pattern, words.pattern!] as [string, string]]),
  ];
}

/** A value in an error: of a long text its beginning, and how long it is. */
function shown({ name, kind }: GatewayValue): string {
  return kind === "string"
    ? `CASE WHEN octet_length(${name}) > 240 THEN format('%s (%s bytes)', to_json(left(${name}, 60) || chr(8230)), octet_length(${name})) ELSE to_json(${name})::text END`
    : name;
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
