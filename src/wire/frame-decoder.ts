/**
 * Bytes in, frames out: the stream of one direction of a connection, split anywhere.
 */
import { FrameInput } from "../../generated/ts/wire/coding.js";
import { readFrame } from "../../generated/ts/wire/frames.js";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import { uncleared } from "../runtime/index.js";
import { knownCapabilities } from "./capabilities.js";
import { checkFrame, type Frame, faultOfBatch } from "./frames.js";

/** The u32 big-endian length before each frame. */
export const lengthPrefixBytes = 4;

/** A frame that has begun has memory for so many times what has come of it: a length that is only declared has none. */
const growth = 4;

/** Up to here clearing costs less than not to. */
const smallBytes = 4096;

/** Up to here copying a payload saves no memory. */
const smallFrameBytes = 256;

/** A payload that is shorter than this part of an equal share of its frame is copied. */
const leastShare = 1 / 4;

const none: Uint8Array = new Uint8Array(0);

/** What a decoder is told when it is made. */
export interface FrameDecoderOptions {
  /** The greatest frame accepted, in bytes, without its length prefix. */
  readonly maxFrameBytes: number;
  /** Bytes that must come before the first frame. Default: none. */
  readonly preamble?: Uint8Array;
}

const optionNames = namesOf<FrameDecoderOptions>({ maxFrameBytes: true, preamble: true });

/**
 * Decodes a stream of frames. Feed it with {@link push} and call {@link next} until it returns undefined. After `next`
 * has thrown, the stream has no meaning any more, and every further call throws the same error.
 *
 * Frames are checked against the spec's rules. Each is copied once, into memory of its own: the caller may use what it pushed
 * again. A payload is a view, and keeps its frame in memory; one that is much shorter than its share of a long frame is a
 * copy. What is allocated for a frame follows what has come of it, not its declared length.
 */
export class FrameDecoder {
  /** The greatest frame accepted from now on, in bytes. May change between two calls of {@link next}. */
  maxFrameBytes: number;

  readonly #input = new FrameInput();
  #preamble: Uint8Array | undefined;
  #failure: HawserError | undefined;
  /** Frames that have come whole, and how many of them were taken. */
  #whole: Uint8Array[] = [];
  #taken = 0;
  /** Of the length in front of the next frame: what has come of it, and how many bytes that is. */
  #prefix = 0;
  #prefixBytes = 0;
  /** The length of the frame that has begun; undefined: none has. */
  #length: number | undefined;
  #memory = none;
  #filled = 0;

  /** @throws HawserError `invalid_argument` for an option that there is not */
  constructor(options: FrameDecoderOptions) {
    const problem = unknownOption(options, "a FrameDecoder", optionNames);
    if (problem !== undefined) throw new HawserError("invalid_argument", problem);
    this.maxFrameBytes = options.maxFrameBytes;
    this.#preamble = options.preamble;
    // The preamble comes first, without a length.
    this.#length = options.preamble?.length;
  }

  /** True until the whole preamble has come and {@link next} has seen it. */
  get awaitsPreamble(): boolean {
    return this.#preamble !== undefined;
  }

  /** Appends received bytes. They are copied. */
  push(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    let at = 0;
    while (at < chunk.length) at = this.#length === undefined ? this.#readLength(chunk, at) : this.#fill(chunk, at);
  }

  /** Forgets what has come: nothing is to be decoded any more. */
  clear(): void {
    this.#whole = [];
    this.#taken = 0;
    this.#length = undefined;
    this.#memory = none;
    this.#filled = 0;
  }

  /**
   * The next frame, or undefined while it has not come whole.
   *
   * @throws HawserError `protocol_violation` for a wrong preamble, a frame above the limit, of an unknown kind, undecodable,
   * or against a rule of the spec
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

  /** Compares what has come byte by byte, so that a stranger is refused at its first wrong byte. */
  #takePreamble(preamble: Uint8Array): boolean {
    const [whole] = this.#whole;
    const come = whole ?? this.#memory.subarray(0, this.#filled);
    for (let i = 0; i < come.length; i++) {
      if (come[i] !== preamble[i]) throw violation("the connection does not begin with the preamble of this protocol");
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

  /** @returns how far it has read, as {@link #fill} */
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
 * @param bytes the frame without its length prefix; the result may keep views of it
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
    const detail = cause instanceof Error ? cause.message : String(cause);
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
 * Copies the payloads shorter than `least`. As views they would keep a frame in memory that may have very long headers,
 * other payloads or fields that this version does not know, none of which counts for them.
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
