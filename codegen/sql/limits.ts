/**
 * Limits of arguments, checked in Postgres before a function uses them. The checks are cheap: Postgres knows the length
 * of a text or of bytes without reading them, and a value is read only if it may be too long. An array says whether it
 * has a NULL.
 */
import type { Rules } from "../model/rules.js";
import {
  bytesText,
  headerTexts,
  itemsText,
  listBytesText,
  rangeText,
  valuesText,
} from "../validators/runtime/violation.js";
import { columnLimits } from "./checks.js";
import { functionSettings } from "./function-settings.js";
import { dollarQuoted, sqlString } from "./literal.js";

/** Argument with limits, as its function sees it. */
export interface LimitedArgument {
  /** Name of the argument in errors. */
  readonly name: string;
  /** Value in SQL, such as `p_name` or `$1`. */
  readonly expression: string;
  /** Type of the value, or of one element. */
  readonly sqlType: string;
  readonly repeated: boolean;
  readonly rules: Rules;
  /** True if all rules are checked here, not only the length of the value. */
  readonly wholly?: boolean;
  /** True if NULL is refused here, also as an element of a list. */
  readonly required?: boolean;
  /** True if the function runs with its caller's search path, so that names need a schema. */
  readonly qualified?: boolean;
}

/** Condition that is true for a value above a limit; only the condition of {@link nullLimits} is true for NULL. */
interface Limit {
  readonly condition: string;
  /** SQL expression that describes the value: `300 bytes long`. */
  readonly is: string;
  /** Rule: "must be …". */
  readonly rule: string;
}

/** Greatest ratio of the text of a jsonb value to its size: a number of 12 bytes may have 147,456 digits. */
const textOfJsonb = 12_288;

/** Limit in bytes that no value in Postgres can exceed. */
const unlimited = 2 ** 30;

/**
 * Functions that the checks call for values that are, or may be, too long. Those of excess are STRICT, because a
 * condition that is NULL does not keep Postgres from evaluating the operands after its AND.
 */
const functions = [
  {
    signature: "hawser.refuse_argument(text, text, text, text)",
    parameters: "p_function text, p_argument text, p_is text, p_rule text",
    // Postgres may evaluate other functions in advance, even where the value is not refused.
    kind: "VOLATILE",
    // Every role may call this function, so it truncates the texts that it repeats.
    body: `BEGIN
  RAISE EXCEPTION USING
    ERRCODE = hawser.error_sqlstate(CASE WHEN p_is IN ('NULL', 'a list with a NULL') THEN 'null_argument' ELSE 'invalid_argument' END),
    MESSAGE = format('%s: the argument %s is %s, and %s', left(p_function, 255), left(p_argument, 255), left(p_is, 1000), left(p_rule, 1000)),
    HINT = format('Give an argument that obeys the rule: it %s.', left(p_rule, 1000));
END`,
    about: "Raises that an argument breaks a rule.",
  },
  {
    signature: "hawser.list_excess(anyarray, bigint, bigint)",
    parameters: "p_list anyarray, p_max_total_bytes bigint, p_max_item_bytes bigint",
    kind: "IMMUTABLE STRICT",
    body: `DECLARE
  v_total bigint;
  v_longest bigint;
BEGIN
  SELECT sum(octet_length(l.one)), max(octet_length(l.one)) INTO v_total, v_longest FROM unnest(p_list) AS l (one);
  RETURN CASE
    WHEN v_longest > p_max_item_bytes THEN format('a list with an element of %s bytes', v_longest)
    WHEN v_total > p_max_total_bytes THEN format('a list of %s bytes', v_total)
  END;
END`,
    about: "Describes the excess length of a list of texts or of bytes; NULL if it is within its limits.",
  },
  {
    signature: "hawser.header_excess(jsonb, bigint, bigint, bigint)",
    parameters: "p_headers jsonb, p_max_items bigint, p_max_name_bytes bigint, p_max_value_bytes bigint",
    kind: "IMMUTABLE STRICT",
    body: `DECLARE
  v_count bigint;
  v_name bigint;
  v_value bigint;
BEGIN
  -- A value that is not an object is refused by its form.
  IF jsonb_typeof(p_headers) <> 'object' THEN
    RETURN NULL;
  END IF;
  SELECT count(*), max(octet_length(h.key)), max(octet_length(v.value #>> '{}')) INTO v_count, v_name, v_value
    FROM jsonb_each(p_headers) AS h,
         jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v;
  RETURN CASE
    WHEN v_count > p_max_items THEN format('an object with %s values', v_count)
    WHEN v_name > p_max_name_bytes THEN format('an object with a name of %s bytes', v_name)
    WHEN v_value > p_max_value_bytes THEN format('an object with a value of %s bytes', v_value)
  END;
END`,
    about: "Describes the excess size of headers; NULL if they are within their limits.",
  },
];

