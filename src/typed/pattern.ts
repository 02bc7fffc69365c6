/**
 * The regular expressions a rule may use: those that JavaScript (with the `u` flag) and Postgres read alike.
 *
 *     pattern    = "^" sequence "$"
 *     sequence   = { atom [ quantifier ] }
 *     atom       = literal | escape | class | "(" [ "?:" ] sequence { "|" sequence } ")"
 *     class      = "[" [ "^" ] { member | member "-" member } "]"
 *     escape     = "\uXXXX" (neither NUL nor half a surrogate pair) | "\" and one of ^$\.*+?()[]{}|/
 *     quantifier = "*" | "+" | "?" | "{n}" | "{n,}" | "{n,m}" with n and m up to 255
 *
 * Left out because the two differ: `.` (newlines), `\d \w \s \b` (locale), lookaround, back references and lazy
 * quantifiers; and `|` outside a group, where the anchors would bind to one branch only.
 */
const syntaxCharacters = "^$\\.*+?()[]{}|/";
const maxRepeat = 255;

/** What keeps `pattern` from meaning the same in JavaScript and Postgres; undefined if nothing does. */
export function patternProblem(pattern: string): string | undefined {
  if (!pattern.startsWith("^") || !pattern.endsWith("$") || pattern.length < 2) {
    return "must begin with ^ and end with $, so that it stands for the whole string";
  }
  const problem = new PatternReader(pattern.slice(1, -1)).read();
  if (problem !== undefined) {
    return problem;
  }
  try {
    new RegExp(pattern, "u");
  } catch (error) {
    return `is not a regular expression: ${(error as Error).message}`;
  }
  return undefined;
}

class PatternReader {
  #at = 0;

  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  read(): string | undefined {
    const problem = this.#sequence();
    if (problem !== undefined) {
      return problem;
    }
    return this.#at < this.#text.length ? this.#unexpected() : undefined;
  }

  /** Reads up to the end, a `|` or a `)`. */
  #sequence(): string | undefined {
    while (this.#at < this.#text.length && this.#text[this.#at] !== "|" && this.#text[this.#at] !== ")") {
      const problem = this.#atom() ?? this.#quantifier();
      if (problem !== undefined) {
        return problem;
      }
    }
    return undefined;
  }

  #atom(): string | undefined {
    const character = this.#text[this.#at]!;
    if (character === "\\") {
      return this.#escape(syntaxCharacters);
    }
    if (character === "[") {
      return this.#characterClass();
    }
    if (character === "(") {
      return this.#group();
    }
    if (syntaxCharacters.includes(character) && character !== "/") {
      return this.#unexpected();
    }
    this.#at += 1;
    return undefined;
  }

  #group(): string | undefined {
    this.#at += this.#text.startsWith("(?:", this.#at) ? 3 : 1;
    for (;;) {
      const problem = this.#sequence();
      if (problem !== undefined) {
        return problem;
      }
      const end = this.#text[this.#at];
      if (end === undefined) {
        return "has a group that is not closed";
      }
      this.#at += 1;
      if (end === ")") {
        return undefined;
      }
    }
  }

  #characterClass(): string | undefined {
    this.#at += this.#text.startsWith("[^", this.#at) ? 2 : 1;
    const first = this.#at;
    while (this.#text[this.#at] !== "]") {
      const character = this.#text[this.#at];
      if (character === undefined) {
        return "has a character class that is not closed";
      }
      if (character === "[") {
        return this.#unexpected();
      }
      if (character === "\\") {
        const problem = this.#escape(`${syntaxCharacters}-`);
        if (problem !== undefined) {
          return problem;
        }
      } else {
        this.#at += 1;
      }
    }
    if (this.#at === first) {
      return "has an empty character class";
    }
    this.#at += 1;
    return undefined;
  }

  #escape(allowed: string): string | undefined {
    const code = /^\\u([0-9a-fA-F]{4})/.exec(this.#text.slice(this.#at))?.[1];
    if (code !== undefined) {
      const value = Number.parseInt(code, 16);
      if (value === 0 || (value >= 0xd800 && value <= 0xdfff)) {
        return `has \\u${code}, which no text in Postgres can hold`;
      }
      this.#at += 6;
      return undefined;
    }
    const character = this.#text[this.#at + 1];
    if (character === undefined || !allowed.includes(character)) {
      return this.#unexpected(2);
    }
    this.#at += 2;
    return undefined;
  }

  #quantifier(): string | undefined {
    const found = /^(?:[*+?]|\{([0-9]+)(?:,([0-9]*))?\})/.exec(this.#text.slice(this.#at));
    if (found === null) {
      return undefined;
    }
    if ([found[1], found[2]].some((count) => Number(count ?? 0) > maxRepeat)) {
      return `repeats more than ${maxRepeat} times, which Postgres does not take`;
    }
    this.#at += found[0].length;
    return undefined;
  }

  #unexpected(length = 1): string {
    const piece = this.#text.slice(this.#at, this.#at + length);
    return `has "${piece}" where JavaScript and Postgres may differ; use only classes, \\uXXXX, groups and quantifiers`;
  }
}
