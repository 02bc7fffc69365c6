import { readFileSync } from "node:fs";
import {
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  ScalarType,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { FieldOptions_JSType } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import {
  Capability,
  Compression,
  decodeFrame,
  decompress,
  FrameDecoder,
  ownCapabilities,
} from "../../src/wire/index.js";
import { decode, encode } from "./coding.js";
import {
  acceptedVectors,
  bytesOfHex,
  frameVectors,
  hexOfBytes,
  longFrameVectors,
  payloadVectors,
  refusedVectors,
  type StreamVector,
  streamVectors,
} from "./vectors.js";

/** A frame without its length prefix. */
const bodyOf = (hex: string): Uint8Array => bytesOfHex(hex).subarray(4);

const allFrames = [...frameVectors, ...longFrameVectors];

describe("the vectors of frames", () => {
  it("have every kind of frame", () => {
    const kinds = new Set(frameVectors.map(({ json }) => Object.keys(json as object)[0]));
    expect([...kinds].sort()).toEqual(FrameSchema.oneofs[0]!.fields.map((field) => field.jsonName).sort());
  });

  it.each(allFrames)("$name: another protobuf library reads and writes the same bytes", ({ frameHex, json }) => {
    const message = fromBinary(FrameSchema, bodyOf(frameHex));
    expect(toJson(FrameSchema, message)).toEqual(json);
    expect(hexOfBytes(toBinary(FrameSchema, message))).toBe(frameHex.slice(8));
    expect(hexOfBytes(toBinary(FrameSchema, fromJson(FrameSchema, json as never)))).toBe(frameHex.slice(8));
  });

  it.each(allFrames)("$name: what is decoded is encoded to the same bytes", ({ frameHex }) => {
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
    for (const { frameHex } of [...allFrames, ...acceptedVectors, ...refusedVectors]) {
      expect(Number.parseInt(frameHex.slice(0, 8), 16)).toBe(frameHex.length / 2 - 4);
    }
  });
});

describe("the frames of the spec", () => {
  const kinds = FrameSchema.oneofs[0]!.fields.map((field) => field.message!);

  it("say of every field of 64 bits whether JavaScript has it as a number or as text", () => {
    const silent = (message: DescMessage): string[] =>
      message.fields.flatMap((field) => {
        if (field.message !== undefined) return silent(field.message);
        const isLong = field.scalar === ScalarType.UINT64 || field.scalar === ScalarType.INT64;
        const jstype = field.proto.options?.jstype ?? FieldOptions_JSType.JS_NORMAL;
        return isLong && jstype === FieldOptions_JSType.JS_NORMAL ? [`${message.name}.${field.name}`] : [];
      });
    expect(kinds.flatMap(silent)).toEqual([]);
  });

  it("nest only repeated messages: of one that comes twice, protobuf merges and others take the last", () => {
    const single = ({ name, fields }: DescMessage): string[] =>
      fields.flatMap((field) => {
        if (field.message === undefined) return field.fieldKind === "map" ? [`${name}.${field.name}`] : [];
        return field.fieldKind === "list" ? single(field.message) : [`${name}.${field.name}`];
      });
    expect(kinds.flatMap(single)).toEqual([]);
  });

  /** Each way from a message down to a nested one. */
  const waysDown = ({ fields }: DescMessage): DescField[][] =>
    fields.flatMap((field) =>
      field.message === undefined ? [] : [[field], ...waysDown(field.message).map((way) => [field, ...way])],
    );
  const nested = (number: number, bytes: readonly number[]): number[] => [(number << 3) | 2, bytes.length, ...bytes];
  // Behind the nested message stands field 100 with the value 1, which the length of a field 100 within it swallows.
  const [leaves, swallowed] = [
    [0xa2, 0x06, 3],
    [0xa0, 0x06, 1],
  ] as const;

  const ways = FrameSchema.oneofs[0]!.fields.flatMap((kind) => waysDown(kind.message!).map((way) => ({ kind, way })));
  it.each(ways.map(({ kind, way }) => ({ name: [kind, ...way].map((field) => field.name).join("."), kind, way })))(
    "refuse a length that leaves its message, in $name",
    ({ kind, way }) => {
      const bad = way.reduceRight<number[]>(
        (bytes, field, depth) => [...nested(field.number, bytes), ...(depth === way.length - 1 ? swallowed : [])],
        [...leaves],
      );
      const vector = frameVectors.find(({ json }) => Object.hasOwn(json as object, kind.jsonName));
      if (vector === undefined) expect.fail(`frames.json has no vector of ${kind.jsonName}`);
      const { frameHex } = vector;
      const good = toBinary(kind.message!, fromBinary(FrameSchema, bodyOf(frameHex)).kind.value as never);
      expect(() => decodeFrame(Uint8Array.from(nested(kind.number, [...good, ...bad])))).toThrow(
        expect.objectContaining({
          code: "protocol_violation",
          message: expect.stringContaining("a frame cannot be decoded"),
        }),
      );
    },
  );

  it("have their messages and enums named in src/wire/index.ts", () => {
    const reached = ({ name, fields }: DescMessage): string[] => [
      name,
      ...fields.flatMap(({ message, enum: values }) => (message ? reached(message) : values ? [values.name] : [])),
    ];
    const index = readFileSync(new URL("../../src/wire/index.ts", import.meta.url), "utf8");
    const lists = index.match(/export \{[^}]*\}/g) ?? [];
    const exported = new Set(lists.flatMap((names) => names.match(/\w+/g) ?? []));
    expect([...new Set(reached(FrameSchema))].filter((name) => !exported.has(name))).toEqual([]);
  });
});

describe("the vectors of streams", () => {
  /** What the decoder makes of the stream when it comes in pieces of this size. */
  function receive({ hex, preamble, maxFrameBytes }: StreamVector, pieceBytes: number) {
    const decoder = new FrameDecoder({ maxFrameBytes, ...(preamble ? { preamble: Buffer.from("HWS1") } : {}) });
    const bytes = bytesOfHex(hex);
    const frames: string[] = [];
    try {
      for (let at = 0; at < bytes.length; at += pieceBytes) {
        decoder.push(bytes.slice(at, at + pieceBytes));
        for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) frames.push(frame.$case);
      }
    } catch (error) {
      expect(error).toMatchObject({ code: "protocol_violation" });
      return { frames, end: "refused" };
    }
    return { frames, end: "waits" };
  }

  it.each(streamVectors)("$name: $description", (vector) => {
    const { frames, end } = vector;
    for (const pieceBytes of [1, 2, 3, 5, 1 << 20]) expect(receive(vector, pieceBytes)).toEqual({ frames, end });
  });
});

describe("the vectors of payloads", () => {
  it.each(payloadVectors)("$name: $description", async ({ compression, payloadHex, uncompressedBytes, resultHex }) => {
    const name = compression === "gzip" ? "GZIP" : "ZSTD";
    const expanded = decompress(bytesOfHex(payloadHex), Compression[name], uncompressedBytes, 1 << 20);
    if (!ownCapabilities.includes(Capability[name]))
      await expect(expanded).rejects.toMatchObject({ code: "not_supported" });
    else if (resultHex !== undefined) expect(hexOfBytes(await expanded)).toBe(resultHex);
    else await expect(expanded).rejects.toMatchObject({ code: "protocol_violation" });
  });
});
