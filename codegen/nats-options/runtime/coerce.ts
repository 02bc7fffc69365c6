/** The type of an option. */
export type OptionType = "string" | "integer" | "boolean";

/** How option strings are read. */
export interface Grammar {
  /** A whole number: sign, and digits without leading zeros. */
  readonly integer: RegExp;
  /** What means true, and what means false. */
  readonly true: RegExp;
  readonly false: RegExp;
  /** Numbers beyond ± this one count as ± this one. */
  readonly farNumber: number;
  /** With more digits than this a number counts as far. */
  readonly maxDigits: number;
}

const halfSurrogatePair = /\p{Surrogate}/u;

/**
 * The value of an option in its own type, whether it came as the string of a foreign server option or already typed,
 * as in JSON. Null if it is neither.
 */
export function coerceOption(type: OptionType, value: unknown, grammar: Grammar): string | number | boolean | null {
  switch (type) {
    case "string":
      return typeof value === "string" && isStorable(value) ? value : null;
    case "integer":
      return coerceInteger(value, grammar);
    case "boolean":
      return coerceBoolean(value, grammar);
  }
}

/** Postgres can hold neither NUL nor half a surrogate pair in a text. */
function isStorable(text: string): boolean {
  return !text.includes("\0") && !halfSurrogatePair.test(text);
}

function coerceInteger(value: unknown, grammar: Grammar): number | null {
  const number = typeof value === "string" ? parseInteger(value, grammar) : value;
  // Infinity is how JSON.parse reads a number that is too great for it, such as 1e400.
  if (typeof number !== "number" || !(Number.isInteger(number) || Math.abs(number) === Number.POSITIVE_INFINITY)) {
    return null;
  }
  // Adding 0 makes 0 of -0.
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
