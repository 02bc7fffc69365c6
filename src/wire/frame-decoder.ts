/**
 * Bytes in, frames out: the stream of one direction of a connection, split anywhere.
 */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { type Answer, Batch, Header, type Request } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { namesOf, unknownOption, WireError } from "../errors/index.js";
import { isAscii, latin1Of } from "../runtime/index.js";
import { knownCapabilities } from "./capabilities.js";
import { FrameAssembler } from "./frame-assembler.js";
import {
  type Codec,
  checkFrame,
  codecs,
  endingWithHeaders,
  type Frame,
  type FrameKind,
  headersIndexTag,
  headersTag,
  headerTag,
  keptHeadersBytes,
  kindOfTag,
  type Nesting,
  nestings,
  payloadTag,
} from "./frames.js";

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
  readonly #headers = new HeaderLists();
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
      const frame = this.#takeFrame();
      return frame === undefined ? undefined : decodeBehind(frame, this.#headers);
    } catch (error) {
      if (WireError.is(error)) this.#failure = error;
      throw error;
    }
  }

  /** Compares what has come byte by byte, so that a stranger is refused at its first wrong byte. */
  #takePreamble(preamble: Uint8Array): boolean {
    const come = this.#assembler.begun;
    for (let i = 0; i < come.length; i++) {
      if (come[i] !== preamble[i]) {
        throw new WireError("protocol_violation", "the connection does not begin with the preamble of this protocol");
      }
    }
    if (this.#assembler.take() === undefined) return false;
    this.#preamble = undefined;
    return true;
  }

  #takeFrame(): Uint8Array | undefined {
    const { length } = this.#assembler;
    if (length !== undefined && length > this.maxFrameBytes) {
      throw new WireError(
        "protocol_violation",
        `a frame declares ${length} bytes; at most ${this.maxFrameBytes} are accepted here`,
      );
    }
    return this.#assembler.take();
  }
}

/**
 * Decodes one frame.
 *
 * @param bytes the frame without its length prefix; the result keeps views of it
 * @throws WireError `protocol_violation`, as {@link FrameDecoder.next}
 */
export function decodeFrame(bytes: Uint8Array): Frame {
  return decodeBehind(bytes, new HeaderLists());
}

/** @param headers those of earlier frames */
function decodeBehind(bytes: Uint8Array, headers: HeaderLists): Frame {
  const frame = decodeStructure(bytes, headers);
  checkFrame(frame, "protocol_violation");
  if (frame.$case === "challenge" || frame.$case === "hello" || frame.$case === "welcome") {
    frame.value.capabilities = knownCapabilities(frame.value.capabilities);
  }
  return frame;
}

/** The generated decoders throw RangeError, TypeError or Error for bytes that are no message. */
function decodeStructure(bytes: Uint8Array, headers: HeaderLists): Frame {
  try {
    const { kind, body, bytes: around } = openEnvelope(bytes, decodeUtf8Strictly);
    const start = body.pos;
    if (kind === "batch") {
      const value = decodeBatch(body, around, headers);
      if (value !== undefined) return { $case: kind, value };
    } else if (kind === "request" || kind === "answer") {
      const value = decodeWithHeaders(kind, body, around, headers);
      if (value !== undefined) return { $case: kind, value } as Frame;
    }
    body.pos = start;
    const value = (codecs[kind] as Codec<unknown>).decode(body, body.len - start);
    // A zero tag or the end of a group ends the generated decoder early.
    if (body.pos !== body.len) throw new RangeError(`the ${kind} ends before its bytes do`);
    const frame = { $case: kind, value } as Frame;
    const nested = nestings.get(kind);
    if (nested?.fields.some((field) => (value as Record<string, readonly unknown[]>)[field]!.length > 0)) {
      checkNesting(around.subarray(start), nested.nesting);
    }
    return frame;
  } catch (cause) {
    if (WireError.is(cause)) throw cause;
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new WireError("protocol_violation", `a frame cannot be decoded: ${detail}`, { cause });
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** proto3 strings are valid UTF-8; replacement characters would let two different names look alike. */
function decodeUtf8Strictly(bytes: Uint8Array): string {
  // Far faster for the short names that most are.
  return isAscii(bytes, 0, bytes.length) ? latin1Of(bytes) : utf8.decode(bytes);
}

/*
 * What the generated decoder does not check: that every length ends where its message ends. It accepts a length that
 * leaves its submessage as long as it stays within the bytes it was given, and takes a zero tag for the end. So each
 * frame's value is decoded from a view of exactly its own bytes, and what nests deeper is walked once.
 */

const lengthDelimited = 2;

/**
 * The generated code writes every 64-bit field as text and reads its number from that, which costs less for a number than
 * for a bigint: so what has up to 49 bits, nearly everything, is read as a number.
 */
class FrameReader extends BinaryReader {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, decodeUtf8: (bytes: Uint8Array) => string) {
    super(bytes, decodeUtf8);
    this.#bytes = bytes;
  }

  override uint64(): bigint | string {
    let value = 0;
    let scale = 1;
    const end = Math.min(this.pos + 7, this.len);
    for (let at = this.pos; at < end; at++) {
      const byte = this.#bytes[at] as number;
      value += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) {
        this.pos = at + 1;
        return value as unknown as bigint;
      }
    }
    return super.uint64();
  }
}

