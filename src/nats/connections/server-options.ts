/** Check of the options of the NATS server, and of what they authenticate with. */
import {
  authModes,
  type CompleteNatsServerOptions,
  type ConnectionOption,
  type NatsAuth,
  type NatsServerOptions,
  optionRules,
  serverOptions,
} from "../../../generated/ts/nats-options/index.js";
import { suggestOption } from "../../foundation/errors/index.js";

/** First violation in a set of options, with the same texts as the SQL validator. */
export interface OptionViolation {
  /** Option to add, change or drop; null if the options are not an object. */
  readonly option: string | null;
  /** SQLSTATE, of class HV. */
  readonly sqlstate: string;
  readonly message: string;
  /** Value, unless it may be a secret; or the options that contradict each other. */
  readonly detail: string;
  /** Remedy. */
  readonly hint: string;
}

/** Valid options in their own types and with their defaults, or the first violation. */
export type OptionsResult =
  | { readonly ok: true; readonly options: CompleteNatsServerOptions }
  | { readonly ok: false; readonly violation: OptionViolation };

/** Options that a connection is made of. Code that connects can read no others, since a change of them makes no other one. */
export type ConnectionOptions = Pick<CompleteNatsServerOptions, ConnectionOption>;

type Value = string | number | boolean;

export interface OptionEntry {
  readonly type: "string" | "integer" | "boolean";
  readonly default?: Value;
  /** True if the value must not be shown. */
  readonly hidden: boolean;
}

/** Rule that a set of options must obey, with its violation. */
export interface OptionRule extends Omit<OptionViolation, "detail"> {
  readonly option: string;
  readonly holds: SetCondition;
  /** Options that a rule over several options reads. */
  readonly about?: readonly string[];
}

/** Condition on a set of options: the keywords of JSON Schema that both validators know, with their meaning there. */
export interface SetCondition {
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, ValueCondition>>;
  readonly not?: SetCondition;
  readonly anyOf?: readonly SetCondition[];
  readonly if?: SetCondition;
  readonly then?: SetCondition;
}

/** Condition on the value of an option. */
export interface ValueCondition {
  readonly type?: OptionEntry["type"];
  readonly const?: Value;
  readonly minimum?: number;
  readonly maximum?: number;
  /** Lengths in characters (Unicode code points). */
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
}

/** Options in the order in which they are named, and rules in the order in which they are reported. */
export interface OptionTable {
  readonly options: Readonly<Record<string, OptionEntry>>;
  readonly rules: readonly OptionRule[];
}

const generated: OptionTable = { options: serverOptions, rules: optionRules };

/**
 * Checks the combined options of server and user mapping: strings, as a foreign server has them, or typed, as in JSON.
 * Returns them in their own types and with the defaults, or the first violation: unknown options first, then the rules
 * of the table in their order. The result never contains a secret value. Does not throw.
 *
 * The SQL function `hawser.nats_server_options_violation` returns the same violation for the same options.
 */
export function checkNatsServerOptions(
  input: Readonly<Record<string, unknown>>,
  { options, rules }: OptionTable = generated,
): OptionsResult {
  const names = Object.keys(options);
  const refused = (option: string | null, sqlstate: string, message: string, detail: string, hint: string) =>
    ({ ok: false, violation: { option, sqlstate, message, detail, hint } }) as const;
  const allNames = `The options are: ${names.join(", ")}.`;
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return refused(null, "HV024", "the options must be a JSON object", allNames, 'Write them as {"name": value, ...}.');
  }
  const given = new Map(Object.entries(input).filter(([, value]) => value !== undefined));
  const unknown = [...given.keys()].filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    const name = unknown.reduce(lesserInUtf8);
    const suggestion = suggestOption(name, names, longestSuggested);
    const hint = suggestion === undefined ? "Use one of the options, or drop it." : `Did you mean "${suggestion}"?`;
    return refused(name, "HV00D", `unknown option ${quoted(name)}`, allNames, hint);
  }
  const set = names.filter((name) => given.has(name));
  const typed = Object.fromEntries(set.map((name) => [name, coerceOption(options[name]!.type, given.get(name))]));
  const broken = rules.find((rule) => !holds(rule.holds, typed));
  if (broken !== undefined) {
    const { option, sqlstate, message, hint, about } = broken;
    const isSet = about?.filter((name) => given.has(name)).join(", ");
    const detail = options[option]!.hidden ? notShown : shown(given.get(option));
    return refused(option, sqlstate, message, isSet === undefined ? detail : `Given: ${isSet || "none"}.`, hint);
  }
  const complete = names.flatMap((name) => {
    const value = typed[name] ?? options[name]!.default;
    return value === undefined ? [] : [[name, value]];
  });
  return { ok: true, options: Object.fromEntries(complete) };
}

/**
 * Selects the first authentication mode whose options are all set. The empty string counts as set.
 *
 * The SQL function `hawser.nats_auth_mode` selects the same mode.
 */
