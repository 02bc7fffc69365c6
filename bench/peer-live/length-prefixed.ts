/** The u32 big-endian length before each message of the baseline `tcp`. */
export const lengthBytes = 4;

/**
 * Takes messages out of chunks that begin and end anywhere, as views where a message lies within its chunk. A length of 0
 * stands for the end of a run.
 */
export class LengthPrefixedReader {
  /** A message that began in an earlier chunk, and how much of it has come. */
  #message: Uint8Array | undefined;
  #filled = 0;
  /** A length that began in an earlier chunk. */
  readonly #head = new Uint8Array(lengthBytes);
  #headFilled = 0;

  readonly #onMessage: (message: Uint8Array) => void;
  readonly #onEnd: () => void;

  constructor(onMessage: (message: Uint8Array) => void, onEnd: () => void) {
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
  }

  read(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#message !== undefined) {
        at = this.#fill(this.#message, chunk, at);
      } else if (this.#headFilled > 0 || chunk.length - at < lengthBytes) {
        this.#head[this.#headFilled++] = chunk[at++]!;
        if (this.#headFilled < lengthBytes) continue;
        this.#headFilled = 0;
        at = this.#begin(lengthAt(this.#head, 0), chunk, at);
      } else {
        at = this.#begin(lengthAt(chunk, at), chunk, at + lengthBytes);
      }
    }
  }

  /** @returns where the next message begins, or the end of the chunk */
  #begin(length: number, chunk: Uint8Array, at: number): number {
    const end = at + length;
    if (length === 0) {
      this.#onEnd();
    } else if (end <= chunk.length) {
      this.#onMessage(chunk.subarray(at, end));
    } else {
      // Every byte of it is written before it is read.
      this.#message = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
      this.#filled = 0;
      return this.#fill(this.#message, chunk, at);
    }
    return end;
  }

  #fill(message: Uint8Array, chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + message.length - this.#filled);
    message.set(chunk.subarray(at, end), this.#filled);
    this.#filled += end - at;
    if (this.#filled === message.length) {
      this.#message = undefined;
      this.#onMessage(message);
    }
    return end;
  }
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