/** Functions as GRANT names them. */
export const limitFunctionSignatures = functions.map(({ signature }) => signature);

export function limitFunctions(): string {
  return functions
    .flatMap(({ signature, parameters, kind, body, about }) => [
      `CREATE OR REPLACE FUNCTION ${signature.replace(/\(.*/, "")}(${parameters})`,
      "RETURNS text",
      `LANGUAGE plpgsql ${kind} PARALLEL SAFE`,
      ...functionSettings(),
      `AS ${dollarQuoted("function", body)};`,
      `COMMENT ON FUNCTION ${signature} IS ${sqlString(about)};`,
      "",
    ])
    .join("\n");
}

/**
 * Statements that refuse arguments above their limits; empty if there are no limits.
 *
 * @param called the function's name in errors
 */
export function limitStatements(called: string, values: readonly LimitedArgument[]): string[] {
  const limits = values.flatMap((value) =>
    [...nullLimits(value), ...limitsOf(value)].map((limit) => ({ value, limit })),
  );
  if (limits.length === 0) return [];
  return [
    "  IF",
    limits.map(({ limit }, nth) => `    ${nth === 0 ? "" : "OR "}${limit.condition}`).join("\n"),
    "  THEN",
    ...limits.flatMap(({ value, limit }) => [
      `    IF ${limit.condition} THEN`,
      `      PERFORM ${refusal(called, value, limit)};`,
      "    END IF;",
    ]),
    "  END IF;",
  ];
}

/** Cheap conditions that are true if a value may exceed its limit; if none is true, no value exceeds one. */
export function mayBeLong(values: readonly LimitedArgument[]): string[] {
  return values.flatMap(({ expression, sqlType, qualified, rules: { maxBytes } }) => {
    if (maxBytes === undefined) return [];
    const { call, over } = operators(qualified);
    if (sqlType === "jsonb") return [mayExceed(expression, leastSize(sqlType, maxBytes), qualified)];
    return [over(call("octet_length", sqlType === "json" ? `${expression}::text` : expression), maxBytes)];
  });
}

/** Wraps a text expression so that an argument above its limits is refused. */
export function limited(called: string, values: readonly LimitedArgument[], expression: string): string {
  const limits = values.flatMap((value) =>
    limitsOf(value).map((limit) => `WHEN ${limit.condition} THEN ${refusal(called, value, limit)}`),
  );
  return limits.length === 0 ? expression : `CASE ${limits.join(" ")} ELSE ${expression} END`;
}

function refusal(called: string, { name }: LimitedArgument, { is, rule }: Limit): string {
  return `hawser.refuse_argument(${sqlString(called)}, ${sqlString(name)}, ${is}, ${sqlString(rule)})`;
}

function nullLimits({ expression, repeated, required }: LimitedArgument): Limit[] {
  if (!required) return [];
  const whole = { condition: `${expression} IS NULL`, is: "'NULL'", rule: "needs a value" };
  const element = {
    condition: `num_nulls(VARIADIC ${expression}) > 0`,
    is: "'a list with a NULL'",
    rule: "must have a value in each place",
  };
  return repeated ? [whole, element] : [whole];
}

/** Limits that the rules have. */
function setLimits(limits: readonly { readonly [Name in keyof Limit]: Limit[Name] | undefined }[]): Limit[] {
  return limits.filter((limit): limit is Limit => limit.condition !== undefined);
}

function limitsOf(value: LimitedArgument): Limit[] {
  const { rules } = value;
  return value.repeated
    ? listLimits(value)
    : value.sqlType === "jsonb" && (rules.maxItems ?? rules.maxNameBytes ?? rules.maxValueBytes) !== undefined
      ? [...lengthLimits(value), ...headerLimits(value)]
      : value.wholly
        ? [...lengthLimits(value), ...otherLimits(value)]
        : lengthLimits(value);
}

function operators(qualified: boolean | undefined) {
  return {
    call: (fn: string, ...given: (string | number)[]) => `${qualified ? "pg_catalog." : ""}${fn}(${given.join(", ")})`,
    over: (one: string, other: string | number) => `${one} ${qualified ? "OPERATOR(pg_catalog.>)" : ">"} ${other}`,
  };
}

