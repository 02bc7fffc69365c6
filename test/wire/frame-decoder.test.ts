import { type DescMessage, fromBinary, ScalarType, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { FrameInput } from "../../generated/ts/wire/coding.js";
import { readFrame } from "../../generated/ts/wire/frames.js";
import { Delivery, decodeFrame, type Frame, FrameDecoder } from "../../src/jobs-and-peers/wire/index.js";
import { atDepth } from "../support/depth.js";
import { frameArbitrary, framesWithHeaders, headersArbitrary } from "./arbitraries.js";
import { cut, decode, encode } from "./coding.js";
import { bytesOfHex, frameVectors } from "./vectors.js";

const violation = expect.objectContaining({ code: "protocol_violation" });
const stream = new Uint8Array(Buffer.concat(frameVectors.map(({ frameHex }) => bytesOfHex(frameHex))));
/** Offsets at which the frames begin. */
const borders = frameVectors.map((_, index) =>
  frameVectors.slice(0, index).reduce((sum, { frameHex }) => sum + frameHex.length / 2, 0),
);
const ping: Frame = { $case: "ping", value: { token: "1" } };

/** A field of a message, in bytes: its tag, its length and its value. */
function lengthDelimited(tag: number, value: Uint8Array): Uint8Array {
  const length: number[] = [];
  let rest = value.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return new Uint8Array(Buffer.concat([Uint8Array.of(tag, ...length, rest), value]));
}

/** Lists of frames: their greatest lengths, one element with its tag, and the tags of the messages around them, inside out. */
const lists: [name: string, maxItems: number, element: number[], around: number[]][] = [
  ["Challenge.capabilities", 32, [32, 1], [10]],
  ["Hello.capabilities", 32, [64, 1], [18]],
  ["Welcome.capabilities", 32, [48, 1], [26]],
  ["Batch.payloads", 65_536, [42, 0], [42]],
  ["Batch.compressions", 65_536, [50, 0], [42]],
  ["Batch.headers", 65_536, [58, 0], [42]],
  ["PayloadHeaders.headers", 256, [18, 0], [58, 42]],
  // Not one behind another.
  ["PayloadHeaders.headers", 256, [18, 0, 8, 1], [58, 42]],
  ["Request.headers", 256, [50, 0], [90]],
  ["Answer.headers", 256, [50, 0], [98]],
];

/** A frame with a list of so many elements, behind which its message goes on with something that is no field. */
function frameOfList(element: readonly number[], count: number, around: readonly number[]): Uint8Array {
  const list = Uint8Array.from({ length: element.length * count + 1 }, (_, at) => element[at % element.length]!);
  list[list.length - 1] = 0;
  return around.reduce<Uint8Array>((value, tag) => lengthDelimited(tag, value), list);
}

/** Checks that the stream, cut at these offsets, is decoded to what it says. Compared as bytes, which is quicker. */
function readsBack(offsets: readonly number[]): void {
  const frames = decode(cut(stream, offsets));
  expect(frames, `cut at ${offsets}`).toHaveLength(frameVectors.length);
  expect(Buffer.compare(encode(...frames), stream), `cut at ${offsets}`).toBe(0);
}

/**
 * Whether each field that the spec knows has its wire type. Another one makes a field unknown by the rules of Protobuf; the
 * library reads it as if it had the right one.
 */
function hasWireTypes(message: DescMessage, reader: BinaryReader, end: number): boolean {
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const field = message.fields.find((one) => one.number === number);
    const nested = field?.message;
    if (field) {
      const isVarint = !nested && field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES;
      const isPacked = field.fieldKind === "list" && isVarint && wireType === WireType.LengthDelimited;
      if (!isPacked && wireType !== (isVarint ? WireType.Varint : WireType.LengthDelimited)) return false;
    }
    if (!nested) reader.skip(wireType, number);
    else if (!hasWireTypes(nested, reader, reader.uint32() + reader.pos)) return false;
  }
  return true;
}

