/**
 * Memory for encoded frames: blocks that are filled, written to a socket, and used again once they have been written.
 * Allocating each anew costs more than encoding into it (fresh pages, and the collector counts the bytes).
 */
import { uncleared } from "../runtime/index.js";

/**
 * What an output begins with: enough for an Ack or a few messages, so that a connection whose reader stalls keeps little.
 */
const smallBlockBytes = 8 * 1024;

/** What follows when that is full. A longer frame that is no batch gets a block of its own length. */
const blockBytes = 256 * 1024;

/** Blocks of each size kept for another use, over all connections: an idle connection holds none. */
const keptBlocks = 16;

/** Free blocks by their size. */
const free: ReadonlyMap<number, Uint8Array[]> = new Map([
  [smallBlockBytes, []],
  [blockBytes, []],
]);

const noBlock = new Uint8Array(0);

/** What was encoded since the last {@link OutputBlocks.take}. */
export interface Output {
  /** The bytes, to be written in this order and not to be changed. */
  readonly chunks: readonly Uint8Array[];
  /** How many bytes the chunks have together. */
  readonly bytes: number;
  /** The memory that {@link recycle} takes back. */
  readonly blocks: readonly Uint8Array[];
}

/**
 * Gives the memory of an output back once its chunks have been written: nothing may read them afterwards. Without it
 * the collector takes it.
 */
export function recycle(output: Output): void {
  for (const block of output.blocks) {
    const alike = free.get(block.length);
    if (alike !== undefined && alike.length < keptBlocks) alike.push(block);
  }
}

/** An append-only buffer over recycled blocks. */
export class OutputBlocks {
  /** The block being filled. Write at {@link position} after {@link reserve}, then move it. */
  block: Uint8Array = noBlock;
  /** Where the next byte goes in {@link block}. */
  position = 0;

  #chunkStart = 0;
  #chunks: Uint8Array[] = [];
  #chunkBytes = 0;
  #blocks: Uint8Array[] = [];

  /** How many bytes wait to be taken. */
  get bytes(): number {
    return this.#chunkBytes + this.position - this.#chunkStart;
  }

  /** Makes room for `count` bytes in one piece at {@link position}. */
  reserve(count: number): void {
    if (this.position + count <= this.block.length) return;
    this.#closeChunk();
    const usual = this.#blocks.length === 0 && count <= smallBlockBytes ? smallBlockBytes : blockBytes;
    const size = Math.max(count, usual);
    this.block = free.get(size)?.pop() ?? uncleared(size);
    this.#blocks.push(this.block);
    this.position = 0;
    this.#chunkStart = 0;
  }

  /** Copies bytes to {@link position}, into as many pieces as it takes. */
  append(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; ) {
      if (this.position === this.block.length) this.reserve(Math.min(bytes.length - from, blockBytes));
      const end = Math.min(bytes.length, from + this.block.length - this.position);
      this.block.set(bytes.subarray(from, end), this.position);
      this.position += end - from;
      from = end;
    }
  }

  /** Takes all that was appended. */
  take(): Output {
    this.#closeChunk();
    const output = { chunks: this.#chunks, bytes: this.#chunkBytes, blocks: this.#blocks };
    this.block = noBlock;
    this.position = 0;
    this.#chunkStart = 0;
    this.#chunks = [];
    this.#chunkBytes = 0;
    this.#blocks = [];
    return output;
  }

  #closeChunk(): void {
    if (this.position === this.#chunkStart) return;
    this.#chunks.push(this.block.subarray(this.#chunkStart, this.position));
    this.#chunkBytes += this.position - this.#chunkStart;
    this.#chunkStart = this.position;
  }
}
