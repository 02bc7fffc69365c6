/**
 * Mistake in a JSON schema of the spec. buf prints the message and exits with a status other than zero.
 *
 * The message is `<file>: <element>: <problem>`, with the element as a JSON pointer:
 * `schema/nats-server-options.schema.json: #/properties/port/default: 0 is below the minimum, 1`.
 */
export class SchemaError extends Error {
  override readonly name = "SchemaError";

  constructor(file: string, pointer: string, problem: string) {
    super(`${file}: #${pointer}: ${problem}`);
  }
}

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/**
 * Object of the schema with its position, read key by key. A missing, mistyped or unknown key is refused by name: a
 * keyword that the generator does not read would be a rule that is never enforced.
 */
export class SchemaNode {
  readonly file: string;
  readonly pointer: string;
  readonly json: JsonObject;

  constructor(file: string, pointer: string, json: JsonObject) {
    this.file = file;
    this.pointer = pointer;
    this.json = json;
  }

  /** Creates a node. @throws SchemaError unless the value is an object */
  static of(file: string, pointer: string, value: Json | undefined): SchemaNode {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new SchemaError(file, pointer, value === undefined ? "is missing" : "is not an object");
    }
    return new SchemaNode(file, pointer, value as JsonObject);
  }

  /** Error for this object, or for its value under `key`. */
  error(problem: string, key?: string | number): SchemaError {
    return new SchemaError(this.file, key === undefined ? this.pointer : this.#pointerOf(key), problem);
  }

  has(key: string): boolean {
    return Object.hasOwn(this.json, key);
  }

  get(key: string): Json | undefined {
    return this.has(key) ? this.json[key] : undefined;
  }

  keys(): string[] {
    return Object.keys(this.json);
  }

  /** @throws SchemaError at the first key that is not in `known` */
  closed(known: readonly string[]): this {
    const unknownKey = this.keys().find((key) => !known.includes(key));
    if (unknownKey !== undefined) {
      throw this.error(`is unknown here; use one of ${known.join(", ")}`, unknownKey);
    }
    return this;
  }

  /** Copy of the object without some of its keys. */
  without(keys: readonly string[]): SchemaNode {
    const rest = Object.entries(this.json).filter(([key]) => !keys.includes(key));
    return new SchemaNode(this.file, this.pointer, Object.fromEntries(rest));
  }

  child(key: string): SchemaNode {
    return SchemaNode.of(this.file, this.#pointerOf(key), this.get(key));
  }

  /** Children under `key`, an array of objects; empty if the key is missing. */
  children(key: string): SchemaNode[] {
    return this.#array(key).map((value, index) => SchemaNode.of(this.file, `${this.#pointerOf(key)}/${index}`, value));
  }

  /** Reads a text for people: required, not empty, one line, and safe in any comment. */
  text(key: string): string {
    const value = this.get(key);
    if (typeof value !== "string" || value.trim() === "") {
      throw this.error(value === undefined ? "is missing" : "is not a text", key);
    }
    if (/[\p{Cc}\p{Cs}]|\*\/|-->|\$hawser\$/u.test(value)) {
      throw this.error("contains a control character, or */, --> or $hawser$, which would end a comment or quote", key);
    }
    return value;
  }

  flag(key: string): boolean {
    const value = this.get(key) ?? false;
    if (typeof value !== "boolean") {
      throw this.error("is neither true nor false", key);
    }
    return value;
  }

  /** Reads an integer that JavaScript represents exactly; undefined if the key is missing. */
  integer(key: string): number | undefined {
    const value = this.get(key);
    if (value !== undefined && !Number.isSafeInteger(value)) {
      throw this.error("is not an integer that JavaScript represents exactly", key);
    }
    return value as number | undefined;
  }

  /** Reads a list of distinct strings out of `known`; empty if the key is missing. */
  names(key: string, known: ReadonlySet<string>): string[] {
    const values = this.#array(key);
    for (const [index, value] of values.entries()) {
      if (typeof value !== "string" || !known.has(value)) {
        throw this.error(`names the unknown option ${JSON.stringify(value)}`, key);
      }
      if (values.indexOf(value) !== index) {
        throw this.error(`names ${value} twice`, key);
      }
    }
    return values as string[];
  }

  #array(key: string): readonly Json[] {
    const value = this.get(key) ?? [];
    if (!Array.isArray(value)) {
      throw this.error("is not an array", key);
    }
    return value;
  }

  #pointerOf(key: string | number): string {
    return `${this.pointer}/${escapePointer(String(key))}`;
  }
}

/** Key that occurs twice in one JSON object. */
export interface DuplicateKey {
  /** JSON pointer of the key, such as `/properties/port`. */
  readonly pointer: string;
  /** Line of its second occurrence, from 1. */
  readonly line: number;
}

/**
 * Finds the first key that occurs twice in one object. `JSON.parse` silently keeps the last occurrence, so the first
 * definition of an option written twice would be lost.
 *
 * @param text valid JSON: parse it first, so that the parser reports syntax errors
 */
export function findDuplicateKey(text: string): DuplicateKey | undefined {
  return new KeyScanner(text).value("");
}

/** Patterns for one piece of JSON at `lastIndex`, after white space. */
const stringPiece = /\s*("(?:[^"\\]|\\.)*")/y;
const scalarPiece = /\s*(?:"(?:[^"\\]|\\.)*"|[^\s,\]}]+)/y;
const markPiece = /\s*([[\]{},:])/y;

class KeyScanner {
  #at = 0;

  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** Reads one value, whose pointer is `pointer`. */
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

  /** Consumes `mark` if it comes next. */
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

/** Key as one step of a JSON pointer (RFC 6901). */
function escapePointer(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}
