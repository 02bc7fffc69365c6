/**
 * Observed silence of a leader, and its known progress.
 */
import { describe, expect, it } from "vitest";
import { KnownProgress } from "../../../src/nats/bridge/leadership/progress.js";
import { LeaderWatch } from "../../../src/nats/bridge/leadership/protocol.js";
import type { LeadershipRow } from "../../../src/nats/bridge/leadership/table.js";

const row = (beat: number, progressAt?: number): LeadershipRow => ({
  epoch: 7n,
  owner: "a",
  beat: BigInt(beat),
  progressAt,
  behind: new Map(),
  completeSince: undefined,
  completeUntil: undefined,
});

describe("the watch", () => {
  it("counts from the answer to the first reading until the last one was sent", () => {
    const watch = new LeaderWatch(4_000);
    expect(watch.unchangedMs).toBe(0);
    watch.add(row(1), { sentAt: 0, heardAt: 300 });
    expect(watch.unchangedMs).toBe(0);
    watch.add(row(1), { sentAt: 1_000, heardAt: 1_900 });
    expect(watch.unchangedMs).toBe(700);
    expect(watch.firstSeenAt).toBe(300);
  });

  it("restarts with each beat, each epoch, each session and after a gap", () => {
    const watch = new LeaderWatch(4_000);
    const see = (seen: LeadershipRow, at: number) => {
      watch.add(seen, { sentAt: at, heardAt: at });
      return watch.unchangedMs;
    };
    expect(see(row(1), 0)).toBe(0);
    expect(see(row(1), 2_000)).toBe(2_000);
    expect(see(row(2), 3_000)).toBe(0);
    expect(see(row(2), 4_000)).toBe(1_000);
    expect(see({ ...row(2), epoch: 8n }, 5_000)).toBe(0);
    expect(see({ ...row(2), epoch: 8n }, 8_000)).toBe(3_000);
    watch.restart();
    expect(watch.unchangedMs).toBe(0);
    expect(see({ ...row(2), epoch: 8n }, 9_000)).toBe(0);
    expect(see({ ...row(2), epoch: 8n }, 13_001)).toBe(0);
  });
});

describe("the leader's progress", () => {
  /** A server whose clock is 1,000,000 ms ahead, and answers at once. */
  const clock = (at: number, aheadMs = 1_000_000) => ({ serverTime: at + aheadMs, sentAt: at, heardAt: at });

  it("counts from the second beat on that was seen, in time of ours", () => {
    const known = new KnownProgress();
    expect(known.update(row(1, 1_000_100), clock(500))).toBeUndefined();
    expect(known.update(row(2, 1_001_100), clock(1_500))).toBeUndefined();
    expect(known.update(row(3, 1_002_100), clock(2_500))?.doneBefore).toBeCloseTo(2_100, 0);
    expect(known.update(row(4), clock(3_500))).toBeUndefined();
    expect(known.update(row(5, 1_004_100), clock(4_500))?.doneBefore).toBeCloseTo(4_100, 0);
  });

  it("is not known any more after the session was lost, or somebody has set the clock", () => {
    const known = new KnownProgress();
    for (const beat of [1, 2]) known.update(row(beat, 1_000_000), clock(beat * 1_000));
    expect(known.update(row(3, 1_002_900), clock(3_000))?.doneBefore).toBeCloseTo(2_900, 0);
    known.reset();
    expect(known.update(row(4, 1_003_900), clock(4_000))).toBeUndefined();
    expect(known.update(row(5, 1_004_900), clock(5_000))).toBeUndefined();
    expect(known.update(row(6, 1_005_900), clock(6_000))?.doneBefore).toBeCloseTo(5_900, 0);
    expect(known.update(row(7, 1_006_900), clock(7_000, 900_000))).toBeUndefined();
    expect(known.update(row(8, 907_900), clock(8_000, 900_000))).toBeUndefined();
    expect(known.update(row(9, 908_900), clock(9_000, 900_000))?.doneBefore).toBeCloseTo(8_900, 0);
  });
});
