/** Bytes and headers of what was received: a message for a handler, or the answer to a request. */
import type { Headers } from "../channel/index.js";
import { HawserError } from "../errors/index.js";

/** Received bytes, also as text and as JSON. */
export interface Content {
  /**
   * The payload, uncompressed. A view into its frame: it keeps the other messages of the frame (some 256 KiB at most) alive,
   * so copy what is kept for long.
   */
  readonly payload: Uint8Array;
  /** The payload as text. Bytes that are no UTF-8 become U+FFFD. */
  text(): string;
  /**
   * The payload as JSON.
   *
   * @throws HawserError `invalid_message` if it is none: a handler that does not catch it makes the message a dead letter at
   * once
   */
  // biome-ignore lint/suspicious/noExplicitAny: as in `Response` of fetch, the caller knows the shape.
  json<T = any>(): T;
}

/** Headers of a received message: names with values, in order. Names may repeat. */
export interface MessageHeaders extends Iterable<[name: string, value: string]> {
  /** The first value of a header, whose name may be in upper or lower case; undefined if there is none. */
  get(name: string): string | undefined;
  /** All values of a header. */
  getAll(name: string): string[];
}

/** {@link MessageHeaders} over pairs that never change. */
export class ReceivedHeaders implements MessageHeaders {
  readonly #pairs: Headers;

  constructor(pairs: Headers) {
    this.#pairs = pairs;
  }

  get(name: string): string | undefined {
    return this.getAll(name)[0];
  }

  getAll(name: string): string[] {
    const wanted = name.toLowerCase();
    return this.#pairs.filter(([each]) => each.toLowerCase() === wanted).map(([, value]) => value);
  }

  *[Symbol.iterator](): Iterator<[string, string]> {
    for (const [name, value] of this.#pairs) yield [name, value];
  }

  /** Pairs, so that a log shows them. */
  toJSON(): Headers {
    return this.#pairs;
  }
}

/** Names with values, or lists of values; or pairs of name and value, such as {@link MessageHeaders}. */
export type HeadersInput =
  | Readonly<Record<string, string | readonly string[]>>
  | Iterable<readonly [name: string, value: string]>;

/** Headers as pairs of name and value. @throws HawserError `invalid_argument` unless they are names and values */
export function headerPairsOf(headers: HeadersInput | undefined): Headers {
  if (headers === undefined) return [];
  const isObject = typeof headers === "object" && headers !== null;
  const isIterable = isObject && Symbol.iterator in headers;
  const pairs: unknown[] = isIterable
    ? [...headers]
    : Object.entries(isObject ? headers : {}).flatMap(([name, value]) =>
        (Array.isArray(value) ? value : [value]).map((one: unknown) => [name, one]),
      );
  const isPair = (pair: unknown) =>
    Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && typeof pair[1] === "string";
  if (isObject && pairs.every(isPair)) return pairs as unknown as Headers;
  throw new HawserError(
    "invalid_argument",
    "headers: must be an object of strings, or of arrays of strings, or a list of [name, value]",
  );
}
