/**
 * Bytes in, frames out: the stream of one direction of a connection, split anywhere.
 */
import { FrameInput } from "../../generated/ts/wire/coding.js";
import { readFrame } from "../../generated/ts/wire/frames.js";
import { namesOf, unknownOption, WireError } from "../errors/index.js";
import { knownCapabilities } from "./capabilities.js";
import { FrameAssembler } from "./frame-assembler.js";
import { checkFrame, type Frame, faultOfBatch } from "./frames.js";

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
 * Frames are checked against the spec's rules. Payloads and nonces are views into a copy of their frame; what is allocated
 * for a frame follows what has come of it, not its declared length.
 */
export class FrameDecoder {
  /** The greatest frame accepted from now on, in bytes. May change between two calls of {@link next}. */
  maxFrameBytes: number;

  #assembler: FrameAssembler;
  readonly #input = new FrameInput();
  #preamble: Uint8Array | undefined;
  #failure: WireError | undefined;

  /** @throws WireError `invalid_argument` for an option that there is not */
  constructor(options: FrameDecoderOptions) {
    const problem = unknownOption(options, "a FrameDecoder", optionNames);
    if (problem !== undefined) throw new WireError("invalid_argument", problem);
    this.maxFrameBytes = options.maxFrameBytes;
    this.#preamble = options.preamble;
    this.#assembler = new FrameAssembler(options.preamble?.length ?? 0);
  }

  /** True until the whole preamble has come and {@link next} has seen it. */
  get awaitsPreamble(): boolean {
    return this.#preamble !== undefined;
  }

  /** Appends received bytes. They are copied. */
  push(chunk: Uint8Array): void {
    if (this.#failure === undefined) this.#assembler.push(chunk);
  }

  /** Forgets what has come: nothing is to be decoded any more. */
  clear(): void {
    this.#assembler = new FrameAssembler(0);
  }

  /**
   * The next frame, or undefined while it has not come whole.
   *
   * @throws WireError `protocol_violation` for a wrong preamble, a frame above the limit, of an unknown kind, undecodable,
   * or against a rule of the spec
   */
  next(): Frame | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      if (this.#preamble !== undefined && !this.#takePreamble(this.#preamble)) return undefined;
      const { length } = this.#assembler;
      if (length !== undefined && length > this.maxFrameBytes) {
        throw violation(`a frame declares ${length} bytes; at most ${this.maxFrameBytes} are accepted here`);
      }
      const frame = this.#assembler.take();
      return frame === undefined ? undefined : decode(this.#input, frame);
    } catch (error) {
      if (WireError.is(error)) this.#failure = error;
      throw error;
    }
  }

  /** Compares what has come byte by byte, so that a stranger is refused at its first wrong byte. */
  #takePreamble(preamble: Uint8Array): boolean {
    const come = this.#assembler.begun;
    for (let i = 0; i < come.length; i++) {
      if (come[i] !== preamble[i]) throw violation("the connection does not begin with the preamble of this protocol");
    }
    if (this.#assembler.take() === undefined) return false;
    this.#preamble = undefined;
    return true;
  }
}

/**
 * Decodes one frame.
 *
 * @param bytes the frame without its length prefix; the result keeps views of it
 * @throws WireError `protocol_violation`, as {@link FrameDecoder.next}
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
  } else if (frame.$case === "challenge" || frame.$case === "hello" || frame.$case === "welcome") {
    frame.value.capabilities = knownCapabilities(frame.value.capabilities);
  }
  return frame;
}

function violation(message: string, cause?: unknown): WireError {
  return new WireError("protocol_violation", message, cause === undefined ? {} : { cause });
}
