/**
 * Regular expressions that a rule may use. JavaScript (with the `u` flag) and Postgres interpret them alike.
 *
 * pattern    = "^" sequence "$"
 * sequence   = { atom [ quantifier ] }
 * atom       = literal | escape | class | "(" [ "?:" ] sequence { "|" sequence } ")"
 * class      = "[" [ "^" ] { member | member "-" member } "]"
 * escape     = "\uXXXX" (neither NUL nor half a surrogate pair) | "\" and one of ^$\.*+?()[]{}|/
 * quantifier = "*" | "+" | "?" | "{n}" | "{n,}" | "{n,m}" with n and m up to 255
 *
 * JavaScript and Postgres differ in `.` (newlines), `\d \w \s \b` (locale), lookaround, back references and lazy
 * quantifiers, so these are excluded. So is `|` outside a group, where an anchor would bind to one branch only.
 *
 * The time of a match is proportional to the length of the text: pattern-ways.ts refuses patterns
 * that match a text in too many ways, such as `^(?:a+)+$`.
 */
import { type Characters, lastCodePoint, type PatternNode, waysProblem } from "./pattern-ways.js";

const syntaxCharacters = "^$\\.*+?()[]{}|/";
const maxRepeat = 255;

/**
 * Reason why `pattern` could differ in JavaScript and Postgres, or could take long to match; undefined if there is
 * none.
 */
export function patternProblem(pattern: string): string | undefined {
  if (!pattern.startsWith("^") || !pattern.endsWith("$") || pattern.length < 2) {
    return "must begin with ^ and end with $, so that it matches the whole string";
  }
  const read = new PatternReader(pattern.slice(1, -1)).read();
  if (typeof read === "string") return read;
  try {
    new RegExp(pattern, "u");
  } catch (error) {
    return `is not a regular expression: ${(error as Error).message}`;
  }
  return waysProblem(read);
}

/** Error whose message is the problem of the pattern. */
class Problem extends Error {}

class PatternReader {
  #at = 0;

  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** Returns the pattern as a tree, or its problem. */
  read(): PatternNode | string {
    try {
      const node = this.#sequence();
      if (this.#at < this.#text.length) throw this.#unexpected();
      return node;
    } catch (error) {
      if (error instanceof Problem) return error.message;
      throw error;
    }
  }

  /** Reads up to the end, a `|` or a `)`. */
  #sequence(): PatternNode {
    const parts: PatternNode[] = [];
    while (this.#at < this.#text.length && this.#text[this.#at] !== "|" && this.#text[this.#at] !== ")") {
      parts.push(this.#quantified(this.#atom()));
    }
    return { kind: "sequence", parts };
  }

  #atom(): PatternNode {
    const character = this.#text[this.#at]!;
    if (character === "[") return this.#characterClass();
    if (character === "(") return this.#group();
    if (character !== "\\" && syntaxCharacters.includes(character) && character !== "/") throw this.#unexpected();
    const code = this.#character(syntaxCharacters);
    return { kind: "characters", characters: [[code, code]] };
  }

  #group(): PatternNode {
    this.#at += this.#text.startsWith("(?:", this.#at) ? 3 : 1;
    const branches: PatternNode[] = [];
    for (;;) {
      branches.push(this.#sequence());
      const end = this.#text[this.#at];
      if (end === undefined) throw new Problem("has a group that is not closed");
      this.#at += 1;
      if (end === ")") return branches.length === 1 ? branches[0]! : { kind: "choice", branches };
    }
  }

  #characterClass(): PatternNode {
    const isNegated = this.#text.startsWith("[^", this.#at);
    this.#at += isNegated ? 2 : 1;
    const members: (readonly [from: number, to: number])[] = [];
    while (this.#text[this.#at] !== "]") {
      const from = this.#member();
      const isRange = this.#text[this.#at] === "-" && this.#text[this.#at + 1] !== "]";
      if (isRange) this.#at += 1;
      members.push([from, isRange ? this.#member() : from]);
    }
    if (members.length === 0) throw new Problem("has an empty character class");
    this.#at += 1;
    return { kind: "characters", characters: isNegated ? others(members) : members };
  }

  #member(): number {
    const character = this.#text[this.#at];
    if (character === undefined) throw new Problem("has a character class that is not closed");
    if (character === "[") throw this.#unexpected();
    return this.#character(`${syntaxCharacters}-`);
  }

  /** Reads a character, plain or escaped. @param allowed characters that may follow a backslash */
  #character(allowed: string): number {
    if (this.#text[this.#at] !== "\\") {
      const code = this.#text.codePointAt(this.#at)!;
      this.#at += code > 0xffff ? 2 : 1;
      return code;
    }
    const hex = /^\\u([0-9a-fA-F]{4})/.exec(this.#text.slice(this.#at, this.#at + 6))?.[1];
    if (hex !== undefined) {
      const value = Number.parseInt(hex, 16);
      if (value === 0 || (value >= 0xd800 && value <= 0xdfff)) {
        throw new Problem(`has \\u${hex}, which Postgres cannot store in a text`);
      }
      this.#at += 6;
      return value;
    }
    const character = this.#text[this.#at + 1];
    if (character === undefined || !allowed.includes(character)) throw this.#unexpected(2);
    this.#at += 2;
    return character.charCodeAt(0);
  }

  /** Applies the quantifier that follows a part. */
  #quantified(body: PatternNode): PatternNode {
    const found = /^(?:[*+?]|\{([0-9]+)(,([0-9]*))?\})/.exec(this.#text.slice(this.#at));
    if (found === null) return body;
    const [text, least, comma, most] = found;
    if ([least, most].some((count) => Number(count ?? 0) > maxRepeat)) {
      throw new Problem(`repeats more than ${maxRepeat} times, the limit of Postgres`);
    }
    this.#at += text.length;
    if (least === undefined) {
      return { kind: "repeat", body, min: text === "+" ? 1 : 0, max: text === "?" ? 1 : Number.POSITIVE_INFINITY };
    }
    const min = Number(least);
    const max = comma === undefined ? min : most === "" ? Number.POSITIVE_INFINITY : Number(most);
    return { kind: "repeat", body, min, max };
  }

  #unexpected(length = 1): Problem {
    const piece = this.#text.slice(this.#at, this.#at + length);
    return new Problem(
      `has "${piece}" where JavaScript and Postgres may differ; use only classes, \\uXXXX, groups and quantifiers`,
    );
  }
}

/** Complement of a set of characters. */
function others(characters: Characters): Characters {
  const rest: [number, number][] = [];
  let next = 0;
  for (const [from, to] of [...characters].sort(([one], [other]) => one - other)) {
    if (from > next) rest.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  if (next <= lastCodePoint) rest.push([next, lastCodePoint]);
  return rest;
}
