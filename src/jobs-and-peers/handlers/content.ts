/** Payloads and headers of received messages and answers. */
import type { Headers } from "../channel/index.js";
import type { AnyJson } from "../queue/enqueue/index.js";

/** Received payload, also as text and JSON. */
export interface Content<Value = AnyJson> {
  /**
   * Uncompressed payload. It is a view of the received frame and keeps up to 256 KiB of that frame in memory; copy it
   * to keep it for long.
   */
  readonly payload: Uint8Array;
  /** Payload as text. Invalid UTF-8 sequences become U+FFFD. */
  text(this: Content<Value>): string;
  /**
   * Payload as parsed JSON.
   *
   * @throws HawserError `invalid_message` if the payload is not JSON; a handler that does not catch it makes the
   * message a dead letter at once
   */
  json<T = Exclude<Value, string | Uint8Array>>(this: Content<Value>): T;
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
