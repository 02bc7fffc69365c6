/**
 * Encodes frames into bytes. Frames of the same tick become one write. They are encoded into reusable blocks, because
 * allocating new ones costs more than the encoding itself (page faults and garbage collection).
 */
import { type Batch, Delivery, type Header } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { numberBytes, sized, writeBytes, writeHead } from "../../../generated/ts/wire/coding.js";
import { tags, valueBytes, writeBatch, writeFrame } from "../../../generated/ts/wire/frames.js";
import { HawserError } from "../../foundation/errors/index.js";
import { uncleared } from "../../foundation/runtime/index.js";
import { lengthPrefixBytes } from "./frame-decoder.js";
import type { Frame } from "./frames.js";

/** Maximum value of the length prefix. */
export const maxPrefixedFrameBytes = 0xffff_ffff;

/** Shorter byte strings are not split between two blocks. */
const onePieceBytes = 64 * 1024;

/**
 * Size of the first block of an output: enough for an Ack or a few messages, so that a connection with a stalled reader
 * keeps little memory.
 */
const smallBlockBytes = 8 * 1024;

/** Size of further blocks. */
const blockBytes = 256 * 1024;

/** Maximum number of free blocks of each size, shared by all connections. An idle connection holds none. */
const maxFreeBlocks = 16;

/** Free blocks by size. */
const free: ReadonlyMap<number, Uint8Array[]> = new Map([
  [smallBlockBytes, []],
  [blockBytes, []],
]);

const noBlock = new Uint8Array(0);

/** Maximum bytes of the length of an open batch, which is below 2^21. */
const openLengthBytes = 3;

/** Upper bound for the bytes of an open batch besides its payloads. */
const openOverheadBytes = 64;

/** Bytes encoded since the last {@link FrameEncoder.take}. */
export interface Output {
  /** Chunks to write in this order. They must not be modified. */
  readonly chunks: readonly Uint8Array[];
  /** Total bytes of the chunks. */
  readonly bytes: number;
  /** Blocks that {@link recycle} releases. */
  readonly blocks: readonly Uint8Array[];
}

/**
 * Releases the blocks of an output for reuse after its chunks have been written. They must not be read afterwards.
 * Without this call, they are garbage collected.
 */
export function recycle(output: Output): void {
  for (const block of output.blocks) {
    const alike = free.get(block.length);
    if (alike !== undefined && alike.length < maxFreeBlocks) alike.push(block);
  }
}

/**
 * Appends encoded frames until {@link take} is called. The encoding is canonical (fields in order, shortest varints,
 * defaults omitted): the same bytes as from any protobuf library.
 */
export class FrameEncoder {
  /** Maximum frame size of the other side in bytes, without the length prefix. */
  maxFrameBytes: number;

  /** Current block and the position of its next byte. The codec uses both and calls {@link reserve} for space. */
  block: Uint8Array = noBlock;
  at = 0;

  #chunkStart = 0;
  #chunks: Uint8Array[] = [];
  #chunkBytes = 0;
  #blocks: Uint8Array[] = [];
  /** Start of the open batch of at-most-once messages in the block, or -1; and its maximum end. */
  #openAt = -1;
  #openEnd = 0;
  #openTopicId = 0;
  #openEpoch = 0;

  constructor(options: { readonly maxFrameBytes: number }) {
    this.maxFrameBytes = options.maxFrameBytes;
  }

  /** Number of bytes that wait to be taken. */
  get bytes(): number {
    return this.#chunkBytes + this.at - this.#chunkStart;
  }

  /**
   * Appends a frame, copying all of its bytes. A Batch that exceeds the limit of the other side becomes several frames.
   * The caller guarantees the rules of the spec: see `checkFrame`.
   *
   * @throws HawserError `invalid_argument` if the frame, or a single message of a batch, exceeds the limit of the other
   * side; nothing of it is appended then
   */
  append(frame: Frame): void {
    if (this.#openAt >= 0) this.#closeBatch();
    const bytes = valueBytes(frame);
    const frameBytes = 1 + sized(bytes);
    if (frameBytes <= this.maxFrameBytes) {
      this.reserve(lengthPrefixBytes + Math.min(frameBytes, onePieceBytes));
      this.#writePrefix(frameBytes);
      writeFrame(this, frame, bytes);
    } else if (frame.$case === "batch") {
      for (const value of splitBatch(frame.value, this.maxFrameBytes)) this.append({ $case: "batch", value });
    } else {
      throw new HawserError(
        "invalid_argument",
        `a ${frame.$case} frame takes ${frameBytes} bytes; the other side accepts ${this.maxFrameBytes}`,
      );
    }
  }

  /**
   * Appends an at-most-once message without headers: to the last batch of such messages if the topic is the same and
   * space is left, otherwise to a new batch. Throws as {@link append}.
   */
  appendAtMostOnce(epoch: number, topicId: number, payload: Uint8Array): void {
    const { length } = payload;
    const isOpen = this.#openAt >= 0 && topicId === this.#openTopicId && epoch === this.#openEpoch;
    if (!isOpen || this.at + openOverheadBytes + length > this.#openEnd) {
      if (this.#openAt >= 0) this.#closeBatch();
      const value = atMostOnce(epoch, topicId);
      const openBytes = Math.min(onePieceBytes, this.maxFrameBytes);
      if (length + openOverheadBytes > openBytes) {
        value.payloads.push(payload);
        this.append({ $case: "batch", value });
        return;
      }
      this.reserve(openOverheadBytes + length);
      this.#openAt = this.at;
      this.#openEnd = Math.min(this.block.length, this.at + openBytes);
      this.#openTopicId = topicId;
      this.#openEpoch = epoch;
      this.at += lengthPrefixBytes + 1 + openLengthBytes;
      writeBatch(this, value);
    }
    writeBytes(this, tags.Batch.payloads, payload);
  }

  /** Writes the lengths of the open batch in their shortest form. */
  #closeBatch(): void {
    const { block, at: end } = this;
    const start = this.#openAt;
    const body = start + lengthPrefixBytes + 1 + openLengthBytes;
    const bytes = end - body;
    const to = body - openLengthBytes + numberBytes(bytes);
    if (to < body) block.copyWithin(to, body, end);
    this.at = start;
    this.#writePrefix(1 + sized(bytes));
    writeHead(this, tags.Frame.batch, bytes);
    this.at += bytes;
    this.#openAt = -1;
  }

  #writePrefix(frameBytes: number): void {
    const { block, at } = this;
    block[at] = frameBytes >>> 24;
    block[at + 1] = frameBytes >>> 16;
    block[at + 2] = frameBytes >>> 8;
    block[at + 3] = frameBytes;
    this.at = at + lengthPrefixBytes;
  }

