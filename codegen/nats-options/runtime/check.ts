import { coerceOption, type Grammar, type OptionType } from "./coerce.js";
import { suggestOption } from "./suggest.js";

/** What is wrong with a set of options: the first thing found, in the words that the SQL validator uses. */
export interface OptionViolation {
  /** The option to add, change or drop; null if the options are not an object at all. */
  readonly option: string | null;
  /** The SQLSTATE, of class HV. */
  readonly sqlstate: string;
  readonly message: string;
  /** The value, unless it may be a secret; or the options that contradict each other. */
  readonly detail: string;
  /** What to do. */
  readonly hint: string;
}

/** Valid options in their own types and with their defaults, or the first violation. */
export type OptionsResult<T> =
  | { readonly ok: true; readonly options: T }
  | { readonly ok: false; readonly violation: OptionViolation };

/** What the schema says, as data. */
export interface OptionTable {
  readonly options: readonly OptionEntry[];
  /** In the order in which the first violation is looked for. */
  readonly checks: readonly OptionCheck[];
  readonly grammar: Grammar;
  readonly sqlstates: { readonly unknown: string; readonly value: string };
  /** A longer name gets no suggestion. */
  readonly maxSuggestedLength: number;
  /** Values are shown up to this many characters. */
  readonly maxShownLength: number;
}

export interface OptionEntry {
  readonly name: string;
  readonly type: OptionType;
  readonly default?: string | number | boolean;
  /** Its value must not be shown. */
  readonly hidden: boolean;
}

export interface OptionCheck {
  /** Where Ajv reports it. */
  readonly at: string;
  readonly option: string;
  readonly sqlstate: string;
  readonly message: string;
  readonly hint: string;
  /** Of a rule over several options: which they are. */
  readonly about?: readonly string[];
}

/** An Ajv standalone validator. */
export interface CompiledValidator {
  (value: unknown): boolean;
  errors?: readonly AjvError[] | null;
}

interface AjvError {
  readonly keyword: string;
  readonly schemaPath: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/**
 * Checks a set of options: strings, as a foreign server has them, or typed, as in JSON.
 *
 * The SQL function `hawser.nats_server_options_violation` gives the same answer for the same options.
 */
export function checkOptions<T>(table: OptionTable, validate: CompiledValidator, input: unknown): OptionsResult<T> {
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return { ok: false, violation: notAnObject(table) };
  }
  const given = input as Readonly<Record<string, unknown>>;
  const typed = coerceAll(table, given);
  if (validate(typed)) {
    return { ok: true, options: withDefaults(table, typed) as T };
  }
  return { ok: false, violation: firstViolation(table, given, validate.errors ?? []) };
}

/**
 * Every option that is set, in its own type, or null where it has another. Without a prototype, so that an option
 * called `__proto__` is an unknown option like any other.
 */
function coerceAll(table: OptionTable, given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const types = new Map(table.options.map((option) => [option.name, option.type]));
  const typed: Record<string, unknown> = Object.create(null);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) {
      continue;
    }
    const type = types.get(name);
    typed[name] = type === undefined ? value : coerceOption(type, value, table.grammar);
  }
  return typed;
}

function withDefaults(table: OptionTable, typed: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entries = table.options.map(({ name, default: fallback }) => [name, typed[name] ?? fallback] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

function firstViolation(
  table: OptionTable,
  given: Readonly<Record<string, unknown>>,
  errors: readonly AjvError[],
): OptionViolation {
  const unknown = errors.flatMap(({ keyword, params }) =>
    keyword === "additionalProperties" ? [String(params["additionalProperty"])] : [],
  );
  if (unknown.length > 0) {
    return unknownOption(table, unknown.reduce(lesserInUtf8));
  }
  const places = new Set(errors.map(placeOf));
  const check = table.checks.find(({ at }) => places.has(at));
  if (check === undefined) {
    throw new Error(`the validator reports ${[...places].join(", ")}, which no check knows`);
  }
  const { option, sqlstate, message, hint } = check;
  return { option, sqlstate, message, detail: detailOf(table, check, given), hint };
}

/** A rule's parts report their own paths below it; `dependentRequired` names the two options in its parameters. */
function placeOf({ keyword, schemaPath, params }: AjvError): string {
  if (keyword === "dependentRequired") {
    return `#/dependentRequired/${String(params["property"])}/${String(params["missingProperty"])}`;
  }
  return /^#\/allOf\/[0-9]+/.exec(schemaPath)?.[0] ?? schemaPath;
}

/** Postgres orders by UTF-8 bytes (COLLATE "C"), JavaScript by UTF-16 units. */
function lesserInUtf8(one: string, other: string): string {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) <= 0 ? one : other;
}

function notAnObject(table: OptionTable): OptionViolation {
  return {
    option: null,
    sqlstate: table.sqlstates.value,
    message: "the options must be a JSON object",
    detail: allNames(table),
    hint: 'Write them as {"name": value, ...}.',
  };
}

function unknownOption(table: OptionTable, name: string): OptionViolation {
  const names = table.options.map((option) => option.name);
  const suggestion = suggestOption(name, names, table.maxSuggestedLength);
  return {
    option: name,
    sqlstate: table.sqlstates.unknown,
    message: `unknown option ${quoted(name, table.maxShownLength)}`,
    detail: allNames(table),
    hint: suggestion === undefined ? "Use one of the options, or drop it." : `Did you mean "${suggestion}"?`,
  };
}

function allNames(table: OptionTable): string {
  return `The options are: ${table.options.map((option) => option.name).join(", ")}.`;
}

function detailOf(table: OptionTable, check: OptionCheck, given: Readonly<Record<string, unknown>>): string {
  if (check.about !== undefined) {
    const set = check.about.filter((name) => given[name] !== undefined);
    return `Given: ${set.length === 0 ? "none" : set.join(", ")}.`;
  }
  const hidden = table.options.some((option) => option.name === check.option && option.hidden);
  return hidden ? "Its value is not shown." : shown(given[check.option], table);
}

function shown(value: unknown, { maxShownLength, grammar }: OptionTable): string {
  switch (typeof value) {
    case "string":
      // Someone may have written user and password into an address.
      return value.includes("@") ? "Its value is not shown." : `Its value is ${quoted(value, maxShownLength)}.`;
    case "number":
      // What JavaScript and Postgres make of a number's last digits may differ beyond this.
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

/** The text as JSON quotes it, cut to `maxLength` characters. */
function quoted(text: string, maxLength: number): string {
  const characters = [...text];
  return JSON.stringify(characters.length > maxLength ? `${characters.slice(0, maxLength).join("")}...` : text);
}
