/**
 * A message of NATS on its way to SQL functions.
 */

/** As it was received. Never changed. */
export interface InboundMessage {
  /** Known to no other process: what this one does again with the message, it does under the same id. */
  readonly id: string;
  readonly subject: string;
  /** A copy of its own: the connection's buffers are used again. */
  readonly payload: Uint8Array;
  /** A JSON object of lists of strings, as text; undefined: the message has none. */
  readonly headers: string | undefined;
  /** Why there may be more headers than these; undefined: all could be read. */
  readonly headersProblem?: string | undefined;
  /** When it was received, by `performance.now()`. */
  readonly receivedAt: number;
  /** It came to the NATS server after this: the process stood still, and received it late. Default: `receivedAt`. */
  readonly notBefore?: number | undefined;
}

/** What a message counts for where memory is limited, in bytes. */
export function memoryOf({ subject, payload, headers }: InboundMessage): number {
  return payload.length + 2 * (subject.length + (headers?.length ?? 0)) + overheadBytes;
}

/** The objects around payload and subject. */
export const overheadBytes = 256;

/** The earlier of two moments, as far as there are any. */
export function earliest(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}

/** What is kept at the most beyond what is accounted for. */
const blockBytes = 16 * 1024;

/** With larger ones much of a block would stay empty. */
const largestInBlock = blockBytes / 4;

/**
 * Copies of payloads, in blocks of memory that hold nothing else.
 *
 * What a connection hands out is a part of what it has read at once, from many subscriptions: kept for one that is slow, a
 * few bytes would keep all of that. Copies for the messages of one subject, which are done in their order, go together.
 *
 * One for each subject that is subscribed.
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