  /** Reserves `count` contiguous bytes. */
  reserve(count: number): void {
    if (this.at + count <= this.block.length) return;
    if (this.at > this.#chunkStart) this.#closeChunk();
    const usual = this.#blocks.length === 0 && count <= smallBlockBytes ? smallBlockBytes : blockBytes;
    const size = Math.max(count, usual);
    this.block = free.get(size)?.pop() ?? uncleared(size);
    this.#blocks.push(this.block);
    this.at = 0;
    this.#chunkStart = 0;
  }

  /** Copies bytes of any length, split between blocks if necessary. */
  copy(bytes: Uint8Array): void {
    const { length } = bytes;
    if (length < onePieceBytes) {
      this.reserve(length);
      this.block.set(bytes, this.at);
      this.at += length;
      return;
    }
    for (let from = 0; from < length; ) {
      if (this.at === this.block.length) this.reserve(Math.min(length - from, blockBytes));
      const end = Math.min(length, from + this.block.length - this.at);
      this.block.set(bytes.subarray(from, end), this.at);
      this.at += end - from;
      from = end;
    }
  }

  /** Takes all encoded bytes for one write. Pass the output to {@link recycle} once it is written. */
  take(): Output {
    if (this.#openAt >= 0) this.#closeBatch();
    if (this.at > this.#chunkStart) this.#closeChunk();
    const output = { chunks: this.#chunks, bytes: this.#chunkBytes, blocks: this.#blocks };
    this.block = noBlock;
    this.at = 0;
    this.#chunkStart = 0;
    this.#chunks = [];
    this.#chunkBytes = 0;
    this.#blocks = [];
    return output;
  }

  #closeChunk(): void {
    this.#chunks.push(this.block.subarray(this.#chunkStart, this.at));
    this.#chunkBytes += this.at - this.#chunkStart;
    this.#chunkStart = this.at;
  }
}

/** Empty batch of at-most-once messages. */
function atMostOnce(epoch: number, topicId: number): Batch {
  return {
    epoch,
    delivery: Delivery.AT_MOST_ONCE,
    firstNumber: 0,
    topicId,
    payloads: [],
    compressions: [],
    headers: [],
  };
}

/** Upper bound for the bytes of a batch besides its payloads, compressions and headers. */
const fixedBytes = 64;

/** Upper bound for the tag and length of a payload and its compression entry. */
const payloadOverheadBytes = 32;

/** Upper bound for the tags and lengths of one header, or of the list of headers. */
const headerOverheadBytes = 16;

/**
 * Splits a batch into batches that each fit into a frame, keeping order and numbers. Callers limit a batch by its
 * payload bytes, and headers can make many small payloads much longer than that.
 *
 * @param maxFrameBytes maximum frame size of the other side, without the length prefix
 * @throws HawserError `invalid_argument` if a single message does not fit
 */
function splitBatch(batch: Batch, maxFrameBytes: number): readonly Batch[] {
  const room = maxFrameBytes - fixedBytes;
  const headersOf = new Map(batch.headers.map((entry) => [entry.index, entry.headers]));
  const parts: Batch[] = [];
  let begin = 0;
  let bytes = 0;
  batch.payloads.forEach((payload, index) => {
    const size = payload.length + payloadOverheadBytes + bytesOfHeaders(headersOf.get(index));
    if (size > room) {
      throw new HawserError(
        "invalid_argument",
        `a message takes ${size} bytes with its headers; the other side accepts frames of ${maxFrameBytes}`,
      );
    }
    if (bytes + size > room) {
      parts.push(slice(batch, begin, index));
      begin = index;
      bytes = 0;
    }
    bytes += size;
  });
  parts.push(slice(batch, begin, batch.payloads.length));
  return parts;
}

/** Upper bound for the bytes of the headers. */
function bytesOfHeaders(headers: readonly Header[] | undefined): number {
  if (headers === undefined) return 0;
  let bytes = headerOverheadBytes;
  for (const { name, value } of headers) {
    bytes += headerOverheadBytes + Buffer.byteLength(name) + Buffer.byteLength(value);
  }
  return bytes;
}

function slice(batch: Batch, begin: number, end: number): Batch {
  const within = <T extends { readonly index: number }>(entries: readonly T[]): T[] =>
    entries
      .filter(({ index }) => index >= begin && index < end)
      .map((entry) => ({ ...entry, index: entry.index - begin }));
  return {
    ...batch,
    firstNumber: batch.delivery === Delivery.AT_LEAST_ONCE ? batch.firstNumber + begin : 0,
    payloads: batch.payloads.slice(begin, end),
    compressions: within(batch.compressions),
    headers: within(batch.headers),
  };
}
