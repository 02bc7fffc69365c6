import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PayloadCopies } from "../../src/nats/bridge/message.js";

describe("copies of payloads", () => {
  it("stay as they are, whatever comes behind them and whatever becomes of the originals", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 40 }), (lengths) => {
        const copies = new PayloadCopies();
        const pairs = lengths.map((length) => {
          const original = randomBytes(length);
          const expected = original.toString("hex");
          const copy = copies.of(original);
          original.fill(0);
          return { copy, expected };
        });
        for (const { copy, expected } of pairs) expect(Buffer.from(copy).toString("hex")).toBe(expected);
      }),
    );
  });

  it("keep none of the memory of the originals, and little of their own", () => {
    const copies = new PayloadCopies();
    const read = Buffer.alloc(1 << 20);
    const kept = new Set<ArrayBufferLike>();
    for (let at = 0; at + 100 <= 200_000; at += 100) kept.add(copies.of(read.subarray(at, at + 100)).buffer);
    expect(kept.has(read.buffer)).toBe(false);
    const bytes = [...kept].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(bytes).toBeLessThan(200_000 + 2 * 16 * 1024);
    expect(copies.of(read.subarray(0, 10_000)).buffer.byteLength).toBe(10_000);
  });
});
