/**
 * Received bytes that are not decoded yet, as the chunks they came in. Memory follows what has arrived, never what was
 * declared: chunks are kept by reference, except that small ones behind another are gathered in a block, so that a sender
 * of single bytes cannot make each cost a chunk of its own.
 */
import { uncleared } from "./memory.js";

/** Chunks up to this long are copied together instead of being kept by reference. */
const smallChunkBytes = 1024;

/** What small chunks are gathered in. */
const blockBytes = 4096;

/** A first-in first-out queue of bytes. Not `Buffer`s: views of those are Buffers too, and cost more. */
export class ByteQueue {
  /** The chunks; those before `first` are used up. */
  #chunks: Uint8Array[] = [];
  #first = 0;
  /** Bytes of the first chunk that are used up. */
  #offset = 0;
  /** Where small chunks are gathered, and how much of it is filled. */
  #block = new Uint8Array(0);
  #blockFill = 0;
  /** The last chunk is a view of the block up to `blockFill`, and can grow. */
  #lastGrows = false;

  /** How many bytes are queued. */
  length = 0;

  /** How many chunks hold them: each costs memory of its own. */
  get chunkCount(): number {
    return this.#chunks.length - this.#first;
  }

  /** Appends a chunk. It is kept by reference: its bytes must not change until they are taken, nor while views of them live. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    if (this.length > 0 && chunk.length <= smallChunkBytes) {
      this.#append(chunk);
    } else {
      this.#chunks.push(chunk);
      this.#lastGrows = false;
    }
    this.length += chunk.length;
  }

  #append(chunk: Uint8Array): void {
    if (this.#blockFill + chunk.length > this.#block.length) {
      this.#block = new Uint8Array(blockBytes);
      this.#blockFill = 0;
      this.#lastGrows = false;
    }
    const begin = this.#lastGrows ? this.#chunks[this.#chunks.length - 1]!.byteOffset : this.#blockFill;
    if (this.#lastGrows) this.#chunks.pop();
    this.#block.set(chunk, this.#blockFill);
    this.#blockFill += chunk.length;
    this.#chunks.push(this.#block.subarray(begin, this.#blockFill));
    this.#lastGrows = true;
  }

  /** The big-endian u32 at the front, or undefined while fewer than four bytes are queued. Takes nothing. */
  peekUint32(): number | undefined {
    if (this.length < 4) return undefined;
    const chunk = this.#chunks[this.#first]!;
    const at = this.#offset;
    if (at + 4 <= chunk.length) {
      return ((chunk[at]! << 24) | (chunk[at + 1]! << 16) | (chunk[at + 2]! << 8) | chunk[at + 3]!) >>> 0;
    }
    let value = 0;
    let index = this.#first;
    let offset = at;
    for (let i = 0; i < 4; i++) {
      while (offset === this.#chunks[index]!.length) {
        index++;
        offset = 0;
      }
      value = (value << 8) | this.#chunks[index]![offset++]!;
    }
    return value >>> 0;
  }

  /** Drops `count` bytes, of which there must be as many. */
  skip(count: number): void {
    this.length -= count;
    let left = count;
    while (left > 0) {
      const rest = this.#chunks[this.#first]!.length - this.#offset;
      if (left < rest) {
        this.#offset += left;
        return;
      }
      left -= rest;
      this.#dropFirst();
    }
  }

  /**
   * Takes `count` bytes, of which there must be as many: a view of the chunk when they lie within one, else a copy. The
   * result is the caller's.
   */
  take(count: number): Uint8Array {
    if (count === 0) return new Uint8Array(0);
    const chunk = this.#chunks[this.#first]!;
    const end = this.#offset + count;
    if (end <= chunk.length) {
      const view = chunk.subarray(this.#offset, end);
      this.length -= count;
      if (end === chunk.length) this.#dropFirst();
      else this.#offset = end;
      return view;
    }
    return this.#gather(count);
  }

  #gather(count: number): Uint8Array {
    const bytes = uncleared(count);
    let filled = 0;
    while (filled < count) {
      const chunk = this.#chunks[this.#first]!;
      const end = Math.min(chunk.length, this.#offset + count - filled);
      bytes.set(chunk.subarray(this.#offset, end), filled);
      filled += end - this.#offset;
      if (end === chunk.length) this.#dropFirst();
      else this.#offset = end;
    }
    this.length -= count;
    return bytes;
  }

  #dropFirst(): void {
    this.#first++;
    this.#offset = 0;
    if (this.#first === this.#chunks.length) {
      this.#chunks = [];
      this.#first = 0;
      this.#lastGrows = false;
    } else if (this.#first >= 64 && this.#first * 2 >= this.#chunks.length) {
      this.#chunks.splice(0, this.#first);
      this.#first = 0;
    }
  }
}
