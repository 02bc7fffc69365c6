/**
 * Frames in, bytes out: several frames of one tick become one write.
 */
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  type Answer,
  Batch,
  Delivery,
  Frame as FrameEnvelope,
  type Header,
  PayloadHeaders,
  type Request,
} from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { WireError } from "../errors/index.js";
import { lengthPrefixBytes } from "./frame-assembler.js";
import {
  batchTag,
  type Codec,
  checkFrame,
  codecs,
  emptyOf,
  endingWithHeaders,
  type Frame,
  headersIndexTag,
  headersTag,
  keptHeadersBytes,
  payloadTag,
} from "./frames.js";
import { type Output, OutputBlocks } from "./output-blocks.js";

/** What the length before a frame can say. */
export const greatestFrameBytes = 0xffff_ffff;

/** What is shorter is not divided between two blocks. */
const onePieceBytes = 64 * 1024;

/**
 * Encodes frames one behind another until {@link take} is called. The encoding is the canonical one (fields in order,
 * shortest varints, defaults left out), the same bytes that every protobuf library gives.
 */
export class FrameEncoder {
  /** The greatest frame that the other side accepts, in bytes, without its length prefix. */
  maxFrameBytes: number;

  readonly #output = new OutputBlocks();
  #writer = new BinaryWriter();
  /** A batch's fields before its payloads. One for all, so that a batch costs no copy of itself. */
  readonly #head = emptyOf(Batch);
  /** The headers of the last frame that ended with some. */
  #list: { readonly headers: readonly Header[]; readonly bytes: Uint8Array } | undefined;

  constructor(options: { readonly maxFrameBytes: number }) {
    this.maxFrameBytes = options.maxFrameBytes;
  }

  /** How many bytes wait to be taken. */
  get bytes(): number {
    return this.#output.bytes;
  }

  /**
   * Appends a frame. All of it is copied.
   *
   * @throws WireError `invalid_argument` if the frame breaks a rule of the spec or is longer than the other side
   * accepts; nothing of it is appended then
   */
  append(frame: Frame): void {
    if (frame.$case === "batch") {
      this.appendBatch(frame.value);
      return;
    }
    checkFrame(frame);
    if ((frame.$case === "request" || frame.$case === "answer") && frame.value.headers.length > 0) {
      this.#appendWithHeaders(frame);
      return;
    }
    const bytes = this.#encode(FrameEnvelope, { kind: frame });
    const position = this.#beginFrame(frame, bytes.length);
    this.#output.block.set(bytes, position);
    this.#output.position = position + bytes.length;
  }

