/**
 * Bytes in, frames out: the stream of one direction of a connection, split anywhere.
 */
import { namesOf, unknownOption, WireError } from "../errors/index.js";
import { faultOfBatch } from "./batch-rules.js";
import { ByteQueue } from "./byte-queue.js";
import { batchNesting, type Codec, type CodecKind, codecs } from "./codecs.js";
import { frameOfCodec } from "./from-codec.js";
import { checkNesting, openEnvelope } from "./structure.js";
import type { Frame } from "./types.js";
import { checkRules } from "./validate.js";

/** The u32 big-endian length before each frame. */
const lengthPrefixBytes = 4;

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
 * Frames are checked against the spec's rules. Payloads and nonces are views into the pushed chunk when their frame lies
 * within it, else into a copy of the frame; nothing is allocated for a declared length before its bytes are there.
 */
export class FrameDecoder {
  /** The greatest frame accepted from now on, in bytes. May change between two calls of {@link next}. */
  maxFrameBytes: number;

  readonly #queue = new ByteQueue();
  #preamble: Uint8Array | undefined;
  #failure: WireError | undefined;

  /** @throws WireError `invalid_argument` for an option that there is not */
  constructor(options: FrameDecoderOptions) {
    const problem = unknownOption(options, "a FrameDecoder", optionNames);
    if (problem !== undefined) throw new WireError("invalid_argument", problem);
    this.maxFrameBytes = options.maxFrameBytes;
    this.#preamble = options.preamble;
  }

  /** Bytes that were pushed and not decoded yet. */
  get bufferedBytes(): number {
    return this.#queue.length;
  }

  /** True until the whole preamble has come and {@link next} has seen it. */
  get awaitsPreamble(): boolean {
    return this.#preamble !== undefined;
  }

  /**
   * Appends received bytes. The decoder and the frames' views own them from now on. Pass a plain Uint8Array: views of a
   * Buffer are Buffers and cost 40 % more.
   */
  push(chunk: Uint8Array): void {
    if (this.#failure === undefined) this.#queue.push(chunk);
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
      const frame = this.#takeFrame();
      return frame === undefined ? undefined : decodeFrame(frame);
    } catch (error) {
      if (WireError.is(error)) this.#failure = error;
      throw error;
    }
  }

  /** Compares what has come byte by byte, so that a stranger is refused at its first wrong byte. */
  #takePreamble(preamble: Uint8Array): boolean {
    const come = this.#queue.take(Math.min(preamble.length, this.#queue.length));
    for (let i = 0; i < come.length; i++) {
      if (come[i] !== preamble[i]) {
        throw new WireError("protocol_violation", "the connection does not begin with the preamble of this protocol");
      }
    }
    this.#preamble = come.length < preamble.length ? preamble.subarray(come.length) : undefined;
    return this.#preamble === undefined;
  }

  #takeFrame(): Uint8Array | undefined {
    const length = this.#queue.peekUint32();
    if (length === undefined) return undefined;
    if (length > this.maxFrameBytes) {
      throw new WireError(
        "protocol_violation",
        `a frame declares ${length} bytes; at most ${this.maxFrameBytes} are accepted here`,
      );
    }
    if (this.#queue.length < lengthPrefixBytes + length) return undefined;
    this.#queue.skip(lengthPrefixBytes);
    return this.#queue.take(length);
  }
}

/**
 * Decodes one frame.
 *
 * @param bytes the frame without its length prefix; the result keeps views of it
 * @throws WireError `protocol_violation`, as {@link FrameDecoder.next}
 */
export function decodeFrame(bytes: Uint8Array): Frame {
  const decoded = decodeStructure(bytes);
  checkRules(decoded, "protocol_violation");
  const frame = frameOfCodec(decoded);
  const fault = frame.kind === "batch" ? faultOfBatch(frame.value) : undefined;
  if (fault !== undefined) throw new WireError("protocol_violation", fault);
  return frame;
}

/** The generated decoders throw RangeError, TypeError or Error for bytes that are no message. */
function decodeStructure(bytes: Uint8Array): CodecKind {
  try {
    const { kind, body, bytes: around } = openEnvelope(bytes, decodeUtf8Strictly);
    const start = body.pos;
    const value = (codecs[kind] as Codec<unknown>).decode(body, body.len - start);
    // A zero tag or the end of a group ends the generated decoder early.
    if (body.pos !== body.len) throw new RangeError(`the ${kind} ends before its bytes do`);
    const decoded = { $case: kind, value } as CodecKind;
    if (decoded.$case === "batch" && (decoded.value.compressions.length > 0 || decoded.value.headers.length > 0)) {
      checkNesting(around.subarray(start), batchNesting);
    }
    return decoded;
  } catch (cause) {
    if (WireError.is(cause)) throw cause;
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new WireError("protocol_violation", `a frame cannot be decoded: ${detail}`, { cause });
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** proto3 strings are valid UTF-8; replacement characters would let two different names look alike. */
function decodeUtf8Strictly(bytes: Uint8Array): string {
  return utf8.decode(bytes);
}
