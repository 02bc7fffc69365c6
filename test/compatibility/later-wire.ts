/**
 * The wire of a program of a later minor version: every message that it sends, down to the deepest, has fields that this
 * version does not know.
 */
import { fromJson, isMessage, type Message, toBinary, type UnknownField } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { NodeWire, type NodeWireOptions } from "../conformance/peer/node-wire.js";
import type { FrameJson } from "../conformance/peer/wire.js";

/** Unknown fields, one of each kind of encoding; their numbers are far from those of the spec. */
const later: readonly UnknownField[] = [
  { no: 901, wireType: WireType.Varint, data: Uint8Array.of(0xac, 0x02) },
  { no: 902, wireType: WireType.Bit64, data: new Uint8Array(8).fill(7) },
  { no: 903, wireType: WireType.LengthDelimited, data: Uint8Array.of(5, ...Buffer.from("later")) },
  { no: 904, wireType: WireType.Bit32, data: new Uint8Array(4).fill(7) },
];

function extend(value: unknown): void {
  if (Array.isArray(value)) for (const one of value) extend(one);
  else if (isMessage(value)) {
    for (const field of Object.values(value as Message & Record<string, unknown>)) extend(field);
    value.$unknown = [...later];
  } else if (typeof value === "object" && value !== null && "case" in value && "value" in value) extend(value.value);
}

/** A frame with unknown fields in it and in everything within. */
export function laterBody(frame: FrameJson): Uint8Array {
  const message = fromJson(FrameSchema, frame as never);
  extend(message);
  return toBinary(FrameSchema, message);
}

/** The wire of the later program. */
export function laterWire(options: NodeWireOptions = {}): NodeWire {
  return new NodeWire({ encodeBody: laterBody, ...options });
}