function lengthLimits({ expression, sqlType, rules, qualified }: LimitedArgument): Limit[] {
  const values = rules.in?.map((one) => Buffer.byteLength(one));
  const maxBytes = rules.maxBytes ?? (values && Math.max(...values));
  if (maxBytes === undefined) return [];
  const { call, over } = operators(qualified);
  const isPlain = sqlType === "text" || sqlType === "bytea";
  const length = call("octet_length", isPlain ? expression : `${expression}::text`);
  // Converting a long value to text takes time, so only a value that may be too long is converted.
  const least = isPlain ? 0 : leastSize(sqlType, maxBytes);
  const mayBe = least < 64 ? "" : `${mayExceed(expression, least, qualified)} AND `;
  const condition = `${mayBe}${over(length, maxBytes)}`;
  return [
    {
      condition: mayBe === "" ? condition : `(${condition})`,
      is: `${length} || ' bytes long'`,
      rule: (bytesText(rules, sqlType === "bytea" ? "bytes" : "string") ?? valuesText(rules.in!)).rule,
    },
  ];
}

/** Size in bytes below which a value's text cannot exceed `textBytes`; 0 if unknown. */
function leastSize(sqlType: string, textBytes: number): number {
  if (sqlType === "jsonb") return Math.floor(textBytes / textOfJsonb);
  return ["text", "bytea", "json"].includes(sqlType) ? textBytes : 0;
}

/** Condition that a value may exceed `bytes`; a compressed value may have any length. */
function mayExceed(expression: string, bytes: number, qualified: boolean | undefined): string {
  const { call, over } = operators(qualified);
  const compressed = `${call("pg_column_compression", expression)} IS NOT NULL`;
  return `(${over(call("pg_column_size", expression), bytes)} OR ${compressed})`;
}

function listLimits({ expression, sqlType, rules, qualified }: LimitedArgument): Limit[] {
  const { call, over } = operators(qualified);
  const { maxItems, maxTotalBytes, maxItemBytes } = rules;
  const least = leastSize(sqlType, Math.min(maxTotalBytes ?? unlimited, maxItemBytes ?? unlimited));
  const list = sqlType === "text" || sqlType === "bytea" ? expression : `${expression}::text[]`;
  const excess = `hawser.list_excess(${list}, ${maxTotalBytes ?? unlimited}, ${maxItemBytes ?? unlimited})`;
  const count = call("cardinality", expression);
  return setLimits([
    {
      condition: maxItems === undefined ? undefined : over(count, maxItems),
      is: `'a list of ' || ${count} || ' elements'`,
      rule: itemsText(maxItems ?? 0).rule,
    },
    {
      condition: listBytesText(rules) && `(${mayExceed(expression, least, qualified)} AND ${excess} IS NOT NULL)`,
      is: excess,
      rule: listBytesText(rules)?.rule,
    },
  ]);
}

function headerLimits({ expression, rules, qualified }: LimitedArgument): Limit[] {
  const { call, over } = operators(qualified);
  const { maxItems, maxNameBytes, maxValueBytes } = rules;
  const excess = `hawser.header_excess(${expression}, ${maxItems ?? unlimited}, ${maxNameBytes ?? unlimited}, ${maxValueBytes ?? unlimited})`;
  // Each value takes at least two characters of JSON, so most objects need no counting.
  const least = Math.min(2 * (maxItems ?? unlimited), maxNameBytes ?? unlimited, maxValueBytes ?? unlimited);
  return [
    {
      condition: `(${over(call("octet_length", `${expression}::text`), least)} AND ${excess} IS NOT NULL)`,
      is: excess,
      rule: headerTexts(rules)!.rule,
    },
  ];
}

/** Rules besides the length. The gateway checks them for the functions that it answers. */
function otherLimits({ expression, sqlType, rules }: LimitedArgument): Limit[] {
  const { range, pattern } = columnLimits(expression, rules);
  const { minBytes } = rules;
  const length = `octet_length(${expression})`;
  return setLimits([
    { condition: range && `NOT (${range})`, is: `${expression}::text`, rule: rangeText(rules)?.rule },
    {
      condition: minBytes ? `${length} < ${minBytes}` : undefined,
      is: `${length} || ' bytes long'`,
      rule: bytesText(rules, sqlType === "bytea" ? "bytes" : "string")?.rule,
    },
    {
      condition: pattern && `NOT (${pattern})`,
      is: `to_json(left(${expression}, 60))::text`,
      rule: rules.pattern?.means,
    },
  ]);
}
