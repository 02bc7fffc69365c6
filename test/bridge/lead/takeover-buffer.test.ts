/**
 * What a process that does not lead keeps.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TakeoverBuffer } from "../../../src/bridge/lead/index.js";
import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";

const limits = { bufferBytes: 1_000_000, takeoverBufferMs: 1_000, cleanTakeoverMs: 100 };
const message = (receivedAt: number, size = 10): InboundMessage => ({
  id: `${receivedAt}`,
  subject: "a",
  payload: new Uint8Array(size),
  headers: undefined,
  receivedAt,
});
const each = memoryOf(message(0));
const filled = (times: readonly number[], changed: Partial<typeof limits> = {}) => {
  const buffer = new TakeoverBuffer({ ...limits, ...changed }, 0);
  for (const at of times) buffer.add(message(at), [1n]);
  return buffer;
};
const times = (kept: readonly { readonly message: InboundMessage }[]) =>
  kept.map(({ message: { receivedAt } }) => receivedAt);

describe("the takeover buffer", () => {
  it("hands out what was received, in order and once, with its subscriptions, and is empty then", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    const [one, two] = [message(1), message(2)];
    buffer.add(one, [1n, 2n]);
    buffer.add(two, [2n]);
    expect(buffer.bytes).toBe(2 * each);
    const kept = buffer.takeOver({ afterCleanEnd: false });
    expect(kept).toEqual([
      { message: one, subscriptions: [1n, 2n] },
      { message: two, subscriptions: [2n] },
    ]);
    expect(kept[0]!.message).toBe(one);
    expect([buffer.length, buffer.bytes, buffer.counts.repeated]).toEqual([0, 0, 2]);
    expect(buffer.takeOver({ afterCleanEnd: false })).toEqual([]);
  });

  it("lets go only what was received the margin before what the leader has done", () => {
    const buffer = filled([1_000, 2_000, 3_000]);
    buffer.noteProgress(2_000);
    expect(buffer.length).toBe(3);
    buffer.noteProgress(2_000.5);
    expect(buffer.length).toBe(2);
    buffer.noteProgress(undefined);
    buffer.noteProgress(1_000);
    expect(buffer.counts).toMatchObject({ added: 3, done: 1, full: 0 });
    expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual([2_000, 3_000]);
  });

  it("has the smaller margin after a clean end, and only then, and only if the progress is known", () => {
    const received = [1_000, 2_850, 2_950, 3_100];
    const takeOver = (afterCleanEnd: boolean, known = true, changed: Partial<typeof limits> = {}) => {
      const buffer = filled(received, changed);
      if (known) buffer.noteProgress(3_000);
      return times(buffer.takeOver({ afterCleanEnd }));
    };
    expect(takeOver(true)).toEqual([2_950, 3_100]);
    expect(takeOver(false)).toEqual([2_850, 2_950, 3_100]);
    expect(takeOver(true, false)).toEqual(received);
    expect(takeOver(true, true, { takeoverBufferMs: 20 })).toEqual([3_100]);
  });

  it("drops the oldest when it is full, counts them, and knows since when it is complete", () => {
    const buffer = filled([1, 2, 3, 4, 5], { bufferBytes: 3 * each });
    expect(buffer.counts).toMatchObject({ added: 5, full: 2, done: 0 });
    expect(buffer.completeSince).toBe(2);
    buffer.add(message(6, 1_000_000), [1n]);
    expect(buffer.counts.tooLarge).toBe(1);
    expect(buffer.completeSince).toBe(6);
    expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual([3, 4, 5]);
  });

  it("keeps nothing where nothing is to be kept, and lacks nothing then", () => {
    const buffer = filled([1, 2], { takeoverBufferMs: 0 });
    expect(buffer.takeOver({ afterCleanEnd: false })).toEqual([]);
    expect(buffer.counts).toMatchObject({ added: 2, notKept: 2, repeated: 0 });
    expect(buffer.completeSince).toBe(Number.NEGATIVE_INFINITY);
  });

  it("accounts for every message and every byte, whatever happens", () => {
    const action = fc.oneof(
      fc.record({ add: fc.nat(2_000) }),
      fc.record({ doneAgoMs: fc.integer({ min: -500, max: 3_000 }) }),
      fc.record({ takeOver: fc.boolean() }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
        const buffer = new TakeoverBuffer({ ...limits, bufferBytes: 5_000 }, 0);
        let now = 0;
        let model: InboundMessage[] = [];
        for (const one of actions) {
          now += 100;
          if ("add" in one) {
            const added = message(now, one.add);
            buffer.add(added, [1n]);
            model.push(added);
            while (model.reduce((sum, kept) => sum + memoryOf(kept), 0) > 5_000) model.shift();
          } else if ("doneAgoMs" in one) {
            const doneBefore = now - one.doneAgoMs;
            buffer.noteProgress(doneBefore);
            model = model.filter(({ receivedAt }) => receivedAt >= doneBefore - limits.takeoverBufferMs);
          } else if (one.takeOver) {
            expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual(model.map(({ receivedAt }) => receivedAt));
            model = [];
          }
          expect(buffer.length).toBe(model.length);
          expect(buffer.bytes).toBe(model.reduce((sum, kept) => sum + memoryOf(kept), 0));
          const { added, done, full, tooLarge, notKept, repeated } = buffer.counts;
          expect(done + full + tooLarge + notKept + repeated + buffer.length).toBe(added);
        }
      }),
    );
  });
});