  /** Appends a frame that ends with headers, which mostly are those of the frame before: then they are encoded already. */
  #appendWithHeaders(frame: Extract<Frame, { $case: keyof typeof endingWithHeaders }>): void {
    const { $case: kind, value } = frame;
    const { headers } = value;
    const codec = codecs[kind] as Codec<Request | Answer>;
    const { tag, headerTag } = endingWithHeaders[kind];
    let list = this.#list?.headers === headers ? this.#list.bytes : undefined;
    if (list?.[0] !== headerTag) {
      list = this.#encode(codec, { ...emptyOf(codec), headers });
      this.#list = list.length <= keptHeadersBytes ? { headers, bytes: list } : undefined;
    }
    value.headers = [];
    const head = this.#encode(codec, value);
    value.headers = headers;
    const bodyBytes = head.length + list.length;
    let at = this.#beginFrame(frame, 1 + varintBytes(bodyBytes) + bodyBytes);
    const { block } = this.#output;
    block[at++] = tag;
    at = writeVarint(block, at, bodyBytes);
    block.set(head, at);
    block.set(list, at + head.length);
    this.#output.position = at + bodyBytes;
  }

  /** Makes room for a frame, and writes its length. @returns where it begins @throws WireError `invalid_argument` */
  #beginFrame({ $case: kind }: Frame, frameBytes: number): number {
    if (frameBytes > this.maxFrameBytes) {
      throw new WireError(
        "invalid_argument",
        `a ${kind} frame takes ${frameBytes} bytes; the other side accepts ${this.maxFrameBytes}`,
      );
    }
    this.#output.reserve(lengthPrefixBytes + frameBytes);
    return writeUint32(this.#output.block, this.#output.position, frameBytes);
  }

  /** Appends a Batch frame as {@link append}, or several if the other side accepts none that long. */
  appendBatch(batch: Batch): void {
    checkFrame({ $case: "batch", value: batch });
    if (this.#appendWhole(batch)) return;
    for (const part of splitBatch(batch, this.maxFrameBytes)) this.#appendWhole(part);
  }

  /** Appends a Batch frame, unless it would be longer than the other side accepts. */
  #appendWhole(batch: Batch): boolean {
    // The payloads lie between the other fields; they are copied once, to where they leave from.
    const head = this.#encodeHead(batch);
    const compressions = this.#encodeCompressions(batch);
    const headers = this.#encodeHeaders(batch);
    const payloadsBytes = bytesOfPayloads(batch.payloads);
    const bodyBytes = head.length + payloadsBytes + compressions.length + headers.bytes;
    const frameBytes = 1 + varintBytes(bodyBytes) + bodyBytes;
    if (frameBytes > this.maxFrameBytes) return false;

    const output = this.#output;
    output.reserve(lengthPrefixBytes + 1 + 5 + head.length);
    let at = writeUint32(output.block, output.position, frameBytes);
    output.block[at++] = batchTag;
    at = writeVarint(output.block, at, bodyBytes);
    output.block.set(head, at);
    output.position = at + head.length;
    this.#appendPayloads(batch.payloads, payloadsBytes);
    if (compressions.length > 0) {
      output.reserve(compressions.length);
      output.block.set(compressions, output.position);
      output.position += compressions.length;
    }
    if (headers.bytes > 0) this.#appendHeaders(batch.headers, headers);
    return true;
  }

  /** Takes all that was appended, for one write. Give it to `recycle` when it is written. */
  take(): Output {
    return this.#output.take();
  }

  #encodeHead({ epoch, delivery, firstNumber, topicKey }: Batch): Uint8Array {
    const head = this.#head;
    head.epoch = epoch;
    head.delivery = delivery;
    head.firstNumber = firstNumber;
    head.topicKey = topicKey;
    return this.#encode(Batch, head);
  }

  #encodeCompressions({ compressions }: Batch): Uint8Array {
    return compressions.length === 0 ? noBytes : this.#encode(Batch, { ...emptyOf(Batch), compressions });
  }

  /** The lists of headers of each payload that has some. Most are shared, and encoded once. */
  #encodeHeaders({ headers }: Batch): EncodedHeaders {
    if (headers.length === 0) return noHeaders;
    const lists: Uint8Array[] = [];
    let bytes = 0;
    for (let entry = 0; entry < headers.length; entry++) {
      const { index, headers: list } = headers[entry]!;
      const isShared = entry > 0 && headers[entry - 1]!.headers === list;
      const encoded = isShared ? lists[entry - 1]! : this.#encode(PayloadHeaders, { index: 0, headers: list });
      lists.push(encoded);
      const length = indexBytes(index) + encoded.length;
      bytes += 1 + varintBytes(length) + length;
    }
    return { lists, bytes };
  }

  #appendHeaders(headers: readonly PayloadHeaders[], { lists, bytes }: EncodedHeaders): void {
    const output = this.#output;
    output.reserve(bytes);
    const { block } = output;
    let at = output.position;
    for (let entry = 0; entry < headers.length; entry++) {
      const { index } = headers[entry]!;
      const list = lists[entry]!;
      block[at++] = headersTag;
      at = writeVarint(block, at, indexBytes(index) + list.length);
      if (index > 0) {
        block[at++] = headersIndexTag;
        at = writeVarint(block, at, index);
      }
      block.set(list, at);
      at += list.length;
    }
    output.position = at;
  }

  #appendPayloads(payloads: readonly Uint8Array[], payloadsBytes: number): void {
    const output = this.#output;
    // One check of the room for all.
    const inOne = payloadsBytes < onePieceBytes;
    if (inOne) output.reserve(payloadsBytes);
    for (const payload of payloads) {
      const { length } = payload;
      const isShort = length < onePieceBytes;
      if (!inOne) output.reserve(1 + 5 + (isShort ? length : 0));
      const { block } = output;
      let at = output.position;
      block[at++] = payloadTag;
      at = writeVarint(block, at, length);
      if (isShort) {
        block.set(payload, at);
        output.position = at + length;
      } else {
        output.position = at;
        output.append(payload);
      }
    }
  }

  /** A writer whose encoding threw keeps what it had, and would put it before the next frame: it is replaced. */
  #encode<T>(codec: Codec<T>, message: T): Uint8Array {
    try {
      return codec.encode(message, this.#writer).finish();
    } catch (cause) {
      this.#writer = new BinaryWriter();
      throw new WireError("invalid_argument", `a frame cannot be encoded: ${String(cause)}`, { cause });
    }
  }
}

const noBytes = new Uint8Array(0);

/** Headers of a batch: of each entry the encoded list, and the bytes of all with what is around them. */
interface EncodedHeaders {
  readonly lists: readonly Uint8Array[];
  readonly bytes: number;
}

const noHeaders: EncodedHeaders = { lists: [], bytes: 0 };

function indexBytes(index: number): number {
  return index === 0 ? 0 : 1 + varintBytes(index);
}

function bytesOfPayloads(payloads: readonly Uint8Array[]): number {
  let sum = 0;
  for (const { length } of payloads) sum += 1 + varintBytes(length) + length;
  return sum;
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
 * @throws WireError `invalid_argument` if a single message does not fit
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
      throw new WireError(
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

/*
 * Base-128 varints, as in https://protobuf.dev/programming-guides/encoding/#varints. Only what batches need beside the
 * library's writer: lengths below 2^32, written into memory that is there already.
 */

/** How many bytes `value` (0 to 2^32 − 1) takes. */
function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  return 5;
}

/** Writes `value` (0 to 2^32 − 1) at `position`. @returns the position behind it */
function writeVarint(bytes: Uint8Array, position: number, value: number): number {
  let rest = value;
  let at = position;
  while (rest > 0x7f) {
    bytes[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[at++] = rest;
  return at;
}

/** Writes `value` as a big-endian u32 at `position`. @returns the position behind it */
function writeUint32(bytes: Uint8Array, position: number, value: number): number {
  bytes[position] = value >>> 24;
  bytes[position + 1] = value >>> 16;
  bytes[position + 2] = value >>> 8;
  bytes[position + 3] = value;
  return position + 4;
}
