/**
 * Messages that a process keeps while another one is the leader.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TakeoverBuffer } from "../../../src/nats/bridge/leadership/index.js";
import { MissingMessages, standbyBytes } from "../../../src/nats/bridge/leadership/takeover-buffer.js";
import { type InboundMessage, memoryOf } from "../../../src/nats/bridge/message.js";

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

describe("the record of missing messages", () => {
  it("is counted in bounded memory: never too little, and all of it as long as nothing is known to be done", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1_000), { minLength: 300, maxLength: 2_000 }),
        fc.nat(1_000_000),
        (gaps, doneBefore) => {
          const all = new MissingMessages();
          const some = new MissingMessages();
          let now = 0;
          let left = 0;
          for (const gap of gaps) {
            now += gap;
            if (now >= doneBefore) left += 1;
            for (const one of [all, some]) one.add(now, [1n]);
          }
          expect(all.take()).toEqual(new Map([[1n, gaps.length]]));
          some.removeDone(() => doneBefore);
          expect(some.take().get(1n) ?? 0).toBeGreaterThanOrEqual(left);
        },
      ),
    );
  });

  it("is forgotten to a tenth of a second for as long as it matters", () => {
    const missing = new MissingMessages();
    for (let at = 0; at < 60_000; at += 5) missing.add(at, [1n]);
    missing.removeDone(() => 50_000);
    const count = missing.take().get(1n)!;
    expect(count).toBeGreaterThanOrEqual(2_000);
    expect(count).toBeLessThanOrEqual(2_020);
  });
});

const progressOf = (doneBefore: number, completeSince = Number.NEGATIVE_INFINITY) => ({
  doneBefore,
  behind: new Map<bigint, number>(),
  completeSince,
});

describe("the takeover buffer", () => {
  it("returns what was received, in order and once, with its subscriptions, and is empty then", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    const [one, two] = [message(1), message(2)];
    buffer.add(one, [1n, 2n]);
    buffer.add(two, [2n]);
    expect(buffer.bytes).toBe(2 * each);
    const kept = buffer.takeOver({ afterCleanEnd: false });
    expect(kept).toEqual([
      { message: one, subscriptions: [1n, 2n], isOwn: false },
      { message: two, subscriptions: [2n], isOwn: false },
    ]);
    expect(kept[0]!.message).toBe(one);
    expect([buffer.length, buffer.bytes]).toEqual([0, 0]);
    expect(buffer.takeOver({ afterCleanEnd: false })).toEqual([]);
  });

  it("removes only what was received a margin before what the leader has finished", () => {
    const buffer = filled([1_000, 2_000, 3_000]);
    buffer.noteProgress(progressOf(2_000));
    expect(buffer.length).toBe(3);
    buffer.noteProgress(progressOf(2_000.5));
    expect(buffer.length).toBe(2);
    buffer.noteProgress(undefined);
    buffer.noteProgress(progressOf(1_000));
    expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual([2_000, 3_000]);
  });

  it("has the smaller margin after a clean end, and only then, and only if the progress is known", () => {
    const received = [1_000, 2_850, 2_950, 3_100];
    const takeOver = (afterCleanEnd: boolean, known = true, changed: Partial<typeof limits> = {}) => {
      const buffer = filled(received, changed);
      if (known) buffer.noteProgress(progressOf(3_000));
      return times(buffer.takeOver({ afterCleanEnd }));
    };
    expect(takeOver(true)).toEqual([2_950, 3_100]);
    expect(takeOver(false)).toEqual([2_850, 2_950, 3_100]);
    expect(takeOver(true, false)).toEqual(received);
    expect(takeOver(true, true, { takeoverBufferMs: 20 })).toEqual([3_100]);
  });

  it("drops the oldest when it is full, and knows since when it is complete", () => {
    const buffer = filled([1, 2, 3, 4, 5], { bufferBytes: 4 * each });
    expect(buffer.length).toBe(3);
    expect(buffer.completeSince).toBe(2);
    buffer.add(message(6, 1_000_000), [1n]);
    expect(buffer.completeSince).toBe(6);
    expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual([3, 4, 5]);
  });

  it("keeps its own unfinished messages up to the whole limit, and others up to three quarters", () => {
    const buffer = new TakeoverBuffer({ ...limits, bufferBytes: 8 * each }, 0);
    for (const at of [1, 2, 3, 4, 5, 6, 7]) buffer.add(message(at), [1n], true);
    buffer.add(message(8), [1n]);
    expect(buffer.length).toBe(8);
    // The oldest go, and no more of its own than there have to.
    buffer.add(message(9), [1n]);
    expect(buffer.length).toBe(8);
    buffer.noteProgress(progressOf(1_007.5));
    expect(buffer.length).toBe(2);
    for (const at of [10, 11, 12, 13, 14, 15]) buffer.add(message(at), [1n]);
    expect(buffer.bytes).toBe(6 * each);
  });

  it("counts missing messages by subscription, until the leader is known to have finished them", () => {
    const overfull = () => {
      const buffer = new TakeoverBuffer({ ...limits, bufferBytes: 3 * each }, 0);
      for (const at of [5_000, 6_000, 7_000, 8_000]) buffer.add(message(at), at < 6_000 ? [1n, 2n] : [2n]);
      buffer.add(message(9_000, 1_000_000), [3n]);
      return buffer;
    };
    const lacks = (buffer: TakeoverBuffer, afterCleanEnd = false) => {
      buffer.takeOver({ afterCleanEnd });
      return [...buffer.takeMissing()];
    };
    expect(lacks(overfull())).toEqual([
      [1n, 1],
      [2n, 2],
      [3n, 1],
    ]);
    const progressed = overfull();
    progressed.noteProgress(progressOf(6_500));
    expect(lacks(progressed)).toEqual([
      [2n, 1],
      [3n, 1],
    ]);
    // Told once.
    expect(lacks(progressed)).toEqual([]);
    const clean = overfull();
    clean.noteProgress(progressOf(6_500));
    expect(lacks(clean, true)).toEqual([[3n, 1]]);
    const done = overfull();
    done.noteProgress(progressOf(20_000));
    expect(lacks(done)).toEqual([]);
  });

  it("keeps nothing if nothing is to be kept, and lacks nothing then", () => {
    const buffer = filled([1, 2], { takeoverBufferMs: 0 });
    expect(buffer.takeOver({ afterCleanEnd: false })).toEqual([]);
    expect(buffer.takeMissing().size).toBe(0);
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
        let missing: InboundMessage[] = [];
        for (const one of actions) {
          now += 100;
          if ("add" in one) {
            const added = message(now, one.add);
            buffer.add(added, [1n]);
            model.push(added);
            while (model.reduce((sum, kept) => sum + memoryOf(kept), 0) > standbyBytes(5_000))
              missing.push(model.shift()!);
          } else if ("doneAgoMs" in one) {
            const doneBefore = now - one.doneAgoMs;
            buffer.noteProgress(progressOf(doneBefore));
            const isLeft = ({ receivedAt }: InboundMessage) => receivedAt >= doneBefore - limits.takeoverBufferMs;
            model = model.filter(isLeft);
            missing = missing.filter(isLeft);
          } else if (one.takeOver) {
            expect(times(buffer.takeOver({ afterCleanEnd: false }))).toEqual(model.map(({ receivedAt }) => receivedAt));
            expect(buffer.takeMissing().get(1n) ?? 0).toBe(missing.length);
            model = [];
            missing = [];
          }
          expect(buffer.length).toBe(model.length);
          expect(buffer.bytes).toBe(model.reduce((sum, kept) => sum + memoryOf(kept), 0));
        }
      }),
    );
  });

  it("keeps messages that it left unfinished as the leader and the current one has not received, until they are saved", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    for (const at of [1_000, 2_000, 3_000]) buffer.add(message(at), [1n], true);
    buffer.add(message(4_000), [1n]);
    const all = progressOf(10_000 + limits.takeoverBufferMs, 2_500 - limits.cleanTakeoverMs);
    buffer.noteProgress(all);
    expect(buffer.length).toBe(2);
    const unknown = buffer.unknownToLeader;
    expect(times([...unknown])).toEqual([1_000, 2_000]);
    buffer.remove(new Set(unknown.map((kept) => kept.message)));
    buffer.noteProgress(all);
    expect(buffer.length).toBe(0);
    expect(buffer.unknownToLeader).toEqual([]);
  });

  it("removes what the previous leader has finished, and provides the rest that the current one has not received", () => {
    const buffer = filled([1_000, 2_000, 3_000, 4_000]);
    buffer.noteProgress(progressOf(2_000 + limits.cleanTakeoverMs + 1));
    expect(times([...buffer.unknownToLeader])).toEqual([]);
    expect(buffer.length).toBe(3);
    buffer.noteProgress(progressOf(60_000, 3_500));
    expect(times([...buffer.unknownToLeader])).toEqual([3_000]);
    expect(buffer.length).toBe(1);
    // A third one, before that is in other hands: what the second says is not about it.
    buffer.noteProgress(progressOf(60_000, 50_000));
    expect(times([...buffer.unknownToLeader])).toEqual([3_000]);
    expect(times(buffer.takeOwn())).toEqual([3_000]);
  });

  it("does not assume that the leader received what this process may have received late", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    buffer.add({ ...message(9_000), notBefore: 1_000 }, [1n]);
    buffer.add({ ...message(9_000), notBefore: 8_000 }, [1n]);
    buffer.noteProgress(progressOf(60_000, 5_000));
    expect(times([...buffer.unknownToLeader])).toEqual([9_000]);
    expect(buffer.length).toBe(1);
  });

  it("keeps what one subscription has not done, while the others go on", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    for (const at of [1_000, 2_000, 3_000]) buffer.add(message(at), at === 2_000 ? [2n] : [1n, 2n]);
    buffer.noteProgress({ ...progressOf(60_000), behind: new Map([[1n, 1_500 + limits.takeoverBufferMs]]) });
    expect(buffer.bytes).toBe(each);
    expect(buffer.takeOver({ afterCleanEnd: false })).toMatchObject([
      { message: { receivedAt: 3_000 }, subscriptions: [1n] },
    ]);
  });

  it("at shutdown, also returns what arrived after the leader had ended, and keeps the rest", () => {
    const buffer = filled([1_000, 2_000, 3_000]);
    buffer.noteProgress(progressOf(1_000));
    expect(times(buffer.takeOwn(2_500))).toEqual([3_000]);
    expect(buffer.length).toBe(2);
    expect(times(buffer.takeOwn())).toEqual([]);
  });

  it("does not know what the leader lacks while its progress is not known", () => {
    const buffer = new TakeoverBuffer(limits, 0);
    buffer.add(message(1_000), [1n], true);
    expect(buffer.unknownToLeader).toEqual([]);
    buffer.noteProgress(progressOf(5_000, 5_000));
    expect(buffer.unknownToLeader).toHaveLength(1);
    buffer.noteProgress(undefined);
    expect(buffer.unknownToLeader).toEqual([]);
  });
});
