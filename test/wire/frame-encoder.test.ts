import { randomFillSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../src/foundation/errors/index.js";
import {
  type Batch,
  Compression,
  checkFrame,
  Delivery,
  type Frame,
  FrameEncoder,
  type Header,
  recycle,
} from "../../src/jobs-and-peers/wire/index.js";
import { ampleBytes, decode, encode } from "./coding.js";

const batch: Batch = {
  epoch: 5,
  delivery: Delivery.AT_LEAST_ONCE,
  firstNumber: 1,
  topicId: 3,
  payloads: [new Uint8Array([1])],
  compressions: [],
  headers: [],
};
const ping: Frame = { $case: "ping", value: { token: "1" } };
const invalid = expect.objectContaining({ code: "invalid_argument" });

/** Headers of one message of about this many bytes. */
function headersOf(bytes: number): Header[] {
  return Array.from({ length: Math.ceil(bytes / 8000) }, (_, i) => ({ name: `h${i}`, value: "x".repeat(7990) }));
}

describe("FrameEncoder", () => {
  it("puts several frames into one buffer", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 1000 });
    encoder.append(ping);
    encoder.append({ $case: "batch", value: batch });
    encoder.append(ping);
    const size = encoder.bytes;
    const output = encoder.take();
    expect(output.chunks).toHaveLength(1);
    expect(output.bytes).toBe(size);
    expect(output.chunks[0]).toHaveLength(size);
    expect(decode(output.chunks)).toEqual([ping, { $case: "batch", value: batch }, ping]);
    expect(encoder.bytes).toBe(0);
    expect(encoder.take()).toMatchObject({ chunks: [], bytes: 0 });
  });

  it("copies payloads of any length, whose bytes are the caller's again afterwards", () => {
    const lengths = [64 * 1024 - 1, 256 * 1024, 1, 64 * 1024, 1_000_000, 0, 8 * 1024];
    const payloads = lengths.map((length) => randomFillSync(new Uint8Array(length)));
    const value = { ...batch, payloads: payloads.map((payload) => payload.slice()) };
    const encoder = new FrameEncoder({ maxFrameBytes: ampleBytes });
    encoder.append({ $case: "batch", value });
    for (const payload of value.payloads) payload.fill(0);
    encoder.append(ping);
    const { chunks, bytes } = encoder.take();
    expect(bytes).toBe(chunks.reduce((sum, { length }) => sum + length, 0));
    const [frame, last] = decode(chunks);
    const come = (frame!.value as Batch).payloads;
    // Compared as bytes: going through long payloads element by element takes seconds.
    expect(come.map((payload, index) => Buffer.compare(payload, payloads[index]!))).toEqual(lengths.map(() => 0));
    expect({ ...frame!.value, payloads: [] }).toEqual({ ...value, payloads: [] });
    expect(last).toEqual(ping);
  });

  it("uses the memory of a written output again, and not before", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 1000 });
    encoder.append(ping);
    const first = encoder.take();
    encoder.append(ping);
    const second = encoder.take();
    expect(second.chunks[0]?.buffer).not.toBe(first.chunks[0]?.buffer);
    recycle(first);
    encoder.append(ping);
    expect(encoder.take().chunks[0]?.buffer).toBe(first.chunks[0]?.buffer);
    recycle(second);
  });

  it("appends nothing of a frame that cannot be encoded, and goes on", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 1000 });
    const bad = [{ index: 0, headers: [{ name: "a" } as Header] }];
    expect(() => encoder.append({ $case: "batch", value: { ...batch, headers: bad } })).toThrow(TypeError);
    expect(encoder.bytes).toBe(0);
    encoder.append({ $case: "batch", value: batch });
    expect(decode(encoder.take().chunks)).toEqual([{ $case: "batch", value: batch }]);
  });

  it("refuses a frame that is longer than the other side accepts", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 20 });
    expect(() =>
      encoder.append({ $case: "refuse", value: { code: errorTable.busy.wireCode, message: "x".repeat(20) } }),
    ).toThrow(invalid);
    expect(() => encoder.append({ $case: "batch", value: { ...batch, payloads: [new Uint8Array(20)] } })).toThrow(
      invalid,
    );
    expect(encoder.bytes).toBe(0);
  });

  it("splits a batch that is longer than the other side accepts, with its numbers, headers and compressions", () => {
    const maxFrameBytes = 100_000;
    const value: Batch = {
      ...batch,
      firstNumber: 10,
      payloads: Array.from({ length: 7 }, (_, i) => new Uint8Array(20_000).fill(i)),
      compressions: [2, 5].map((index) => ({ index, compression: Compression.GZIP, uncompressedBytes: index })),
      headers: [1, 4].map((index) => ({ index, headers: headersOf(30_000) })),
    };
    const encoder = new FrameEncoder({ maxFrameBytes });
    encoder.append({ $case: "batch", value });
    const parts = decode(encoder.take().chunks, maxFrameBytes).map((frame) => frame.value as Batch);
    expect(parts.length).toBeGreaterThan(1);
    const messages = parts.flatMap((part) =>
      part.payloads.map((payload, index) => ({
        number: part.firstNumber + index,
        payload,
        compression: part.compressions.find((entry) => entry.index === index)?.uncompressedBytes,
        headers: part.headers.find((entry) => entry.index === index)?.headers,
      })),
    );
    expect(messages).toEqual(
      value.payloads.map((payload, index) => ({
        number: 10 + index,
        payload,
        compression: value.compressions.find((entry) => entry.index === index)?.uncompressedBytes,
        headers: value.headers.find((entry) => entry.index === index)?.headers,
      })),
    );
  });

  it("refuses a batch whole when one of its messages is too long for a frame", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 50_000 });
    const payloads = [new Uint8Array(20_000), new Uint8Array(20_000), new Uint8Array(50_000)];
    expect(() => encoder.append({ $case: "batch", value: { ...batch, payloads } })).toThrow(invalid);
    expect(encoder.bytes).toBe(0);
  });

  it("fills a frame up to the last byte the other side accepts", () => {
    const whole = encode({ $case: "batch", value: { ...batch, payloads: [new Uint8Array(500)] } });
    const encoder = new FrameEncoder({ maxFrameBytes: whole.length - 4 });
    encoder.append({ $case: "batch", value: { ...batch, payloads: [new Uint8Array(500)] } });
    expect(encoder.bytes).toBe(whole.length);
  });
});

