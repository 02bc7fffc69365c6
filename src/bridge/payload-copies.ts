/**
 * Copies of payloads, in blocks of memory that hold nothing else.
 *
 * What a connection hands out is a part of what it has read at once, from many subscriptions: kept for one that is slow, a
 * few bytes would keep all of that. Copies for the messages of one subject, which are done in their order, go together.
 */

/** What is kept at the most beyond what is accounted for. */
const blockBytes = 16 * 1024;

/** With larger ones much of a block would stay empty. */
const largestInBlock = blockBytes / 4;

/** See above. One for each subject that is subscribed. */
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
