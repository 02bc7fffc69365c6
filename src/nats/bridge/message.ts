/**
 * Messages from NATS that SQL functions handle.
 */

import { traceConstants } from "../../../generated/ts/settings/queue.js";
import { type TraceContext, traceContextIn } from "../../foundation/runtime/index.js";

/** A received message. Immutable. */
export interface InboundMessage {
  /** Unique across processes; stays the same when a message is run again. */
  readonly id: string;
  readonly subject: string;
  /** Copy of the received bytes. A view would keep everything in memory that was read from the socket with them. */
  readonly payload: Uint8Array;
  /** JSON object that maps names to lists of values, as text; undefined if the message has no headers. */
  readonly headers: string | undefined;
  /** Reason why some headers could not be read; undefined if all could. */
  readonly headersProblem?: string | undefined;
  /** Receive time (`performance.now()`, ms). */
  readonly receivedAt: number;
  /**
   * Lower bound of the time at which the NATS server received the message. Earlier than `receivedAt` if this process
   * was suspended. Default: `receivedAt`.
   */
  readonly notBefore?: number | undefined;
  /** Stream position; undefined unless the message is from a stream. */
  readonly place?: StreamPlace;
}

/** Trace that the headers of a message name; undefined if they name none. */
export function traceOf({ headers }: Pick<InboundMessage, "headers">): TraceContext | undefined {
  if (headers === undefined || !mayNameTrace.test(headers)) return undefined;
  return traceContextIn(JSON.parse(headers));
}

/** Headers as pairs of a name and a value, from lists of values. */
export function* pairsOf(headers: Iterable<readonly [string, readonly string[]]>): Generator<[string, string]> {
  for (const [name, values] of headers) for (const value of values) yield [name, value];
}

/** Most messages have no such header, so their headers need not be parsed. */
const mayNameTrace = new RegExp(`"${traceConstants.parentHeader}"`, "i");

/** Stream position of a message, which is stored in the transaction that handles it. */
export interface StreamPlace {
  readonly number: number;
  /**
   * Ranges of sequence numbers that become done with this message: its own number, and numbers before it that the
   * consumer did not deliver.
   */
  readonly covers: readonly (readonly [first: number, last: number])[];
  /** Count of the numbers in `covers` whose messages the stream has removed. */
  readonly missing: number;
  /** Time at which the stream stored the message, in nanoseconds since 1970. */
  readonly at: bigint;
  /** Result of {@link memoryOf} for the message. */
  readonly bytes: number;
}

/** Bytes that a message counts against memory limits. */
export function memoryOf({
  subject,
  payload,
  headers,
}: Pick<InboundMessage, "subject" | "payload" | "headers">): number {
  return payload.length + 2 * (subject.length + (headers?.length ?? 0)) + overheadBytes;
}

/** Estimated memory of the objects around payload and subject. */
export const overheadBytes = 256;

/** The earlier of two times; undefined if both are. */
export function earliest(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}

/** Size of a shared block: the most memory that a single kept payload can hold beyond its counted bytes. */
const blockBytes = 16 * 1024;

/** Limit of payloads in shared blocks; larger ones would leave much of a block empty. */
const largestInBlock = blockBytes / 4;

/**
 * Copies the payloads of one subscribed subject, or of one stream, into blocks of memory.
 *
 * The payload from a connection is a view of everything that was read from the socket at once, for many subscriptions.
 * A few bytes that a slow subscription keeps would retain all of that. Messages of one subject are finished in order,
 * so a block that they share is released soon after its last message.
 */
export class PayloadCopies {
  #block: ArrayBufferLike | undefined;
  #used = 0;

  /** Immutable copy of a payload. */
  of(payload: Uint8Array): Uint8Array {
    const { length } = payload;
    // `Buffer.prototype.slice` would return a view.
    if (length > largestInBlock) return Uint8Array.prototype.slice.call(payload);
    if (this.#block === undefined || this.#used + length > blockBytes) {
      this.#block = Buffer.allocUnsafeSlow(blockBytes).buffer;
      this.#used = 0;
    }
    const copy = new Uint8Array(this.#block, this.#used, length);
    copy.set(payload);
    this.#used += length;
    return copy;
  }
}
