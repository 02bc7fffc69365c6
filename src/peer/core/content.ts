/** Payloads and headers of messages and answers. */
import type { Headers } from "../../channel/index.js";
import { HawserError } from "../../errors/index.js";

/**
 * Payload of a message. A string is encoded as UTF-8. An object other than `Uint8Array` is encoded as JSON, with the
 * header `content-type`.
 */
export type Payload = string | Uint8Array | object;

/** Payload type of a call: {@link Payload} without objects that JSON cannot represent. */
export type Sendable<Given> = Given extends string | Uint8Array
  ? Given
  : Given extends object
    ? Json<Given, { toJSON(): unknown }>
    : Payload;

/**
 * A type as JSON gives it back: {@link NotJson} is in place of the parts that JSON leaves out or changes, so that the
 * compiler refuses the values of these parts.
 *
 * @template Changed types that JSON may change
 */
export type Json<T, Changed = never> = unknown extends T
  ? T
  : T extends string | number | boolean | null | undefined | Changed
    ? T
    : T extends bigint | symbol | ((...values: never) => unknown) | { toJSON(): unknown }
      ? NotJson
      : keyof T extends never
        ? T
        : { [Key in keyof T]: Json<T[Key], Changed> };

type NotJson = "JSON cannot carry this";

/** Parsed JSON whose shape the caller knows, as in `Response` of fetch. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type AnyJson = any;

/** Received payload, also as text and JSON. */
export interface Content<Value = AnyJson> {
  /**
   * Uncompressed payload. It is a view of the received frame and keeps up to 256 KiB of that frame in memory; copy it
   * to keep it for long.
   */
  readonly payload: Uint8Array;
  /** Payload as text. Invalid UTF-8 sequences become U+FFFD. */
  text(): string;
  /**
   * Payload as parsed JSON.
   *
   * @throws HawserError `invalid_message` if the payload is not JSON; a handler that does not catch it makes the
   * message a dead letter at once
   */
  json<T = Exclude<Value, string | Uint8Array>>(): T;
}

/** Headers of a received message, as an iterable of names and values in their order. A name can occur several times. */
export interface MessageHeaders extends Iterable<[name: string, value: string]> {
  /** First value of a header, or undefined. The name is case-insensitive. */
  get(name: string): string | undefined;
  /** All values of a header. The name is case-insensitive. */
  getAll(name: string): string[];
}

/** {@link MessageHeaders} over immutable pairs. */
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

  /** Pairs of name and value, so that loggers print them. */
  toJSON(): Headers {
    return this.#pairs;
  }
}

/**
 * Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs such as {@link
 * MessageHeaders}.
 */
export type HeadersInput =
  | Readonly<Record<string, string | readonly string[]>>
  | Iterable<readonly [name: string, value: string]>;

/** Converts headers to pairs of name and value. @throws HawserError `invalid_argument` if they have another type */
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
