import type { GatewayFamily, GatewayVariant } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import type { SqlConstants } from "../sql/body.js";
import { columnLimits } from "../sql/checks.js";
import { withStatementsBefore } from "../sql/function.js";
import { type LimitedArgument, limitStatements, mayBeLong } from "../sql/limits.js";
import { sqlString } from "../sql/literal.js";
import { tracedCondition } from "../sql/trace.js";
import { bytesText, rangeText } from "../validators/runtime/violation.js";
import { bytesOf, limitedArguments, sqlParameters } from "./sql-argument.js";
import { nameWithStar } from "./typescript-types.js";

/**
 * Variable with the bytes of payloads that are converted from another type. Their length is only known after the
 * conversion, so they are converted once, before the check.
 */
const payloadVariable = "payload_bytes";

/** True if payloads of the variant are converted to bytes. */
function isConverted({ payloadType }: GatewayVariant): boolean {
  return payloadType !== undefined && payloadType !== "binary";
}

/** Condition under which an argument is refused, and the statements that refuse it. */
interface Refusal {
  readonly condition: string;
  readonly statements: readonly string[];
}

/**
 * Body of a function that Postgres answers itself, after the checks of its arguments. The checks fail with the same
 * messages as the gateway. A function that runs as its caller checks only the limits.
 *
 * Postgres prepares each expression of a function anew in each transaction, so the checks take most of the time of a
 * short body. A body with `@checks@` therefore starts with a fast path for plain calls, under a single condition:
 * `@plain@`, or `@plain key@` if the optional `key` may be set, which is checked there. `@checks@` follows the fast
 * path; `@plain_payload@` is the payload within it.
 */
export function withChecks(
  family: GatewayFamily,
  variant: GatewayVariant,
  body: string,
  constants: SqlConstants,
): string {
  if (family.internal) return body;
  const called = nameWithStar(family);
  const given = limitedArguments(family, variant, ({ name }) => name);
  if (family.invoker) return withStatementsBefore(limitStatements(called, given), body);
  const payload = sqlParameters(family).find((value) => value.payload);
  const converted = payload !== undefined && isConverted(variant) ? payload : undefined;
  // The checks include the limits of texts.
  const long = given.filter(
    ({ name, repeated, sqlType }) => name !== converted?.name && (repeated || sqlType !== "text"),
  );
  const checks = [
    ...limitStatements(called, long),
    ...underOneCondition(sqlParameters(family).flatMap((value) => refusalsOf(family, variant, value))),
    ...(converted === undefined ? [] : convertedPayload(called, converted, variant)),
  ];
  if (checks.length === 0) return body;
  const text =
    payload === undefined
      ? body
      : body.replace(/@payloads?@/g, () => (converted === undefined ? payload.name : payloadVariable));
  const declared = converted === undefined ? [] : [`  ${payloadVariable} bytea${converted.repeated ? "[]" : ""};`];
  if (text.includes("@checks@")) {
    return text
      .replace(/^DECLARE$/m, () => ["DECLARE", ...declared].join("\n"))
      .replace(/@plain([a-z_ ]*)@/, (_, names: string) =>
        plainCondition(family, variant, names.trim().split(" "), constants),
      )
      .replaceAll("@plain_payload@", () => bytesOf(payload!.name, variant))
      .replace(/^ *@checks@$/m, () => checks.join("\n"));
  }
  return [
    ...(converted === undefined ? [] : ["DECLARE", ...declared]),
    "BEGIN",
    ...checks,
    `${text.trimEnd()};`,
    "END",
    "",
  ].join("\n");
}

/**
 * Condition of a call that needs no other check: no optional argument is set except `allowed`, all required ones are
 * valid, and the message belongs to no trace.
 */
function plainCondition(
  family: GatewayFamily,
  variant: GatewayVariant,
  allowed: readonly string[],
  constants: SqlConstants,
): string {
  const conditions = limitedArguments(family, variant, ({ name }) => name).flatMap((argument, index) => {
    const { optional, payload } = sqlParameters(family)[index]!;
    const { name, sqlType, rules } = argument;
    if (payload) {
      const isText = sqlType === "text" || sqlType === "bytea";
      return [
        isText && rules.minBytes === 1 ? `${name} <> ''` : `${name} IS NOT NULL`,
        ...mayBeLong([argument]).map((isLong) => `NOT (${isLong})`),
      ];
    }
    if (!optional) return shortConditions(argument);
    return allowed.includes(name) ? [] : [`${name} IS NULL`];
  });
  const isTraced = sqlParameters(family).some(({ traceContext }) => traceContext);
  const untraced = isTraced ? [`${tracedCondition(constants)} IS NOT TRUE`] : [];
  return `(${[...conditions, ...untraced].join("\n    AND ")})`;
}

