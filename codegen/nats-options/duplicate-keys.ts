/** A key that stands twice in one JSON object. */
export interface DuplicateKey {
  /** JSON pointer of the key, such as `/properties/port`. */
  readonly pointer: string;
  /** The line of its second appearance, from 1. */
  readonly line: number;
}

/**
 * Finds the first key that stands twice in one object. `JSON.parse` keeps the last one without a word, so that an
 * option written twice would lose its first half.
 *
 * @param text valid JSON: parse it first, so that its syntax errors are named by the parser.
 */
export function findDuplicateKey(text: string): DuplicateKey | undefined {
  return new KeyScanner(text).value("");
}

/** One piece of JSON from `lastIndex` on, white space before it left out. */
const stringPiece = /\s*("(?:[^"\\]|\\.)*")/y;
const scalarPiece = /\s*(?:"(?:[^"\\]|\\.)*"|[^\s,\]}]+)/y;
const markPiece = /\s*([[\]{},:])/y;

class KeyScanner {
  #at = 0;

  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** Reads one value; the pointer is its own. */
  value(pointer: string): DuplicateKey | undefined {
    if (this.#take("{")) {
      return this.#members(pointer);
    }
    if (this.#take("[")) {
      return this.#elements(pointer);
    }
    this.#read(scalarPiece);
    return undefined;
  }

  #members(pointer: string): DuplicateKey | undefined {
    const seen = new Set<string>();
    while (!this.#take("}")) {
      const key = JSON.parse(this.#read(stringPiece)) as string;
      const own = `${pointer}/${escapePointer(key)}`;
      if (seen.has(key)) {
        return { pointer: own, line: this.#text.slice(0, this.#at).split("\n").length };
      }
      seen.add(key);
      this.#take(":");
      const found = this.value(own);
      if (found !== undefined) {
        return found;
      }
      this.#take(",");
    }
    return undefined;
  }

  #elements(pointer: string): DuplicateKey | undefined {
    for (let index = 0; !this.#take("]"); index += 1) {
      const found = this.value(`${pointer}/${index}`);
      if (found !== undefined) {
        return found;
      }
      this.#take(",");
    }
    return undefined;
  }

  /** Moves behind `mark` if it comes next. */
  #take(mark: string): boolean {
    markPiece.lastIndex = this.#at;
    if (markPiece.exec(this.#text)?.[1] !== mark) {
      return false;
    }
    this.#at = markPiece.lastIndex;
    return true;
  }

  #read(piece: RegExp): string {
    piece.lastIndex = this.#at;
    const found = piece.exec(this.#text);
    if (found === null) {
      throw new Error(`not JSON at offset ${this.#at}`);
    }
    this.#at = piece.lastIndex;
    return found[1] ?? found[0];
  }
}

/** A key as one step of a JSON pointer (RFC 6901). */
export function escapePointer(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}
