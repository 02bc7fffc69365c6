/** Decodes the byte stream of one direction of a connection, which may be split anywhere, into frames. */
import { FrameInput } from "../../../generated/ts/wire/coding.js";
import { readFrame } from "../../../generated/ts/wire/frames.js";
import { checkOptionNames, errorMessageOf, HawserError, namesOf } from "../../foundation/errors/index.js";
import { uncleared } from "../../foundation/runtime/index.js";
import { knownCapabilities } from "./capabilities.js";
import { checkFrame, type Frame, faultOfBatch } from "./frames.js";

/** Length of the u32 big-endian length prefix of each frame. */
export const lengthPrefixBytes = 4;

/**
 * Maximum ratio of the memory of an incomplete frame to its received bytes. A declared length alone allocates no
 * memory.
 */
const growth = 4;

/** Size up to which zeroed memory is cheaper to allocate. */
const smallBytes = 4096;

/** Frame size up to which copying a payload saves no memory. */
const smallFrameBytes = 256;

/** A payload is copied if it is shorter than this fraction of the average length per payload of its frame. */
const leastShare = 1 / 4;

const none: Uint8Array = new Uint8Array(0);

/** Options of {@link FrameDecoder}. */
export interface FrameDecoderOptions {
  /** Maximum frame size in bytes, without the length prefix. */
  readonly maxFrameBytes: number;
  /** Bytes that must precede the first frame. Default: none. */
  readonly preamble?: Uint8Array;
}

const optionNames = namesOf<FrameDecoderOptions>({ maxFrameBytes: true, preamble: true });

/**
 * Decodes a stream of frames. Pass bytes to {@link push} and call {@link next} until it returns undefined. If `next`
 * throws, the stream is broken, and every further call throws the same error.
 *
 * Frames are validated against the spec. Each frame is copied once into its own memory, so that the caller may reuse
 * the pushed bytes. Payloads are views, which keep the frame in memory; a payload that is much shorter than its share
 * of a long frame is copied. The memory of an incomplete frame is proportional to its received bytes, not to its
 * declared length.
 */
export class FrameDecoder {
  /** Maximum size of further frames in bytes. May change between calls of {@link next}. */
  maxFrameBytes: number;

  readonly #input = new FrameInput();
  #preamble: Uint8Array | undefined;
  #failure: HawserError | undefined;
  /** Complete frames, and the number of them that were taken. */
  #whole: Uint8Array[] = [];
  #taken = 0;
  /** Received part of the next length prefix, and its number of bytes. */
  #prefix = 0;
  #prefixBytes = 0;
  /** Length of the incomplete frame; undefined if none was started. */
  #length: number | undefined;
  #memory = none;
  #filled = 0;

  /** @throws HawserError `invalid_argument` for an unknown option */
  constructor(options: FrameDecoderOptions) {
    checkOptionNames(options, "a FrameDecoder", optionNames);
    this.maxFrameBytes = options.maxFrameBytes;
    this.#preamble = options.preamble;
    // The preamble comes first and has no length prefix.
    this.#length = options.preamble?.length;
  }

  /** True until the complete preamble was received and checked by {@link next}. */
  get awaitsPreamble(): boolean {
    return this.#preamble !== undefined;
  }

  /** Appends received bytes, which are copied. */
  push(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    let at = 0;
    while (at < chunk.length) at = this.#length === undefined ? this.#readLength(chunk, at) : this.#fill(chunk, at);
  }

  /** Discards all received bytes. */
  clear(): void {
    this.#whole = [];
    this.#taken = 0;
    this.#length = undefined;
    this.#memory = none;
    this.#filled = 0;
  }

  /**
   * Returns the next frame; undefined if it is not complete.
   *
   * @throws HawserError `protocol_violation` for a wrong preamble, and for a frame that is too large, of an unknown kind,
   * undecodable, or against a rule of the spec
   */
  next(): Frame | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      if (this.#preamble !== undefined && !this.#takePreamble(this.#preamble)) return undefined;
      const bytes = this.#whole[this.#taken];
      const length = bytes === undefined ? this.#length : bytes.length;
      if (length !== undefined && length > this.maxFrameBytes) {
        throw violation(`a frame declares ${length} bytes; at most ${this.maxFrameBytes} are accepted here`);
      }
      if (bytes === undefined) return undefined;
      this.#take();
      return decode(this.#input, bytes);
    } catch (error) {
      if (error instanceof HawserError) this.#failure = error;
      throw error;
    }
  }

