/** Value that breaks a rule of the spec. */
export interface Violation {
  /** Path of the value: `hello.senderName`, `batch.headers[3].headers[0].name`. */
  readonly path: string;
  /** Value, printable and shortened; for bytes only their number. */
  readonly value: string;
  /** Rule: "must be 1 to 255 bytes long in UTF-8". */
  readonly rule: string;
  /** Remedy. */
  readonly remedy: string;
}

/** Rules of a text or of bytes; an absent rule does not limit. */
export interface TextRules {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly pattern?: RegExp;
  /** Meaning of the pattern: "must …". */
  readonly means?: string;
  readonly values?: readonly string[];
}

/** Range of an integer; an absent bound does not limit. */
export interface Range<Value extends number | bigint> {
  readonly min?: Value;
  readonly max?: Value;
}

/** Rule and remedy in words. */
export interface RuleText {
  readonly rule: string;
  readonly remedy: string;
}

/** Greatest length of a text in a violation, in UTF-16 units. */
const shownUnits = 60;

/** NUL, which Postgres cannot store in a text, and unpaired surrogates, which have no UTF-8. */
const neverInText = /[\0\p{Cs}]/u;

/** Checks a text: a string of well-formed Unicode without NUL, its length in UTF-8, its pattern, its values. */
export function checkText(path: string, rules: TextRules, value: string): Violation | undefined {
  if (typeof value !== "string") {
    const remedy = value === undefined || value === null ? "It is missing: set it." : "Give a string.";
    return violation(path, showValue(value), { rule: "must be a string", remedy });
  }
  if (!fits(value, rules.minBytes ?? 0, rules.maxBytes ?? Number.POSITIVE_INFINITY)) {
    return violation(path, showText(value), bytesText(rules, "string")!);
  }
  if (neverInText.test(value)) {
    const rule = "must be well-formed Unicode without NUL";
    return violation(path, showText(value), { rule, remedy: "Remove NUL and unpaired surrogates." });
  }
  if (rules.values !== undefined && !rules.values.includes(value)) {
    return violation(path, showText(value), valuesText(rules.values));
  }
  if (rules.pattern !== undefined && !rules.pattern.test(value)) {
    return violation(path, showText(value), { rule: rules.means ?? "", remedy: "Use only what the rule allows." });
  }
  return undefined;
}

/** Checks the length of bytes. */
export function checkBytes(path: string, rules: TextRules, value: Uint8Array): Violation | undefined {
  if (!(value instanceof Uint8Array)) {
    const text = { rule: "must be bytes (a Uint8Array)", remedy: "Give a Uint8Array or Buffer." };
    return violation(path, showValue(value), text);
  }
  return value.length >= (rules.minBytes ?? 0) && value.length <= (rules.maxBytes ?? Number.POSITIVE_INFINITY)
    ? undefined
    : violation(path, `${value.length} bytes`, bytesText(rules, "bytes")!);
}

/** Checks an integer whose type is not known: a number, or for a range of bigints a bigint. */
export function checkInteger<Value extends number | bigint>(
  path: string,
  range: Range<Value>,
  value: Value,
): Violation | undefined {
  const isInteger = typeof range.max === "bigint" ? typeof value === "bigint" : Number.isInteger(value);
  return isInteger && value >= range.min! && value <= range.max! ? undefined : outOfRange(path, range, value, true);
}

/** Violation of a number outside its range, or of a value that is not an integer. */
export function outOfRange(path: string, range: Range<number | bigint>, value: unknown, isUnsure = false): Violation {
  const { rule, remedy } = rangeText(range)!;
  return violation(path, showValue(value), {
    rule: isUnsure ? rule.replace(/^must be /, "must be an integer, ") : rule,
    remedy,
  });
}

export function checkBoolean(path: string, value: boolean): Violation | undefined {
  const text = { rule: "must be true or false", remedy: "Give a boolean." };
  return typeof value === "boolean" ? undefined : violation(path, showValue(value), text);
}

/** Checks the number of elements of a list. */
export function checkItems(
  path: string,
  maxItems: number,
  value: readonly unknown[],
  minItems = 0,
): Violation | undefined {
  if (!Array.isArray(value))
    return violation(path, showValue(value), { rule: "must be a list", remedy: "Give an array." });
  return value.length >= minItems && value.length <= maxItems
    ? undefined
    : violation(path, `${value.length} elements`, itemsText(maxItems, minItems));
}

/** Violation of a missing value. */
export function missing(path: string, text: RuleText): Violation {
  return violation(path, "nothing", text);
}

/** Kind, limits, unit and meaning of a setting; `isTuning` if no version promises to keep it. */
export type SettingRules = { readonly unit?: string; readonly isTuning?: true; readonly about: string } & (
  | ({ readonly kind: "number" } & Required<Range<number>>)
  | ({ readonly kind: "string" } & TextRules)
  | { readonly kind: "boolean" }
);

/** Settings with their defaults, or the first violation. */
export type CheckedSettings<Settings> =
  | { readonly ok: true; readonly settings: Settings }
  | { readonly ok: false; readonly violation: Violation };

/** Fills in the defaults and checks every setting. Returns the first violation. Other properties are ignored. */
export function checkSettings<Settings extends object>(
  defaults: Settings,
  rules: Readonly<Record<keyof Settings, SettingRules>>,
  input: { readonly [Name in keyof Settings]?: Settings[Name] | undefined },
): CheckedSettings<Settings> {
  const names = Object.keys(rules) as (keyof Settings & string)[];
  const settings = Object.fromEntries(names.map((name) => [name, input[name] ?? defaults[name]])) as Settings;
  for (const name of names) {
    const value = settings[name];
    // A setting without a default may be omitted.
    const found = value === undefined ? undefined : checkSetting(name, rules[name], value);
    if (found !== undefined) return { ok: false, violation: found };
  }
  return { ok: true, settings };
}

