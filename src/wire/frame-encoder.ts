/**
 * Frames in, bytes out: several frames of one tick become one write.
 */
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { Batch as CodecBatch, Frame as CodecFrame } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { WireError } from "../errors/index.js";
import { checkBatch, checkedKind } from "./check-outgoing.js";
import { type Codec, type CodecValue, emptyOf, payloadTag, tagOfKind } from "./codecs.js";
import { type Output, OutputBlocks } from "./output-blocks.js";
import { splitBatch } from "./split-batch.js";
import { codecOfBatch } from "./to-codec.js";
import type { Batch, Frame } from "./types.js";
import { varintBytes, writeUint32, writeVarint } from "./varint.js";

/** The u32 big-endian length before each frame. */
const lengthPrefixBytes = 4;

/**
 * Payloads this long are written by reference. Below it, copying costs less than one more piece for the socket
 * (measured: bench/wire.ts).
 */
export const referencedPayloadBytes = 64 * 1024;

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
  readonly #head = emptyOf(CodecBatch);

  constructor(options: { readonly maxFrameBytes: number }) {
    this.maxFrameBytes = options.maxFrameBytes;
  }

  /** How many bytes wait to be taken. */
  get bytes(): number {
    return this.#output.bytes;
  }

  /**
   * Appends a frame. Long payloads of a batch are kept by reference until they are written.
   *
   * @throws WireError `invalid_argument` if the frame breaks a rule of the spec or is longer than the other side
   * accepts; nothing of it is appended then
   */
  append(frame: Frame): void {
    if (frame.kind === "batch") {
      this.appendBatch(frame.value);
      return;
    }
    const kind = checkedKind(frame);
    const bytes = this.#encode(CodecFrame, { kind });
    if (bytes.length > this.maxFrameBytes) {
      throw new WireError(
        "invalid_argument",
        `a ${frame.kind} frame takes ${bytes.length} bytes; the other side accepts ${this.maxFrameBytes}`,
      );
    }
    this.#output.reserve(lengthPrefixBytes + bytes.length);
    const at = writeUint32(this.#output.block, this.#output.position, bytes.length);
    this.#output.block.set(bytes, at);
    this.#output.position = at + bytes.length;
  }

  /** Appends a Batch frame as {@link append}, or several if the other side accepts none that long. */
  appendBatch(batch: Batch): void {
    const message = checkBatch(batch);
    if (this.#appendWhole(message)) return;
    for (const part of splitBatch(batch, this.maxFrameBytes)) this.#appendWhole(codecOfBatch(part));
  }

  /** Appends a Batch frame, unless it would be longer than the other side accepts. */
  #appendWhole(message: CodecValue<"batch">): boolean {
    // The payloads lie between the other fields; they are copied once, to where they leave from.
    const head = this.#encodeHead(message);
    const tail = this.#encodeTail(message);
    const payloadsBytes = bytesOfPayloads(message.payloads);
    const bodyBytes = head.length + payloadsBytes + tail.length;
    const frameBytes = 1 + varintBytes(bodyBytes) + bodyBytes;
    if (frameBytes > this.maxFrameBytes) return false;

    const output = this.#output;
    output.reserve(lengthPrefixBytes + 1 + 5 + head.length);
    let at = writeUint32(output.block, output.position, frameBytes);
    output.block[at++] = tagOfKind.batch;
    at = writeVarint(output.block, at, bodyBytes);
    output.block.set(head, at);
    output.position = at + head.length;
    this.#appendPayloads(message.payloads, payloadsBytes);
    if (tail.length > 0) {
      output.reserve(tail.length);
      output.block.set(tail, output.position);
      output.position += tail.length;
    }
    return true;
  }

  /** Takes all that was appended, for one write. Give it to `recycle` when it is written. */
  take(): Output {
    return this.#output.take();
  }

  #encodeHead({ epoch, delivery, firstNumber, topicKey }: CodecValue<"batch">): Uint8Array {
    const head = this.#head;
    head.epoch = epoch;
    head.delivery = delivery;
    head.firstNumber = firstNumber;
    head.topicKey = topicKey;
    return this.#encode(CodecBatch, head);
  }

  #encodeTail({ compressions, headers }: CodecValue<"batch">): Uint8Array {
    if (compressions.length === 0 && headers.length === 0) return noBytes;
    return this.#encode(CodecBatch, { ...emptyOf(CodecBatch), compressions, headers });
  }

  #appendPayloads(payloads: readonly Uint8Array[], payloadsBytes: number): void {
    const output = this.#output;
    // One check of the room for all, when none can be long.
    const inOne = payloadsBytes < referencedPayloadBytes;
    if (inOne) output.reserve(payloadsBytes);
    for (const payload of payloads) {
      const length = payload.length;
      const byReference = length >= referencedPayloadBytes;
      if (!inOne) output.reserve(1 + 5 + (byReference ? 0 : length));
      const { block } = output;
      let at = output.position;
      block[at++] = payloadTag;
      at = writeVarint(block, at, length);
      if (byReference) {
        output.position = at;
        output.reference(payload);
      } else {
        block.set(payload, at);
        output.position = at + length;
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

function bytesOfPayloads(payloads: readonly Uint8Array[]): number {
  let sum = 0;
  for (const { length } of payloads) sum += 1 + varintBytes(length) + length;
  return sum;
}