describe("FrameEncoder.appendAtMostOnce", () => {
  const atMostOnce = (topicId: number, payloads: Uint8Array[]): Frame => ({
    $case: "batch",
    value: { ...batch, delivery: Delivery.AT_MOST_ONCE, firstNumber: 0, topicId, payloads },
  });
  const bytes = (length: number) => randomFillSync(new Uint8Array(length));

  it("gathers messages of a topic in one frame, with the bytes that it has when it is encoded whole", () => {
    for (const lengths of [[0], [3, 100], [127, 1], [128, 7_000], [16_000, 300, 40_000]]) {
      const payloads = lengths.map(bytes);
      const encoder = new FrameEncoder({ maxFrameBytes: ampleBytes });
      for (const payload of payloads) encoder.appendAtMostOnce(5, 3, payload);
      const { chunks, bytes: all } = encoder.take();
      const frame = encode(atMostOnce(3, payloads));
      expect(all).toBe(frame.length);
      expect(Buffer.compare(Buffer.concat(chunks), frame), `${lengths}`).toBe(0);
    }
  });

  it("keeps the order of what is appended, and begins another frame for another topic", () => {
    const [first, second, third, fourth] = [1, 2, 3, 4].map(bytes) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    const encoder = new FrameEncoder({ maxFrameBytes: 1000 });
    encoder.appendAtMostOnce(5, 3, first);
    encoder.appendAtMostOnce(5, 4, second);
    encoder.append(ping);
    encoder.appendAtMostOnce(5, 4, third);
    encoder.appendAtMostOnce(5, 4, fourth);
    expect(decode(encoder.take().chunks)).toEqual([
      atMostOnce(3, [first]),
      atMostOnce(4, [second]),
      ping,
      atMostOnce(4, [third, fourth]),
    ]);
  });

  it("begins another frame where the other side accepts no longer one, or the block is full", () => {
    const payloads = Array.from({ length: 3_000 }, (_, index) => bytes(index % 300));
    for (const maxFrameBytes of [500, 100_000]) {
      const encoder = new FrameEncoder({ maxFrameBytes });
      for (const payload of payloads) encoder.appendAtMostOnce(5, 3, payload);
      const frames = decode(encoder.take().chunks, maxFrameBytes);
      expect(frames.length).toBeGreaterThan(5);
      const come = frames.flatMap(({ value }) => (value as Batch).payloads);
      expect(Buffer.compare(Buffer.concat(come), Buffer.concat(payloads))).toBe(0);
      expect(come.length).toBe(payloads.length);
    }
  });

  it("refuses what is too long for a frame, and goes on", () => {
    const encoder = new FrameEncoder({ maxFrameBytes: 100 });
    encoder.appendAtMostOnce(5, 3, new Uint8Array(1));
    expect(() => encoder.appendAtMostOnce(5, 3, new Uint8Array(100))).toThrow(invalid);
    encoder.appendAtMostOnce(5, 3, new Uint8Array(80));
    const payloads = decode(encoder.take().chunks, 100).map(({ value }) => (value as Batch).payloads);
    expect(payloads).toEqual([[new Uint8Array(1)], [new Uint8Array(80)]]);
  });
});

describe("checkFrame", () => {
  it.each([
    ["an epoch of 0", { epoch: 0 }],
    ["an epoch above 2^53 − 1", { epoch: 2 ** 53 }],
    ["an epoch that is no integer", { epoch: 1.5 }],
    ["a negative number", { firstNumber: -1 }],
    ["no payload", { payloads: [] }],
    ["a number for at-most-once", { delivery: Delivery.AT_MOST_ONCE }],
    ["a last number above 2^53 − 1", { firstNumber: 2 ** 53 - 1, payloads: [new Uint8Array(1), new Uint8Array(1)] }],
    ["headers of a payload that is not there", { headers: [{ index: 1, headers: [] }] }],
    ["an index that is no integer", { headers: [{ index: 0.5, headers: [] }] }],
    ["a header's name with a space", { headers: [{ index: 0, headers: [{ name: "a b", value: "c" }] }] }],
  ])("refuses a batch with %s", (_, change) => {
    expect(() => checkFrame({ $case: "batch", value: { ...batch, ...change } })).toThrow(invalid);
  });
});
