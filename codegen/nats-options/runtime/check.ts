import { suggestOption } from "./suggest.js";

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
export type OptionsResult<T> =
  | { readonly ok: true; readonly options: T }
  | { readonly ok: false; readonly violation: OptionViolation };

/** Content of the schema as data. `Options` is the type of the options as given. */
export interface OptionTable<Options> {
  readonly options: Readonly<Record<keyof Options, OptionEntry>>;
  /** Rules over several options, in the order in which they are reported. */
  readonly rules: readonly OptionRule<Options>[];
  readonly grammar: Grammar;
  readonly sqlstates: { readonly unknown: string; readonly value: string };
  /** Greatest length of a name that gets a suggestion. */
  readonly maxSuggestedLength: number;
  /** Greatest number of characters that are shown of a value. */
  readonly maxShownLength: number;
}

export interface OptionEntry {
  readonly type: "string" | "integer" | "boolean";
  readonly default?: string | number | boolean;
  /** True if the value must not be shown. */
  readonly hidden: boolean;
  /** Message for a value of another type. */
  readonly typeRule: string;
  /** Limits in the order in which they are checked. */
  readonly limits: readonly Limit[];
  /** Remedy for an invalid value. */
  readonly remedy: string;
}

/** Limit, and the message for a value beyond it. Lengths are in characters (Unicode code points). */
type Limit = { readonly rule: string } & (
  | { readonly minLength: number }
  | { readonly maxLength: number }
  | { readonly minimum: number }
  | { readonly maximum: number }
  | { readonly pattern: RegExp }
);

/** Rule over several options. */
interface OptionRule<Options> {
  /** True if the options obey the rule. Called only if every option that is set has its own type. */
  readonly holds: (options: Options) => boolean;
  readonly option: string;
  readonly sqlstate: string;
  readonly message: string;
  readonly hint: string;
  /** Options that the rule reads. */
  readonly about: readonly string[];
}

/** Patterns and limits for reading option strings. */
interface Grammar {
  /** Integer: sign, and digits without leading zeros. */
  readonly integer: RegExp;
  /** Spellings of true; `false` has those of false. */
  readonly true: RegExp;
  readonly false: RegExp;
  /** Numbers beyond ± this value count as ± this value. */
  readonly farNumber: number;
  /** Maximum number of digits that are read. A number with more counts as `farNumber`. */
  readonly maxDigits: number;
}

/**
 * Checks a set of options: strings, as a foreign server has them, or typed, as in JSON.
 *
 * Reports the first violation: unknown options first, then values of the wrong type, then rules over several options (a
 * contradiction matters more than a limit, and these rules need values of the right type), then limits of single
 * options.
 *
 * The SQL function `hawser.nats_server_options_violation` returns the same violation for the same options.
 */
export function checkOptions<Options, Complete>(table: OptionTable<Options>, input: unknown): OptionsResult<Complete> {
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return { ok: false, violation: notAnObject(table) };
  }
  const given = new Map(Object.entries(input).filter(([, value]) => value !== undefined));
  const entries: readonly (readonly [name: string, entry: OptionEntry])[] = Object.entries(table.options);
  const unknown = [...given.keys()].filter((name) => !Object.hasOwn(table.options, name));
  if (unknown.length > 0) return { ok: false, violation: unknownOption(table, unknown.reduce(lesserInUtf8)) };

  const refused = (option: string, { hidden, remedy }: OptionEntry, rule: string): OptionsResult<Complete> => {
    const detail = hidden ? "Its value is not shown." : shown(given.get(option), table);
    const message = `option "${option}" ${rule}`;
    return { ok: false, violation: { option, sqlstate: table.sqlstates.value, message, detail, hint: remedy } };
  };

  const typed: Record<string, string | number | boolean> = {};
  for (const [name, entry] of entries) {
    if (!given.has(name)) continue;
    const value = coerceOption(entry.type, given.get(name), table.grammar);
    if (value === null) return refused(name, entry, entry.typeRule);
    typed[name] = value;
  }
  for (const { holds, option, sqlstate, message, hint, about } of table.rules) {
    if (holds(typed as Options)) continue;
    const set = about.filter((name) => given.has(name));
    const detail = `Given: ${set.length === 0 ? "none" : set.join(", ")}.`;
    return { ok: false, violation: { option, sqlstate, message, detail, hint } };
  }
  for (const [name, entry] of entries) {
    const broken = entry.limits.find((limit) => typed[name] !== undefined && isBeyond(typed[name], limit));
    if (broken !== undefined) return refused(name, entry, broken.rule);
  }
  const complete = entries.flatMap(([name, entry]) => {
    const value = typed[name] ?? entry.default;
    return value === undefined ? [] : [[name, value]];
  });
  return { ok: true, options: Object.fromEntries(complete) as Complete };
}

