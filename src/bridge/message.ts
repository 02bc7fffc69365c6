/**
 * A message of NATS on its way to SQL functions.
 */

/** As it was received. Never changed. */
export interface InboundMessage {
  /** Unique to this process, and the same whenever it runs the message again. */
  readonly id: string;
  readonly subject: string;
  /** A copy: the connection uses its buffers again. */
  readonly payload: Uint8Array;
  /** A JSON object of lists of strings, as text; undefined: the message has none. */
  readonly headers: string | undefined;
  /** Why some headers could not be read; undefined: all could. */
  readonly headersProblem?: string | undefined;
  /** When it was received, by `performance.now()`. */
  readonly receivedAt: number;
  /** The NATS server got it after this: earlier than `receivedAt` if the process stood still. Default: `receivedAt`. */
  readonly notBefore?: number | undefined;
  /** Of a message of a stream: where it is in that. */
  readonly place?: StreamPlace;
  /** Of a dead letter that is to be tried again: its id in `dead_letters`. */
  readonly deadLetterId?: bigint | undefined;
}

/** What is written in the transaction of a stream's message. */
export interface StreamPlace {
  readonly number: number;
  /** The numbers that are done when it is: its own, and those in front of it that the stream does not have. */
  readonly covers: readonly (readonly [first: number, last: number])[];
  /** How many of them were messages that are gone. */
  readonly missing: number;
  /** When the stream stored it, in nanoseconds since 1970. */
  readonly at: bigint;
  /** {@link memoryOf} the message. */
  readonly bytes: number;
}

/** What a message counts for where memory is limited, in bytes. */
export function memoryOf({
  subject,
  payload,
  headers,
}: Pick<InboundMessage, "subject" | "payload" | "headers">): number {
  return payload.length + 2 * (subject.length + (headers?.length ?? 0)) + overheadBytes;
}

/** The objects around payload and subject. */
export const overheadBytes = 256;

/** The earlier of two moments; the other one if one is undefined. */
export function earliest(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}

/** At most so much memory is kept beyond what is counted. */
const blockBytes = 16 * 1024;

/** With larger ones much of a block would stay empty. */
const largestInBlock = blockBytes / 4;

/**
 * Copies of payloads, in blocks of memory that hold nothing else.
 *
 * What a connection hands out is a view of all that it has read at once, for many subscriptions: a few bytes kept for a slow
 * one would keep all of that. Messages of one subject are done in order, so their copies share blocks: there is one
 * `PayloadCopies` for each subscribed subject.
 */
export class PayloadCopies {
  #block: ArrayBufferLike | undefined;
  #used = 0;

  /** A copy, which never changes. */
  of(payload: Uint8Array): Uint8Array {
    const { length } = payload;
    // `slice` of a Buffer would be no copy.
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
