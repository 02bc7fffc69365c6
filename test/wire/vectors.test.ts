import { readFileSync } from "node:fs";
import {
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type Message,
  ScalarType,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { FieldOptions_JSType } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { CapabilitySchema, FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import {
  Capability,
  Compression,
  decodeFrame,
  decompress,
  FrameDecoder,
  ownCapabilities,
} from "../../src/jobs-and-peers/wire/index.js";
import { decode, encode } from "./coding.js";
import {
  acceptedVectors,
  bytesOfHex,
  frameVectors,
  hexOfBytes,
  longFrameVectors,
  payloadVectors,
  type RefusedVector,
  refusedVectors,
  type StreamVector,
  streamVectors,
} from "./vectors.js";

/** A frame without its length prefix. */
const bodyOf = (hex: string): Uint8Array => bytesOfHex(hex).subarray(4);

const allFrames = [...frameVectors, ...longFrameVectors];

/** The messages of all kinds of frames, each with those that are nested in it. */
const reached = (message: DescMessage): DescMessage[] => [
  message,
  ...message.fields.flatMap((field) => (field.message === undefined ? [] : reached(field.message))),
];
const messages = [...new Set(reached(FrameSchema))].filter((message) => message !== FrameSchema);

type Limits = Partial<Record<"min" | "max" | "minBytes" | "maxBytes" | "minItems" | "maxItems", number>>;
const limitsOf = ({ parent, localName }: DescField): Limits =>
  (limits as Readonly<Record<string, Readonly<Record<string, Limits>>>>)[parent.name]?.[localName] ?? {};

describe("the vectors of frames", () => {
  it("have every kind of frame", () => {
    const kinds = new Set(frameVectors.map(({ json }) => Object.keys(json as object)[0]));
    expect([...kinds].sort()).toEqual(FrameSchema.oneofs[0]!.fields.map((field) => field.jsonName).sort());
  });

  it("have every capability, so that a peer in another language knows it", () => {
    const named = new Set(JSON.stringify(frameVectors).match(/CAPABILITY_\w+/g));
    const all = CapabilitySchema.values.filter(({ number }) => number > 0).map(({ name }) => name);
    expect(all.filter((name) => !named.has(name))).toEqual([]);
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

  it("have one that is refused for each limit of each field, and for a control character in each text", () => {
    const breaks: Readonly<Record<string, (value: never, limit: number) => boolean>> = {
      min: (value: number, limit) => value < limit,
      max: (value: number, limit) => value > limit,
      minBytes: (value: string | Uint8Array, limit) => Buffer.byteLength(value) < limit,
      maxBytes: (value: string | Uint8Array, limit) => Buffer.byteLength(value) > limit,
      minItems: (value: unknown[], limit) => value.length < limit,
      maxItems: (value: unknown[], limit) => value.length > limit,
      noControls: (value: string) => [...value].some((character) => character > "\0" && character < " "),
    };
    const rulesOf = (field: DescField): [rule: string, limit: number][] => {
      // These have the words of any error; what shows them to people escapes them.
      const isFree = ["Refuse", "Answer"].includes(field.parent.name) && field.name === "message";
      const controls = field.scalar === ScalarType.STRING && !isFree ? { noControls: 0 } : {};
      // A vector with too many elements of a long list would be as long.
      const all = Object.entries({ ...limitsOf(field), ...controls });
      return all.filter(([rule, limit]) => rule !== "maxItems" || limit < 1000);
    };
    const said = ({ parent, name }: DescField, rule: string): string => `${parent.name}.${name}: ${rule}`;
    const brokenIn = (message: Message): string[] =>
      messages
        .find(({ typeName }) => typeName === message.$typeName)!
        .fields.flatMap((field) => {
          const value = (message as unknown as Readonly<Record<string, unknown>>)[field.localName];
          const own = rulesOf(field).filter(([rule, limit]) => breaks[rule]!(value as never, limit));
          const nested = field.message === undefined ? [] : (value as Message[]);
          return [...own.map(([rule]) => said(field, rule)), ...nested.flatMap(brokenIn)];
        });
    const brokenBy = ({ frameHex }: RefusedVector): string[] => {
      try {
        const { kind } = fromBinary(FrameSchema, bodyOf(frameHex));
        return kind.value === undefined ? [] : brokenIn(kind.value);
      } catch {
        return []; // It is no protobuf.
      }
    };
    // Of several faults a decoder may know only one.
    const broken = new Set(refusedVectors.map(brokenBy).flatMap((rules) => (rules.length === 1 ? rules : [])));
    const rules = messages.flatMap(({ fields }) =>
      fields.flatMap((field) => rulesOf(field).map(([rule]) => said(field, rule))),
    );
    expect(rules.filter((rule) => !broken.has(rule))).toEqual([]);
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

  it("limit each list and each text, but the payloads, which the other side limits", () => {
    const isText = ({ scalar }: DescField) => scalar === ScalarType.STRING || scalar === ScalarType.BYTES;
    const open = messages.flatMap(({ fields }) =>
      fields.filter((field) => {
        const { maxBytes, maxItems } = limitsOf(field);
        return (field.fieldKind === "list" && maxItems === undefined) || (isText(field) && maxBytes === undefined);
      }),
    );
    expect(open.map(({ parent, name }) => `${parent.name}.${name}`)).toEqual([
      "Batch.payloads",
      "Request.payload",
      "Answer.payload",
    ]);
  });

  it("are never longer than the other side accepts, but a Batch, which is split", () => {
    const { frameOverheadBytes, maxHandshakeFrameBytes } = protocolConstants;
    // Around a message, and around each value, stand a tag and a length of at most 6 bytes; a number takes 10 at most.
    const greatest = ({ fields }: DescMessage): number =>
      fields.reduce((sum, field) => {
        const { maxBytes = 10, maxItems = 1 } = limitsOf(field);
        return sum + maxItems * (6 + (field.message === undefined ? maxBytes : greatest(field.message)));
      }, 6);
    const ofHandshake = ["challenge", "hello", "welcome", "refuse"];
    const tooLong = FrameSchema.fields.filter(({ localName, message }) => {
      const accepted = ofHandshake.includes(localName) ? maxHandshakeFrameBytes : frameOverheadBytes;
      return localName !== "batch" && greatest(message!) > accepted;
    });
    expect(tooLong.map(({ name }) => name)).toEqual([]);
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

  it("have their messages and enums named in src/jobs-and-peers/wire/index.ts", () => {
    const enums = messages.flatMap(({ fields }) => fields.flatMap((field) => field.enum?.name ?? []));
    const index = readFileSync(new URL("../../src/jobs-and-peers/wire/index.ts", import.meta.url), "utf8");
    const lists = index.match(/export \{[^}]*\}/g) ?? [];
    const exported = new Set(lists.flatMap((names) => names.match(/\w+/g) ?? []));
    expect([...messages.map(({ name }) => name), ...new Set(enums)].filter((name) => !exported.has(name))).toEqual([]);
  });
});

describe("the vectors of streams", () => {
  /** Decodes the stream in pieces of this size. */
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
