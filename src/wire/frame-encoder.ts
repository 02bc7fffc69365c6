/**
 * Frames in, bytes out: several frames of one tick become one write. They are encoded into blocks that are filled, written to
 * a socket, and used again once they have been written: allocating each anew costs more than encoding into it (fresh pages,
 * and the collector counts the bytes).
 */
import { type Batch, Delivery, type Header } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { numberBytes, sized, writeBytes, writeHead } from "../../generated/ts/wire/coding.js";
import { tags, valueBytes, writeBatch, writeFrame } from "../../generated/ts/wire/frames.js";
import { HawserError } from "../errors/index.js";
import { uncleared } from "../runtime/index.js";
import { lengthPrefixBytes } from "./frame-decoder.js";
import type { Frame } from "./frames.js";

/** What the length before a frame can say. */
export const greatestFrameBytes = 0xffff_ffff;

/** What is shorter is not divided between two blocks. */
const onePieceBytes = 64 * 1024;

/** What an output begins with: enough for an Ack or a few messages, so that a connection whose reader stalls keeps little. */
const smallBlockBytes = 8 * 1024;

/** What follows when that is full. */
const blockBytes = 256 * 1024;

/** Blocks of each size kept for another use, over all connections: an idle connection holds none. */
const keptBlocks = 16;

/** Free blocks by their size. */
const free: ReadonlyMap<number, Uint8Array[]> = new Map([
  [smallBlockBytes, []],
  [blockBytes, []],
]);

const noBlock = new Uint8Array(0);

/** The bytes that the length of an open batch, which is below 2^21, takes at most. */
const openLengthBytes = 3;

/** More than an open batch takes before its first payload, and around that. */
const openOverheadBytes = 64;

/** What was encoded since the last {@link FrameEncoder.take}. */
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

/**
 * Encodes frames one behind another until {@link take} is called. The encoding is the canonical one (fields in order,
 * shortest varints, defaults left out), the same bytes that every protobuf library gives.
 */
export class FrameEncoder {
  /** The greatest frame that the other side accepts, in bytes, without its length prefix. */
  maxFrameBytes: number;

  /** The block being filled, and the position of its next byte: for the codec, which makes room by {@link reserve}. */
  block: Uint8Array = noBlock;
  at = 0;

  #chunkStart = 0;
  #chunks: Uint8Array[] = [];
  #chunkBytes = 0;
  #blocks: Uint8Array[] = [];
  /** A batch of at-most-once messages that may grow: where its frame begins in the block, or -1; and where it ends at most. */
  #openAt = -1;
  #openEnd = 0;
  #openTopicKey = 0;
  #openEpoch = 0;

  constructor(options: { readonly maxFrameBytes: number }) {
    this.maxFrameBytes = options.maxFrameBytes;
  }

  /** How many bytes wait to be taken. */
  get bytes(): number {
    return this.#chunkBytes + this.at - this.#chunkStart;
  }

  /**
   * Appends a frame; a Batch as several, if the other side accepts none that long. All of it is copied. That it keeps the
   * rules of the spec is the caller's to know: see `checkFrame`.
   *
   * @throws HawserError `invalid_argument` if the frame, or a single message of a batch, is longer than the other side
   * accepts; nothing of it is appended then
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
   * Appends an at-most-once message without headers, to the batch of such messages that was appended last, where it is of the
   * same topic and has room; else in a batch of its own. Throws as {@link append}.
   */
  appendAtMostOnce(epoch: number, topicKey: number, payload: Uint8Array): void {
    const { length } = payload;
    const isOpen = this.#openAt >= 0 && topicKey === this.#openTopicKey && epoch === this.#openEpoch;
    if (!isOpen || this.at + openOverheadBytes + length > this.#openEnd) {
      if (this.#openAt >= 0) this.#closeBatch();
      const value = atMostOnce(epoch, topicKey);
      const openBytes = Math.min(onePieceBytes, this.maxFrameBytes);
      if (length + openOverheadBytes > openBytes) {
        value.payloads.push(payload);
        this.append({ $case: "batch", value });
        return;
      }
      this.reserve(openOverheadBytes + length);
      this.#openAt = this.at;
      this.#openEnd = Math.min(this.block.length, this.at + openBytes);
      this.#openTopicKey = topicKey;
      this.#openEpoch = epoch;
      this.at += lengthPrefixBytes + 1 + openLengthBytes;
      writeBatch(this, value);
    }
    writeBytes(this, tags.Batch.payloads, payload);
  }

  /** Writes the lengths of the open batch, in as few bytes as they take. */
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

  /** Makes room for `count` bytes in one piece. */
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

  /** Copies bytes of any length, in as many pieces as it takes. */
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

  /** Takes all that was appended, for one write. Give it to {@link recycle} when it is written. */
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

/** A batch of at-most-once messages without any. */
function atMostOnce(epoch: number, topicKey: number): Batch {
  return {
    epoch,
    delivery: Delivery.AT_MOST_ONCE,
    firstNumber: 0,
    topicKey,
    payloads: [],
    compressions: [],
    headers: [],
  };
}

/** More than the fields of a batch beside its payloads, compressions and headers take, with the tags around it. */
const fixedBytes = 64;

/** More than the tag and length of a payload, and the entry that says how it is compressed, take. */
const payloadOverheadBytes = 32;

/** More than the tags and lengths around one header, or around the list of them, take. */
const headerOverheadBytes = 16;

/**
 * Splits a batch into batches that surely fit a frame each, in order and with their numbers. Callers gather a batch by
 * its payload bytes; headers can make many small payloads much longer than that.
 *
 * @param maxFrameBytes the greatest frame that the other side accepts, without its length prefix
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

/** At least the bytes that the headers take. */
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