export function resolveAuth(
  options: NatsServerOptions,
  modes: Readonly<Record<string, readonly string[]>> = authModes,
): Readonly<NatsAuth> {
  const values = new Map<string, unknown>(Object.entries(options).filter(([, value]) => value !== undefined));
  const [mode, requires] = Object.entries(modes).find(([, needed]) => needed.every((name) => values.has(name)))!;
  return { mode, ...Object.fromEntries(requires.map((name) => [name, values.get(name)])) } as NatsAuth;
}

/** Options in their own types; null where a value has another type. */
type Typed = Readonly<Record<string, Value | null>>;

function holds({ required, properties = {}, not, anyOf, if: when, then = {} }: SetCondition, options: Typed): boolean {
  return (
    (required?.every((name) => Object.hasOwn(options, name)) ?? true) &&
    Object.entries(properties).every(([name, part]) => !Object.hasOwn(options, name) || fits(part, options[name]!)) &&
    !(not !== undefined && holds(not, options)) &&
    (anyOf?.some((one) => holds(one, options)) ?? true) &&
    !(when !== undefined && holds(when, options) && !holds(then, options))
  );
}

function fits(condition: ValueCondition, value: Value | null): boolean {
  const { type, const: constant, minimum = -Infinity, maximum = Infinity } = condition;
  const { minLength = 0, maxLength = Infinity, pattern = "" } = condition;
  if ((type !== undefined && value === null) || (constant !== undefined && value !== constant)) return false;
  if (typeof value === "number") return value >= minimum && value <= maximum;
  if (typeof value !== "string") return true;
  const { length } = [...value];
  return length >= minLength && length <= maxLength && new RegExp(pattern, "u").test(value);
}

/** Numbers beyond ± this value count as ± this value, which is outside the range of every option. */
const farNumber = Number.MAX_SAFE_INTEGER;

/** Maximum number of digits that are read. A number with more counts as {@link farNumber}, so a text can have any length. */
const maxDigits = 15;

/** Length of a name that gets no suggestion beyond it: no option's name is as long, and the search takes quadratic time. */
const longestSuggested = 63;

/** Greatest number of characters that are shown of a value. */
const maxShown = 60;

/** Decimal digits, trimmed, without leading zeros: all versions of Postgres read these, and `0x10` or `1_000` only newer ones. */
const integer = /^[\t-\r ]*([+-]?)0*([0-9]+)[\t-\r ]*$/;

/** Spellings of `boolin` in Postgres, trimmed, in any case, and every unambiguous prefix ("o" is ambiguous). */
const isTrue = /^[\t-\r ]*(?:t|tr|tru|true|y|ye|yes|on|1)[\t-\r ]*$/i;
const isFalse = /^[\t-\r ]*(?:f|fa|fal|fals|false|n|no|of|off|0)[\t-\r ]*$/i;

/**
 * Converts the value of an option to its own type, from the string of a foreign server option or from JSON.
 *
 * @returns null if the value has another type
 */
export function coerceOption(type: OptionEntry["type"], value: unknown): Value | null {
  if (type === "integer") return coerceInteger(value);
  if (type === "boolean") {
    if (typeof value !== "string") return typeof value === "boolean" ? value : null;
    return isTrue.test(value) || (isFalse.test(value) ? false : null);
  }
  // Postgres stores neither NUL nor unpaired surrogates.
  return typeof value === "string" && !/\0|\p{Surrogate}/u.test(value) ? value : null;
}

function coerceInteger(value: unknown): number | null {
  let number = value;
  if (typeof value === "string") {
    const [, sign, digits] = integer.exec(value) ?? [];
    if (digits === undefined) return null;
    number = Number(sign + "1") * (digits.length > maxDigits ? farNumber : Number(digits));
  }
  // JSON.parse reads a number beyond its range, such as 1e400, as Infinity.
  if (typeof number !== "number" || !(Number.isInteger(number) || Math.abs(number) === Number.POSITIVE_INFINITY)) {
    return null;
  }
  // Adding 0 turns -0 into 0.
  return Math.min(Math.max(number, -farNumber), farNumber) + 0;
}

/** Compares by UTF-8 bytes, as Postgres does (COLLATE "C"); JavaScript would compare UTF-16 units. */
function lesserInUtf8(one: string, other: string): string {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) <= 0 ? one : other;
}

const notShown = "Its value is not shown.";

function shown(value: unknown): string {
  switch (typeof value) {
    case "string":
      // An address may contain a user name and a password.
      return value.includes("@") ? notShown : `Its value is ${quoted(value)}.`;
    case "number":
      // Beyond this limit, JavaScript and Postgres may differ in a number's last digits.
      if (Math.abs(value) > farNumber) return `Its value has more than ${maxDigits} digits.`;
      return Number.isInteger(value) ? `Its value is ${value + 0}.` : "Its value is a fraction.";
    case "boolean":
      return `Its value is ${value}.`;
    default:
      return "Its value is null, a list or an object.";
  }
}

/** Text quoted as JSON, cut to {@link maxShown} characters. */
function quoted(text: string): string {
  const characters = [...text];
  return JSON.stringify(characters.length > maxShown ? `${characters.slice(0, maxShown).join("")}...` : text);
}
