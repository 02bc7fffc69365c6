import { fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { decodeFrame } from "../../src/wire/index.js";
import { decode, encode } from "./coding.js";
import { acceptedVectors, bytesOfHex, frameVectors, hexOfBytes, refusedVectors } from "./vectors.js";

/** A frame without its length prefix. */
const bodyOf = (hex: string): Uint8Array => bytesOfHex(hex).subarray(4);

describe("the vectors of frames", () => {
  it("have every kind of frame", () => {
    const kinds = new Set(frameVectors.map(({ json }) => Object.keys(json as object)[0]));
    expect([...kinds].sort()).toEqual(FrameSchema.oneofs[0]!.fields.map((field) => field.jsonName).sort());
  });

  it.each(frameVectors)("$name: another protobuf library reads and writes the same bytes", ({ frameHex, json }) => {
    const message = fromBinary(FrameSchema, bodyOf(frameHex));
    expect(toJson(FrameSchema, message)).toEqual(json);
    expect(hexOfBytes(toBinary(FrameSchema, message))).toBe(frameHex.slice(8));
    expect(hexOfBytes(toBinary(FrameSchema, fromJson(FrameSchema, json as never)))).toBe(frameHex.slice(8));
  });

  it.each(frameVectors)("$name: what is decoded is encoded to the same bytes", ({ frameHex }) => {
    const frames = decode([bytesOfHex(frameHex)]);
    expect(frames).toHaveLength(1);
    expect(hexOfBytes(encode(...frames))).toBe(frameHex);
  });

  it.each(acceptedVectors)("$name is accepted for what it means", ({ frameHex, json }) => {
    const bytes = encode(decodeFrame(bodyOf(frameHex)));
    expect(toJson(FrameSchema, fromBinary(FrameSchema, bytes.subarray(4)))).toEqual(json);
  });

  it.each(refusedVectors)("$name is refused", ({ frameHex }) => {
    expect(() => decode([bytesOfHex(frameHex)])).toThrow(expect.objectContaining({ code: "protocol_violation" }));
  });

  it("have lengths that fit their frames", () => {
    for (const { frameHex } of [...frameVectors, ...acceptedVectors, ...refusedVectors]) {
      expect(Number.parseInt(frameHex.slice(0, 8), 16)).toBe(frameHex.length / 2 - 4);
    }
  });
});