function isBeyond(value: string | number | boolean, limit: Limit): boolean {
  if ("minimum" in limit) return (value as number) < limit.minimum;
  if ("maximum" in limit) return (value as number) > limit.maximum;
  if ("pattern" in limit) return !limit.pattern.test(value as string);
  const { length } = [...(value as string)];
  return "minLength" in limit ? length < limit.minLength : length > limit.maxLength;
}

/**
 * Converts the value of an option to its own type, from the string of a foreign server option or from JSON.
 *
 * @returns null if the value has another type
 */
export function coerceOption(
  type: OptionEntry["type"],
  value: unknown,
  grammar: Grammar,
): string | number | boolean | null {
  switch (type) {
    case "string":
      return typeof value === "string" && isStorable(value) ? value : null;
    case "integer":
      return coerceInteger(value, grammar);
    case "boolean":
      return coerceBoolean(value, grammar);
  }
}

const halfSurrogatePair = /\p{Surrogate}/u;

/** True if Postgres can store the text: without NUL and without unpaired surrogates. */
function isStorable(text: string): boolean {
  return !text.includes("\0") && !halfSurrogatePair.test(text);
}

function coerceInteger(value: unknown, grammar: Grammar): number | null {
  const number = typeof value === "string" ? parseInteger(value, grammar) : value;
  // JSON.parse reads a number beyond its range, such as 1e400, as Infinity.
  if (typeof number !== "number" || !(Number.isInteger(number) || Math.abs(number) === Number.POSITIVE_INFINITY)) {
    return null;
  }
  // Adding 0 turns -0 into 0.
  return Math.min(Math.max(number, -grammar.farNumber), grammar.farNumber) + 0;
}

function parseInteger(text: string, grammar: Grammar): number | null {
  const found = grammar.integer.exec(text);
  if (found === null) {
    return null;
  }
  const [, sign, digits] = found as unknown as [string, string, string];
  const size = digits.length > grammar.maxDigits ? grammar.farNumber : Number(digits);
  return sign === "-" ? -size : size;
}

function coerceBoolean(value: unknown, grammar: Grammar): boolean | null {
  if (typeof value === "boolean") {
    return value;
  }
  if (typeof value !== "string") {
    return null;
  }
  return grammar.true.test(value) ? true : grammar.false.test(value) ? false : null;
}

/** Compares by UTF-8 bytes, as Postgres does (COLLATE "C"); JavaScript would compare UTF-16 units. */
function lesserInUtf8(one: string, other: string): string {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) <= 0 ? one : other;
}

function notAnObject<Options>(table: OptionTable<Options>): OptionViolation {
  return {
    option: null,
    sqlstate: table.sqlstates.value,
    message: "the options must be a JSON object",
    detail: allNames(table),
    hint: 'Write them as {"name": value, ...}.',
  };
}

function unknownOption<Options>(table: OptionTable<Options>, name: string): OptionViolation {
  const suggestion = suggestOption(name, Object.keys(table.options), table.maxSuggestedLength);
  return {
    option: name,
    sqlstate: table.sqlstates.unknown,
    message: `unknown option ${quoted(name, table.maxShownLength)}`,
    detail: allNames(table),
    hint: suggestion === undefined ? "Use one of the options, or drop it." : `Did you mean "${suggestion}"?`,
  };
}

function allNames<Options>(table: OptionTable<Options>): string {
  return `The options are: ${Object.keys(table.options).join(", ")}.`;
}

function shown<Options>(value: unknown, { maxShownLength, grammar }: OptionTable<Options>): string {
  switch (typeof value) {
    case "string":
      // An address may contain a user name and a password.
      return value.includes("@") ? "Its value is not shown." : `Its value is ${quoted(value, maxShownLength)}.`;
    case "number":
      // Beyond this limit, JavaScript and Postgres may differ in a number's last digits.
      if (Math.abs(value) > grammar.farNumber) {
        return `Its value has more than ${grammar.maxDigits} digits.`;
      }
      return Number.isInteger(value) ? `Its value is ${value + 0}.` : "Its value is a fraction.";
    case "boolean":
      return `Its value is ${value}.`;
    default:
      return "Its value is null, a list or an object.";
  }
}

/** Text quoted as JSON, cut to `maxLength` characters. */
function quoted(text: string, maxLength: number): string {
  const characters = [...text];
  return JSON.stringify(characters.length > maxLength ? `${characters.slice(0, maxLength).join("")}...` : text);
}