/**
 * The lists of headers that messages of a connection have. Messages that follow each other mostly have the same headers,
 * such as their content type: they share a list, which is decoded once.
 */
class HeaderLists {
  #bytes = new Uint8Array(0);
  #last: Header[] = [];

  /**
   * The headers that the bytes from `start` to `end` encode, each behind `headerTag`; undefined if they are not simply one
   * behind another.
   */
  read(bytes: Uint8Array, start: number, end: number, headerTag: number): Header[] | undefined {
    if (this.#isLast(bytes, start, end)) return this.#last;
    const reader = new BinaryReader(bytes.subarray(start, end));
    const headers: Header[] = [];
    while (reader.pos < reader.len) {
      if (reader.uint32() !== headerTag) return undefined;
      const one = reader.bytes();
      checkNesting(one, nothingNested);
      headers.push(Header.decode(new FrameReader(one, decodeUtf8Strictly)));
    }
    if (end - start <= keptHeadersBytes) {
      // Its own, since the others may be a view of something large.
      this.#bytes = bytes.slice(start, end);
      this.#last = headers;
    }
    return headers;
  }

  #isLast(bytes: Uint8Array, start: number, end: number): boolean {
    const known = this.#bytes;
    const { length } = known;
    if (length !== end - start) return false;
    for (let index = 0; index < length; index++) if (known[index] !== bytes[start + index]) return false;
    return true;
  }
}

/**
 * Decodes a batch whose payloads and then their headers come behind its other fields, as encoders write them. Most of the
 * time of a batch with headers is spent here: the generated decoder takes several times as long.
 *
 * @param reader stands before the batch
 * @param bytes what it reads, from the very beginning; they end with the batch
 * @returns undefined for a batch of another form: the generated decoder knows what to make of it
 */
function decodeBatch(reader: BinaryReader, bytes: Uint8Array, lists: HeaderLists): Batch | undefined {
  const start = reader.pos;
  const end = bytes.length;
  while (reader.pos < end && bytes[reader.pos] !== payloadTag) {
    const [fieldNumber, wireType] = reader.tag();
    // Of a longer form than it needs to be, or of a newer version.
    if (wireType !== 0 || fieldNumber << 3 >= payloadTag) return undefined;
    reader.skip(wireType);
  }
  const payloadsAt = reader.pos;
  reader.pos = start;
  const batch = Batch.decode(reader, payloadsAt - start);
  if (reader.pos !== payloadsAt) return undefined;
  while (reader.pos < end && bytes[reader.pos] === payloadTag) {
    reader.pos += 1;
    batch.payloads.push(reader.bytes());
  }
  while (reader.pos < end) {
    if (reader.uint32() !== headersTag) return undefined;
    const entryEnd = reader.uint32() + reader.pos;
    if (entryEnd > end) return undefined;
    let index = 0;
    if (reader.pos < entryEnd && bytes[reader.pos] === headersIndexTag) {
      reader.pos += 1;
      index = reader.uint32();
    }
    const headers = reader.pos <= entryEnd ? lists.read(bytes, reader.pos, entryEnd, headerTag) : undefined;
    if (headers === undefined) return undefined;
    reader.pos = entryEnd;
    batch.headers.push({ index, headers });
  }
  return batch;
}

