/**
 * Received bytes that are not decoded yet. Memory is proportional to the received bytes, not to declared lengths. A
 * single chunk is kept by reference; further chunks are appended to a block, so that a sender of single bytes cannot
 * make each byte cost a chunk.
 */
import { uncleared } from "../../../foundation/runtime/index.js";

const nothing = new Uint8Array(0);

/** FIFO queue of bytes. Uses no `Buffer`s, because views of a Buffer are Buffers and cost more. */
export class ByteQueue {
  /**
   * Queued bytes are those from `start` to `end`. Bytes before `start` may be in use as views and are never
   * overwritten.
   */
  #bytes: Uint8Array = nothing;
  #start = 0;
  #end = 0;
  /** True if the bytes are in a block of this queue, so that it can append to it. */
  #isOwn = false;

  /** Number of queued bytes. */
  get length(): number {
    return this.#end - this.#start;
  }

  /**
   * Appends a chunk. It may be kept by reference: its bytes must not change while they are queued or views of them
   * exist.
   */
  push(chunk: Uint8Array): void {
    const { length } = this;
    if (length === 0) {
      this.#bytes = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      this.#isOwn = false;
      return;
    }
    if (!this.#isOwn || this.#end + chunk.length > this.#bytes.length) {
      const block = uncleared(2 * (length + chunk.length));
      block.set(this.#bytes.subarray(this.#start, this.#end));
      this.#bytes = block;
      this.#start = 0;
      this.#end = length;
      this.#isOwn = true;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Reads the big-endian u32 at the head without removing it; undefined if fewer than four bytes are queued. */
  peekUint32(): number | undefined {
    if (this.length < 4) return undefined;
    const { buffer, byteOffset } = this.#bytes;
    return new DataView(buffer, byteOffset).getUint32(this.#start);
  }

  /** Removes `count` bytes, which must be queued. */
  skip(count: number): void {
    this.#start += count;
    if (this.#start < this.#end) return;
    // An empty queue must keep no chunk alive.
    this.#bytes = nothing;
    this.#start = this.#end = 0;
  }

  /** Removes and returns `count` bytes, which must be queued, as a view owned by the caller. */
  take(count: number): Uint8Array {
    const view = this.#bytes.subarray(this.#start, this.#start + count);
    this.skip(count);
    return view;
  }
}