describe("FrameDecoder", () => {
  it("reads a stream of all kinds of frames split at every offset", () => {
    // `npm test` cuts at every tenth, and wherever a frame begins and has its length.
    const stride = Math.round(10 / atDepth(10));
    const heads = new Set(borders.flatMap((border) => [0, 1, 2, 3, 4, 5, 6].map((byte) => border + byte)));
    for (let offset = 0; offset <= stream.length; offset++) {
      if (offset % stride === 0 || heads.has(offset)) readsBack([offset]);
    }
  });

  it("reads a stream of all kinds of frames in pieces of every length", () => {
    for (let length = 1; length <= 100; length++) {
      readsBack(Array.from({ length: Math.ceil(stream.length / length) - 1 }, (_, i) => (i + 1) * length));
    }
  });

  it("reads back whatever is encoded, however it is split", () => {
    const cases = fc.array(frameArbitrary, { maxLength: 5 }).chain((frames) => {
      const bytes = encode(...frames);
      const offset = fc.oneof(fc.nat(bytes.length), fc.nat(Math.min(bytes.length, 50)));
      return fc.record({
        frames: fc.constant(frames),
        bytes: fc.constant(bytes),
        offsets: fc.array(offset, { maxLength: 20 }).map((offsets) => offsets.sort((a, b) => a - b)),
      });
    });
    fc.assert(
      fc.property(cases, ({ frames, bytes, offsets }) => {
        const decoded = decode(cut(bytes, offsets));
        expect(decoded.map(({ $case }) => $case)).toEqual(frames.map(({ $case }) => $case));
        // Compared as bytes: going through long payloads element by element takes seconds.
        expect(Buffer.compare(encode(...decoded), bytes)).toBe(0);
      }),
      { numRuns: atDepth(300) },
    );
  });

  it("reads back every field of whatever is encoded", () => {
    fc.assert(
      fc.property(frameArbitrary, (frame) => {
        expect(decode([encode(frame)])).toEqual([frame]);
      }),
      { numRuns: atDepth(100) },
    );
  });

  it("reads back headers that repeat, as they would be alone", () => {
    const lists = fc.array(headersArbitrary, { minLength: 1, maxLength: 3 });
    const cases = lists.chain((some) => fc.array(framesWithHeaders(fc.constantFrom(...some)), { maxLength: 8 }));
    fc.assert(
      fc.property(cases, (frames) => {
        const bytes = encode(...frames);
        const apart = Buffer.concat(frames.map((frame) => encode(structuredClone(frame))));
        expect(Buffer.compare(bytes, apart)).toBe(0);
        expect(Buffer.compare(encode(...decode([bytes])), bytes)).toBe(0);
      }),
      { numRuns: atDepth(300) },
    );
  });

  it("throws nothing but protocol violations for random bytes, and never hangs", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const attempt of [() => decode([bytes], 4096), () => decodeFrame(bytes)]) {
          try {
            attempt();
          } catch (error) {
            expect(error).toEqual(violation);
          }
        }
      }),
      { numRuns: atDepth(3000) },
    );
  });

  it("throws nothing but protocol violations for frames with some bytes changed", () => {
    const changed = fc
      .record({
        frame: frameArbitrary,
        changes: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 5 }),
      })
      .map(({ frame, changes }) => {
        const bytes = encode(frame).slice(4);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        return bytes;
      });
    fc.assert(
      fc.property(changed, (bytes) => {
        let frame: Frame;
        try {
          frame = decodeFrame(bytes);
        } catch (error) {
          expect(error).toEqual(violation);
          return;
        }
        const again = encode(frame).subarray(4);
        // What is read is what another library reads. Of capabilities those are left out that this version does not know.
        if (/^(?:challenge|hello|welcome)$/.test(frame.$case)) return;
        if (!hasWireTypes(FrameSchema, new BinaryReader(bytes), bytes.length)) return;
        const other = toBinary(FrameSchema, fromBinary(FrameSchema, bytes, { readUnknownFields: false }));
        expect(Buffer.compare(again, other)).toBe(0);
      }),
      {
        numRuns: atDepth(2000),
        examples: [
          // A tag of more than 32 bits, alone and in a group; a tag of 6 bytes.
          [
            Uint8Array.of(
              50,
              23,
              8,
              128,
              128,
              128,
              128,
              128,
              128,
              1,
              16,
              1,
              24,
              128,
              1,
              181,
              155,
              239,
              190,
              255,
              12,
              32,
              1,
              40,
              1,
            ),
          ],
          [Uint8Array.of(123, 181, 155, 239, 190, 255, 12, 124)],
          [Uint8Array.of(248, 128, 128, 128, 128, 0, 1)],
        ],
      },
    );
  });

  it("waits for the rest of a frame that is cut off", () => {
    for (const { frameHex } of frameVectors) {
      const bytes = bytesOfHex(frameHex);
      for (let length = 0; length < bytes.length; length++) expect(decode([bytes.subarray(0, length)])).toEqual([]);
    }
  });

  it("gives each frame memory of its own, however many come together", () => {
    const batch = (bytes: number): Frame => ({
      $case: "batch",
      value: {
        epoch: 1,
        delivery: Delivery.AT_MOST_ONCE,
        firstNumber: 0,
        topicId: 1,
        payloads: [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)],
        compressions: [],
        headers: [],
      },
    });
    const frames = [batch(3), batch(10_000), batch(4)];
    const decoded = decode([encode(...frames)]);
    expect(decoded).toEqual(frames);
    for (const frame of decoded) {
      const [first, second] = frame.$case === "batch" ? frame.value.payloads : [];
      expect(first!.buffer).toBe(second!.buffer);
      expect(first!.buffer.byteLength).toBeLessThan(first!.length * 2 + 50);
      expect(Buffer.isBuffer(first)).toBe(false);
    }
  });

  it("copies a payload that is a small part of its frame", () => {
    const headers = Array.from({ length: 20 }, (_, n) => ({ name: `h${n}`, value: "v".repeat(100) }));
    const batch = { epoch: 1, delivery: Delivery.AT_MOST_ONCE, firstNumber: 0, topicId: 1, compressions: [] };
    const request = { id: 1, topicId: 1, timeoutMs: 1, maxAnswerBytes: 1 };
    const payload = Uint8Array.of(7);
    const frames: Frame[] = [
      { $case: "batch", value: { ...batch, payloads: [payload], headers: [{ index: 0, headers }] } },
      { $case: "batch", value: { ...batch, payloads: [payload, new Uint8Array(10_000)], headers: [] } },
      { $case: "request", value: { ...request, payload, headers } },
      { $case: "answer", value: { id: 1, code: 0, message: "", begun: false, payload, headers } },
    ];
    expect(decode([encode(...frames)])).toEqual(frames);
    const plain = encode({ $case: "batch", value: { ...batch, payloads: [payload], headers: [] } }).subarray(4);
    const withUnknownField = Buffer.concat([plain, lengthDelimited(122, new Uint8Array(5_000))]);
    const bodies = [...frames.map((frame) => encode(frame).subarray(4)), new Uint8Array(withUnknownField)];
    for (const body of bodies) {
      const frame = decodeFrame(body);
      const [first, ...others] =
        frame.$case === "batch" ? frame.value.payloads : [(frame.value as { payload: Uint8Array }).payload];
      expect(first!.buffer.byteLength).toBe(1);
      for (const other of others) expect(other.buffer.byteLength).toBe(body.buffer.byteLength);
    }
  });

  it("refuses a frame above the limit as soon as its length is there", () => {
    for (const declared of [
      [0, 0, 16, 1],
      [0xff, 0xff, 0xff, 0xff],
    ]) {
      expect(() => decode([new Uint8Array(declared)], 4096)).toThrow(violation);
    }
    expect(decode([new Uint8Array([0, 0, 16, 0])], 4096)).toEqual([]);
  });

  it("allocates for what has come of a frame, not for its declared length", () => {
    const memory = () => process.memoryUsage().arrayBuffers;
    const before = memory();
    const decoders = Array.from({ length: 100 }, () => new FrameDecoder({ maxFrameBytes: 0xffffffff }));
    for (const decoder of decoders) {
      decoder.push(new Uint8Array([0x40, 0, 0, 0, 42]));
      expect(decoder.next()).toBeUndefined();
    }
    expect(memory() - before).toBeLessThan(1024 * 1024);
    for (const decoder of decoders) {
      for (let kilobytes = 0; kilobytes < 64; kilobytes++) decoder.push(new Uint8Array(1024));
      expect(decoder.next()).toBeUndefined();
    }
    // And what has become garbage.
    expect(memory() - before).toBeLessThan(100 * 64 * 1024 * 6);
  });

  it.each(lists)("refuses the first element too many of %s (at most %i)", (name, maxItems, element, around) => {
    const text = `${name} must have at most ${maxItems} elements, and has more`;
    expect(() => decodeFrame(frameOfList(element, maxItems, around))).toThrow("0 is not the tag of a field");
    const long = frameOfList(element, maxItems + 1000, around);
    expect(() => decodeFrame(long)).toThrow(expect.objectContaining({ code: "protocol_violation" }));
    const input = new FrameInput();
    input.begin(long);
    expect(() => readFrame(input)).toThrow(text);
    // It has read no further.
    expect(long.length - input.at).toBeGreaterThan(999 * element.length);
  });

  it("refuses the first element too many of a packed list", () => {
    const input = new FrameInput();
    input.begin(lengthDelimited(10, lengthDelimited(34, new Uint8Array(5000).fill(1))));
    expect(() => readFrame(input)).toThrow("Challenge.capabilities must have at most 32 elements, and has more");
    expect(input.at).toBeLessThan(100);
  });

  it("takes another limit between two frames", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 4 });
    decoder.push(encode(ping, { $case: "goLive", value: { epoch: Number.MAX_SAFE_INTEGER } }));
    expect(decoder.next()).toEqual(ping);
    decoder.maxFrameBytes = 100;
    expect(decoder.next()?.$case).toBe("goLive");
  });

  it("keeps throwing the same error once it has thrown", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 100 });
    decoder.push(new Uint8Array([0, 0, 0, 0]));
    expect(() => decoder.next()).toThrow(violation);
    decoder.push(encode(ping));
    expect(() => decoder.next()).toThrow(violation);
  });
});