function checkSetting(name: string, rules: SettingRules, value: unknown): Violation | undefined {
  switch (rules.kind) {
    case "number":
      return checkInteger(name, rules, value as number);
    case "string":
      return checkText(name, rules, value as string);
    case "boolean":
      return checkBoolean(name, value as boolean);
  }
}

/** Checks each element of a list; the path of a violation begins with `name[index]`. */
export function checkEach<Value>(
  name: string,
  values: readonly Value[],
  check: (value: Value) => Violation | undefined,
): Violation | undefined {
  for (let index = 0; index < values.length; index++) {
    const found = check(values[index]!);
    if (found !== undefined) {
      return within(`${name}[${index}]`, found);
    }
  }
  return undefined;
}

/** Prefixes the path of a violation with the name of the field that holds the value. */
export function within(name: string, found: Violation | undefined): Violation | undefined {
  return found && { ...found, path: `${name}.${found.path}` };
}

function violation(path: string, value: string, { rule, remedy }: RuleText): Violation {
  return { path, value, rule, remedy };
}

/** Number, or any value in its place, in a few characters. */
function showValue(value: unknown): string {
  switch (typeof value) {
    case "string":
      return showText(value);
    case "number":
    case "bigint":
    case "boolean":
    case "undefined":
      return String(value);
    default:
      return value === null ? "null" : `a value of type ${typeof value}`;
  }
}

function showText(text: string): string {
  return text.length <= shownUnits
    ? JSON.stringify(text)
    : `${JSON.stringify(text.slice(0, shownUnits))}… (${Buffer.byteLength(text)} bytes)`;
}

/** Checks the length in UTF-8. A UTF-16 unit takes one to three bytes, so most texts need no measuring. */
function fits(text: string, minBytes: number, maxBytes: number): boolean {
  if (text.length >= minBytes && text.length * 3 <= maxBytes) {
    return true;
  }
  if (text.length > maxBytes || text.length * 3 < minBytes) {
    return false;
  }
  const bytes = Buffer.byteLength(text);
  return bytes >= minBytes && bytes <= maxBytes;
}

/** Range of numbers in words: "must be 1 to 10". Undefined without limits. */
export function rangeText(range: Range<number | bigint>): RuleText | undefined {
  const limits = between(range.min, range.max, "");
  return limits === undefined ? undefined : { rule: `must be ${limits}`, remedy: `Use a value of ${limits}.` };
}

/** Length in words: "must be 1 to 255 bytes long in UTF-8". Undefined without limits. */
export function bytesText(rules: Pick<TextRules, "minBytes" | "maxBytes">, kind: string): RuleText | undefined {
  const minBytes = rules.minBytes === 0 ? undefined : rules.minBytes;
  const limits = between(minBytes, rules.maxBytes, " bytes");
  const encoding = kind === "string" ? " in UTF-8" : "";
  return limits === undefined
    ? undefined
    : { rule: `must be ${limits} long${encoding}`, remedy: `Use ${limits}${encoding}.` };
}

/** Number of elements in words. */
export function itemsText(maxItems: number, minItems = 0): RuleText {
  if (minItems > 0) {
    const limits = `${between(minItems, maxItems, " elements")}`;
    return { rule: `must have ${limits}`, remedy: `Give ${limits}.` };
  }
  return {
    rule: `must have at most ${maxItems} elements`,
    remedy: `Split it into lists of at most ${maxItems} elements.`,
  };
}

/** Greatest length of a list, and of its elements, in words. */
export function listBytesText(rules: {
  readonly maxTotalBytes?: number;
  readonly maxItemBytes?: number;
}): RuleText | undefined {
  const limits = [
    ...(rules.maxItemBytes === undefined ? [] : [`at most ${rules.maxItemBytes} bytes in each element`]),
    ...(rules.maxTotalBytes === undefined ? [] : [`at most ${rules.maxTotalBytes} bytes in all`]),
  ].join(" and ");
  return limits === "" ? undefined : { rule: `must have ${limits}`, remedy: `Give ${limits}.` };
}

/** Limits of headers in words. */
export function headerTexts(rules: {
  readonly maxItems?: number;
  readonly maxNameBytes?: number;
  readonly maxValueBytes?: number;
}): RuleText | undefined {
  const limits = [
    ...(rules.maxItems === undefined ? [] : [`at most ${rules.maxItems} values`]),
    ...(rules.maxNameBytes === undefined ? [] : [`names of at most ${rules.maxNameBytes} bytes`]),
    ...(rules.maxValueBytes === undefined ? [] : [`values of at most ${rules.maxValueBytes} bytes`]),
  ].join(", ");
  return limits === "" ? undefined : { rule: `must have ${limits}`, remedy: `Give ${limits}.` };
}

/** Allowed values in words. */
export function valuesText(values: readonly string[]): RuleText {
  const list = values.map((value) => JSON.stringify(value)).join(", ");
  return { rule: `must be one of ${list}`, remedy: "Use one of these values." };
}

function between(min: bigint | number | undefined, max: bigint | number | undefined, unit: string): string | undefined {
  if (min === undefined && max === undefined) {
    return undefined;
  }
  if (min === undefined) {
    return `at most ${max}${unit}`;
  }
  if (max === undefined) {
    return `at least ${min}${unit}`;
  }
  return min === max ? `exactly ${min}${unit}` : `${min} to ${max}${unit}`;
}