  /** Compares the received bytes one by one, so that a foreign protocol is rejected at its first wrong byte. */
  #takePreamble(preamble: Uint8Array): boolean {
    const [whole] = this.#whole;
    const received = whole ?? this.#memory.subarray(0, this.#filled);
    for (let i = 0; i < received.length; i++) {
      if (received[i] !== preamble[i])
        throw violation("the connection does not start with the preamble of this protocol");
    }
    if (whole === undefined) return false;
    this.#take();
    this.#preamble = undefined;
    return true;
  }

  #take(): void {
    this.#taken += 1;
    if (this.#taken < this.#whole.length) return;
    this.#whole = [];
    this.#taken = 0;
  }

  /** Reads the length prefix. @returns the position behind the consumed bytes, as {@link #fill} */
  #readLength(chunk: Uint8Array, from: number): number {
    let at = from;
    while (this.#prefixBytes < lengthPrefixBytes && at < chunk.length) {
      this.#prefix = this.#prefix * 256 + chunk[at++]!;
      this.#prefixBytes += 1;
    }
    if (this.#prefixBytes < lengthPrefixBytes) return at;
    if (this.#prefix === 0) this.#whole.push(none);
    else this.#length = this.#prefix;
    this.#prefix = 0;
    this.#prefixBytes = 0;
    return at;
  }

  #fill(chunk: Uint8Array, from: number): number {
    const length = this.#length!;
    const end = Math.min(chunk.length, from + length - this.#filled);
    const filled = this.#filled + end - from;
    if (filled > this.#memory.length) {
      const before = this.#memory;
      const bytes = Math.min(length, filled * growth);
      this.#memory = bytes <= smallBytes ? new Uint8Array(bytes) : uncleared(bytes);
      this.#memory.set(before.subarray(0, this.#filled));
    }
    this.#memory.set(from === 0 && end === chunk.length ? chunk : chunk.subarray(from, end), this.#filled);
    this.#filled = filled;
    if (filled === length) {
      this.#whole.push(this.#memory);
      this.#length = undefined;
      this.#memory = none;
      this.#filled = 0;
    }
    return end;
  }
}

/**
 * Decodes one frame.
 *
 * @param bytes frame without its length prefix; the result may keep views of it
 * @throws HawserError `protocol_violation`, as {@link FrameDecoder.next}
 */
export function decodeFrame(bytes: Uint8Array): Frame {
  return decode(new FrameInput(), bytes);
}

function decode(input: FrameInput, bytes: Uint8Array): Frame {
  let frame: Frame;
  try {
    input.begin(bytes);
    frame = readFrame(input);
  } catch (cause) {
    const detail = errorMessageOf(cause);
    throw violation(`a frame cannot be decoded: ${detail}`, cause);
  }
  if (input.breaksRule) checkFrame(frame, "protocol_violation");
  if (frame.$case === "batch") {
    const fault = faultOfBatch(frame.value);
    if (fault !== undefined) throw violation(fault);
    const { payloads } = frame.value;
    if (bytes.length > smallFrameBytes) copyShort(payloads, (bytes.length / payloads.length) * leastShare);
  } else if (frame.$case === "request" || frame.$case === "answer") {
    const { payload } = frame.value;
    if (bytes.length > smallFrameBytes && payload.length < bytes.length * leastShare)
      frame.value.payload = new Uint8Array(payload);
  } else if (frame.$case === "challenge" || frame.$case === "hello" || frame.$case === "welcome") {
    frame.value.capabilities = knownCapabilities(frame.value.capabilities);
  }
  return frame;
}

/**
 * Copies payloads shorter than `least`. As views, they would keep the whole frame in memory, with headers, other
 * payloads and unknown fields that do not count towards their size.
 */
function copyShort(payloads: Uint8Array[], least: number): void {
  for (let index = 0; index < payloads.length; index++) {
    const payload = payloads[index]!;
    if (payload.length < least) payloads[index] = new Uint8Array(payload);
  }
}

function violation(message: string, cause?: unknown): HawserError {
  return new HawserError("protocol_violation", message, cause === undefined ? {} : { cause });
}
