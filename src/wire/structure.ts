/**
 * What the generated decoder does not check: that every length ends where its message ends. It accepts a length that
 * leaves its submessage as long as it stays within the bytes it was given, and takes a zero tag for the end. So each
 * frame's value is decoded from a view of exactly its own bytes, and what nests deeper is walked once.
 */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { WireError } from "../errors/index.js";
import { kindOfTag, type Nesting } from "./codecs.js";
import type { FrameKind } from "./types.js";

const lengthDelimited = 2;

/** The one value of a frame, not decoded yet. */
export interface Envelope {
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
export function openEnvelope(frame: Uint8Array, decodeUtf8: (bytes: Uint8Array) => string): Envelope {
  const reader = new BinaryReader(frame, decodeUtf8);
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
      envelope = { kind, body: new BinaryReader(bytes, decodeUtf8), bytes };
    }
  }
  if (envelope === undefined) {
    throw new WireError("protocol_violation", "a frame is of no kind that this version knows");
  }
  return envelope;
}

/**
 * Checks that the lengths within a message end where the message ends, down through its nested messages.
 *
 * @throws whatever the reader throws when one does not
 */
export function checkNesting(message: Uint8Array, nesting: Nesting): void {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [fieldNumber, wireType] = reader.tag();
    const nested = wireType === lengthDelimited ? nesting.get((fieldNumber << 3) | wireType) : undefined;
    if (nested === undefined) reader.skip(wireType, fieldNumber);
    else checkNesting(reader.bytes(), nested);
  }
}