describe("FrameDecoder with a preamble", () => {
  const preamble = Buffer.from("HWS1");

  it("takes it before the first frame, split anywhere", () => {
    for (let offset = 0; offset <= 6; offset++) {
      const decoder = new FrameDecoder({ maxFrameBytes: 100, preamble });
      const bytes = new Uint8Array(Buffer.concat([preamble, encode(ping)]));
      const frames: (Frame | undefined)[] = [];
      for (const chunk of cut(bytes, [offset])) {
        decoder.push(chunk);
        frames.push(decoder.next());
      }
      expect(decoder.awaitsPreamble).toBe(false);
      expect(frames.filter((frame) => frame !== undefined)).toEqual([ping]);
    }
  });

  it("refuses another beginning at its first wrong byte", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 100, preamble });
    decoder.push(new Uint8Array(Buffer.from("HW")));
    expect(decoder.next()).toBeUndefined();
    expect(decoder.awaitsPreamble).toBe(true);
    decoder.push(new Uint8Array(Buffer.from("T")));
    expect(() => decoder.next()).toThrow(violation);
  });
});

it("refuses an option that a decoder does not have", () => {
  const mistyped = { maxFrameBytes: 100, preample: new Uint8Array(4) };
  expect(() => new FrameDecoder(mistyped)).toThrow(
    '"preample" is not an option of a FrameDecoder; did you mean preamble? The options are maxFrameBytes, preamble',
  );
});