/** The same for a frame that ends with its headers. @returns undefined for one without headers, or of another form */
function decodeWithHeaders(
  kind: keyof typeof endingWithHeaders,
  reader: BinaryReader,
  bytes: Uint8Array,
  lists: HeaderLists,
): Request | Answer | undefined {
  const { headerTag } = endingWithHeaders[kind];
  const start = reader.pos;
  while (bytes[reader.pos] !== headerTag) {
    if (reader.pos >= reader.len) return undefined;
    const [fieldNumber, wireType] = reader.tag();
    reader.skip(wireType, fieldNumber);
  }
  const headersAt = reader.pos;
  const headers = lists.read(bytes, headersAt, reader.len, headerTag);
  if (headers === undefined) return undefined;
  reader.pos = start;
  const value = codecs[kind].decode(reader, headersAt - start);
  if (reader.pos !== headersAt) return undefined;
  value.headers = headers;
  return value;
}

/** The one value of a frame, not decoded yet. */
interface Envelope {
  readonly kind: FrameKind;
  /** Stands before the value, and ends with it. */
  readonly body: BinaryReader;
  /** What {@link body} reads, from its very beginning. */
  readonly bytes: Uint8Array;
}

/**
 * Finds the value of a frame. Fields of `Frame` that this version does not know are passed over.
 *
 * @param frame the frame's bytes without the length prefix
 * @param decodeUtf8 how the body's reader decodes strings
 * @throws WireError `protocol_violation` without a known kind or with two; whatever the reader throws when a length leaves
 * the frame
 */
function openEnvelope(frame: Uint8Array, decodeUtf8: (bytes: Uint8Array) => string): Envelope {
  const reader = new FrameReader(frame, decodeUtf8);
  // Nearly every frame is one field from its first byte to its last: then the same reader goes on with the value.
  const kind = frame.length > 1 ? kindOfTag.get(frame[0]!) : undefined;
  if (kind !== undefined) {
    reader.pos = 1;
    if (reader.uint32() === reader.len - reader.pos) return { kind, body: reader, bytes: frame };
  }
  return searchEnvelope(frame, decodeUtf8);
}

function searchEnvelope(frame: Uint8Array, decodeUtf8: (bytes: Uint8Array) => string): Envelope {
  const reader = new BinaryReader(frame);
  let envelope: Envelope | undefined;
  while (reader.pos < reader.len) {
    const [fieldNumber, wireType] = reader.tag();
    const kind = wireType === lengthDelimited ? kindOfTag.get((fieldNumber << 3) | wireType) : undefined;
    if (kind === undefined) {
      reader.skip(wireType, fieldNumber);
    } else if (envelope !== undefined) {
      throw new WireError("protocol_violation", `a frame has two kinds, ${envelope.kind} and ${kind}`);
    } else {
      const bytes = reader.bytes();
      envelope = { kind, body: new FrameReader(bytes, decodeUtf8), bytes };
    }
  }
  if (envelope === undefined) {
    throw new WireError("protocol_violation", "a frame is of no kind that this version knows");
  }
  return envelope;
}

const nothingNested: Nesting = new Map();

/**
 * Checks that the lengths within a message end where the message ends, down through its nested messages.
 *
 * @throws whatever the reader throws when one does not
 */
function checkNesting(message: Uint8Array, nesting: Nesting): void {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [fieldNumber, wireType] = reader.tag();
    const nested = wireType === lengthDelimited ? nesting.get((fieldNumber << 3) | wireType) : undefined;
    if (nested === undefined) reader.skip(wireType, fieldNumber);
    else checkNesting(reader.bytes(), nested);
  }
}
