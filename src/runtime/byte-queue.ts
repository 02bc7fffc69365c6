/**
 * Received bytes that are not decoded yet. Memory follows what has arrived, never what was declared: a chunk is kept by
 * reference while it is alone; what comes behind it is gathered with it in a block, so that a sender of single bytes cannot make
 * each cost a chunk of its own.
 */
import { uncleared } from "./memory.js";

const nothing = new Uint8Array(0);

/** A first-in first-out queue of bytes. Not `Buffer`s: views of those are Buffers too, and cost more. */
export class ByteQueue {
  /** The bytes from `start` to `end` are queued. Those before `start` may be in use as views, and are never written again. */
  #bytes: Uint8Array = nothing;
  #start = 0;
  #end = 0;
  /** The bytes are in a block of this queue, which has room behind `end`. */
  #isOwn = false;

  /** How many bytes are queued. */
  get length(): number {
    return this.#end - this.#start;
  }

  /** Appends a chunk. It is kept by reference: its bytes must not change until they are taken, nor while views of them live. */
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

  /** The big-endian u32 at the front, or undefined while fewer than four bytes are queued. Takes nothing. */
  peekUint32(): number | undefined {
    if (this.length < 4) return undefined;
    const { buffer, byteOffset } = this.#bytes;
    return new DataView(buffer, byteOffset).getUint32(this.#start);
  }

  /** Drops `count` bytes, of which there must be as many. */
  skip(count: number): void {
    this.#start += count;
    if (this.#start < this.#end) return;
    // An idle queue keeps no chunk alive.
    this.#bytes = nothing;
    this.#start = this.#end = 0;
  }

  /** Takes `count` bytes, of which there must be as many: a view of what has arrived. The result is the caller's. */
  take(count: number): Uint8Array {
    const view = this.#bytes.subarray(this.#start, this.#start + count);
    this.skip(count);
    return view;
  }
}
