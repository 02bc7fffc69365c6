/**
 * The generated codec of each kind of frame, and the tags that lead to nested messages. Tags are asked of the generated
 * encoders instead of being written down, so that field numbers are said in the spec alone.
 */
import type { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  Ack,
  Batch,
  Challenge,
  Frame as CodecFrame,
  GoLive,
  Goodbye,
  Hello,
  PayloadHeaders,
  Ping,
  Pong,
  Refuse,
  Welcome,
} from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { FrameKind } from "./types.js";

/** A frame as the generated code has it, with its kind. */
export type CodecKind = NonNullable<CodecFrame["kind"]>;

/** The value of a kind of frame as the generated code has it. */
export type CodecValue<K extends FrameKind> = Extract<CodecKind, { $case: K }>["value"];

/** Encoder and decoder of one message. */
export interface Codec<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): T;
}

/** Each kind's codec. A kind that the spec adds is missing here until someone says what it means: tsc tells. */
export const codecs: { readonly [K in CodecKind["$case"]]: Codec<CodecValue<K>> } = {
  challenge: Challenge,
  hello: Hello,
  welcome: Welcome,
  refuse: Refuse,
  batch: Batch,
  ack: Ack,
  goLive: GoLive,
  ping: Ping,
  pong: Pong,
  goodbye: Goodbye,
};

const noBytes = new Uint8Array(0);

/** The message with no field set: what decoding nothing gives. */
export function emptyOf<T>(codec: Codec<T>): T {
  return codec.decode(noBytes);
}

/** The tag (field number and wire type, at most 15 << 3 | 7) that the encoding of `message` starts with. */
function firstTag<T>(codec: Codec<T>, message: T): number {
  const tag = codec.encode(message).finish()[0];
  if (tag === undefined || tag > 0x7f) throw new Error("a tag of a frame takes more than one byte");
  return tag;
}

const kinds = Object.keys(codecs) as FrameKind[];

/** The kind of frame behind each tag of `Frame`. */
export const kindOfTag: ReadonlyMap<number, FrameKind> = new Map(
  kinds.map((kind) => {
    const value = emptyOf(codecs[kind] as Codec<unknown>);
    return [firstTag(CodecFrame, { kind: { $case: kind, value } as CodecKind }), kind];
  }),
);

/** The tag of each kind in `Frame`. */
export const tagOfKind = Object.fromEntries([...kindOfTag].map(([tag, kind]) => [kind, tag])) as Record<
  FrameKind,
  number
>;

/** The tag of a payload in `Batch`. */
export const payloadTag = firstTag(Batch, { ...emptyOf(Batch), payloads: [noBytes] });

/** The tags of a message's nested messages, each with theirs. */
export type Nesting = ReadonlyMap<number, Nesting>;

const flat: Nesting = new Map();

/** The nested messages of `Batch`; no other kind has any. */
export const batchNesting: Nesting = new Map([
  [firstTag(Batch, { ...emptyOf(Batch), compressions: [{ index: 0, compression: 0, uncompressedBytes: 0n }] }), flat],
  [
    firstTag(Batch, { ...emptyOf(Batch), headers: [{ index: 0, headers: [] }] }),
    new Map([[firstTag(PayloadHeaders, { index: 0, headers: [{ name: "", value: "" }] }), flat]]),
  ],
]);
