import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteQueue } from "../../../src/nats/gateway/protocol/byte-queue.js";
import { atDepth } from "../../support/depth.js";

/** Operation on a queue, and on a plain array of its bytes. */
const step = fc.oneof(
  fc.record({ push: fc.oneof(fc.uint8Array({ maxLength: 20 }), fc.uint8Array({ minLength: 1020, maxLength: 1030 })) }),
  fc.record({ take: fc.nat(1500) }),
  fc.record({ skip: fc.nat(1500) }),
);

describe("ByteQueue", () => {
  it("gives back the bytes that were pushed, in order, whatever the sizes", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const queue = new ByteQueue();
        let model: number[] = [];
        const taken: { bytes: Uint8Array; expected: number[] }[] = [];
        for (const one of steps) {
          if ("push" in one) {
            queue.push(one.push);
            model = model.concat(Array.from(one.push));
          } else {
            const count = Math.min("take" in one ? one.take : one.skip, model.length);
            const expected = model.slice(0, count);
            model = model.slice(count);
            if ("take" in one) taken.push({ bytes: queue.take(count), expected });
            else queue.skip(count);
          }
          expect(queue.length).toBe(model.length);
          const [a = 0, b = 0, c = 0, d = 0] = model;
          expect(queue.peekUint32()).toBe(model.length < 4 ? undefined : ((a * 256 + b) * 256 + c) * 256 + d);
        }
        // Compared last, so that bytes which were overwritten later show.
        for (const { bytes, expected } of taken) expect(Array.from(bytes)).toEqual(expected);
      }),
      { numRuns: atDepth(300) },
    );
  });

  it("gathers single bytes in a block instead of keeping a chunk for each", () => {
    const queue = new ByteQueue();
    const before = process.memoryUsage().arrayBuffers;
    const source = new Uint8Array(1 << 16);
    // Each byte is a view of its own allocation, as single bytes from a socket are.
    for (let i = 0; i < 100_000; i++) queue.push(source.slice(i & 0xff, (i & 0xff) + 1));
    expect(queue.length).toBe(100_000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 1024 * 1024);
    expect(queue.take(100_000)).toHaveLength(100_000);
  });
});
