/** A value that breaks a rule of the spec. */
export interface Violation {
  /** Which value: `hello.senderName`, `batch.headers[3].headers[0].name`. */
  readonly path: string;
  /** The value, printable and short; of bytes only their number. */
  readonly value: string;
  /** The rule: "must be 1 to 255 bytes long in UTF-8". */
  readonly rule: string;
  /** What to do. */
  readonly remedy: string;
}

/** The rules of a text. */
export interface TextRules {
  readonly path: string;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** How `minBytes` and `maxBytes` are put in words. */
  readonly bytesRule?: string;
  readonly bytesRemedy?: string;
  readonly pattern?: RegExp;
  /** What the pattern means. */
  readonly means?: string;
  readonly values?: readonly string[];
}

/** How much of a text a violation shows, in UTF-16 units. */
const shownUnits = 60;

/** NUL, which no text in Postgres can hold, and halves of surrogate pairs, which have no UTF-8. */
const neverInText = /[\0\p{Cs}]/u;

/** Checks a text: a string of well-formed Unicode without NUL, its length in UTF-8, its pattern, its values. */
export function checkText(rules: TextRules, value: string): Violation | undefined {
  if (typeof value !== "string") {
    const remedy = value === undefined || value === null ? "It is missing: set it." : "Give a string.";
    return violation(rules.path, showValue(value), "must be a string", remedy);
  }
  if (!fits(value, rules.minBytes, rules.maxBytes)) {
    return violation(rules.path, showText(value), rules.bytesRule ?? "", rules.bytesRemedy ?? "");
  }
  if (neverInText.test(value)) {
    const rule = "must be well-formed Unicode without NUL";
    return violation(rules.path, showText(value), rule, "Remove NUL and halves of surrogate pairs.");
  }
  if (rules.values !== undefined && !rules.values.includes(value)) {
    const list = rules.values.map((one) => JSON.stringify(one)).join(", ");
    return violation(rules.path, showText(value), `must be one of ${list}`, "Use one of these values.");
  }
  if (rules.pattern !== undefined && !rules.pattern.test(value)) {
    return violation(rules.path, showText(value), rules.means ?? "", "Use only what the rule allows.");
  }
  return undefined;
}

/** Checks the length of bytes. */
export function checkBytes(rules: TextRules, value: Uint8Array): Violation | undefined {
  if (!(value instanceof Uint8Array)) {
    return violation(rules.path, showValue(value), "must be bytes (a Uint8Array)", "Give a Uint8Array or Buffer.");
  }
  return value.length >= rules.minBytes && value.length <= rules.maxBytes
    ? undefined
    : violation(rules.path, `${value.length} bytes`, rules.bytesRule ?? "", rules.bytesRemedy ?? "");
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

/** The violation as seen from the message that holds the value under `name`. */
export function within(name: string, found: Violation | undefined): Violation | undefined {
  return found && { ...found, path: `${name}.${found.path}` };
}

export function violation(path: string, value: string, rule: string, remedy: string): Violation {
  return { path, value, rule, remedy };
}

/** A number, or whatever was given in its place, in a few characters. */
export function showValue(value: unknown): string {
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

/** A UTF-16 unit takes one to three bytes in UTF-8, so that most texts need not be measured. */
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