/** Conditions for the rules of a text, in as few function calls as possible. */
function shortConditions({ name, rules: { minBytes = 0, maxBytes, pattern } }: LimitedArgument): string[] {
  const isNeverEmpty = pattern !== undefined && !new RegExp(pattern.source, "u").test("");
  return [
    ...(maxBytes === undefined ? [] : [`octet_length(${name}) <= ${maxBytes}`]),
    ...(minBytes === 0 || (minBytes === 1 && isNeverEmpty) ? [] : [`octet_length(${name}) >= ${minBytes}`]),
    ...(pattern === undefined ? [] : [`${name} ~ ${sqlString(pattern.source)}`]),
    ...(maxBytes === undefined && pattern === undefined ? [`${name} IS NOT NULL`] : []),
  ];
}

/** Statements of the refusals under one condition, since most calls are valid. */
function underOneCondition(refusals: readonly Refusal[]): string[] {
  if (refusals.length === 0) return [];
  return [
    `  IF ${refusals.map(({ condition }) => condition).join("\n    OR ")} THEN`,
    ...refusals.flatMap(({ condition, statements }) => [`  IF ${condition} THEN`, ...statements, "  END IF;"]),
    "  END IF;",
  ];
}

/**
 * Converts the payload to bytes and checks their length. A text has the length of its bytes, and a list has the same
 * number of elements.
 */
function convertedPayload(called: string, { name, repeated, rules }: GatewayValue, variant: GatewayVariant): string[] {
  const { maxItems, ...others } = rules;
  const count = { name, expression: name, sqlType: "bytea", repeated, rules: repeated && maxItems ? { maxItems } : {} };
  const before = variant.payloadType === "text" && !repeated ? { ...count, sqlType: "text", rules } : count;
  const after = { name, expression: payloadVariable, sqlType: "bytea", repeated, rules: others };
  return [
    ...limitStatements(called, [before]),
    repeated
      ? `  ${payloadVariable} := ARRAY(SELECT ${bytesOf("p.one", variant)} FROM unnest(${name}) WITH ORDINALITY AS p (one, nth) ORDER BY p.nth);`
      : `  ${payloadVariable} := ${bytesOf(name, variant)};`,
    ...(before.sqlType === "text" ? [] : limitStatements(called, [after])),
  ];
}

function refusalsOf(family: GatewayFamily, { payloadType }: GatewayVariant, value: GatewayValue): Refusal[] {
  const { name } = value;
  // The type json has no comparison operators.
  const hasNull =
    payloadType === "json"
      ? `EXISTS (SELECT FROM unnest(${name}) AS p (one) WHERE p.one IS NULL)`
      : `array_position(${name}, NULL) IS NOT NULL`;
  const whole = value.repeated ? `${name} IS NULL OR ${hasNull}` : `${name} IS NULL`;
  // A message for a peer has one byte at least.
  const isForPeers = sqlParameters(family).some(({ name: other }) => other === "topic");
  const empty = value.repeated
    ? `; an array without messages is '{}'${isForPeers ? "" : ", an empty message ''"}`
    : value.payload
      ? isForPeers
        ? "; without content one is 'null' in JSON"
        : "; an empty message is '', and in JSON 'null'"
      : "";
  return [
    ...(value.optional
      ? []
      : [
          refusal(
            whole,
            "null_argument",
            sqlString(`${nameWithStar(family)}: the argument ${name} is NULL, and needs a value`),
            `Give ${name} a value${empty}.`,
          ),
        ]),
    ...rulesOf(value).map(([condition, rule]) =>
      refusal(
        `NOT (${condition})`,
        "invalid_argument",
        `format(${sqlString(`${nameWithStar(family)}: the argument ${name} is %s, and ${rule.replaceAll("%", "%%")}`)}, ${shown(value)})`,
        `Give an argument that obeys the rule: it ${rule}.`,
      ),
    ),
  ];
}

/** Conditions of a value, each with its rule in words. */
function rulesOf(value: GatewayValue): [condition: string, rule: string][] {
  const { bytes, pattern, range } = columnLimits(value.name, value.rules);
  const conditions: [condition: string | undefined, rule: string | undefined][] = [
    [range, rangeText(value.rules)?.rule],
    [bytes, bytesText(value.rules, "string")?.rule],
    [pattern, value.rules.pattern?.means],
  ];
  // Payloads, headers and lists have been checked before.
  return conditions
    .slice(0, value.kind === "string" ? undefined : 1)
    .flatMap(([condition, rule]) => (condition === undefined ? [] : [[condition, rule!]]));
}

/** Value in an error: the beginning of a long text, with its length. */
function shown({ name, kind }: GatewayValue): string {
  return kind === "string"
    ? `CASE WHEN octet_length(${name}) > 240 THEN format('%s (%s bytes)', to_json(left(${name}, 60) || chr(8230)), octet_length(${name})) ELSE to_json(${name})::text END`
    : name;
}

function refusal(condition: string, code: string, message: string, hint: string): Refusal {
  const statements = [
    "    RAISE EXCEPTION USING",
    `      ERRCODE = hawser.error_sqlstate('${code}'),`,
    `      MESSAGE = ${message},`,
    `      HINT = ${sqlString(hint)};`,
  ];
  return { condition, statements };
}
