/**
 * Times by the clock of Postgres, told from process to process, for any latencies and any clocks.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  localTimeBefore,
  serverTimeAtLeast,
  serverTimeAtMost,
  wasSet,
} from "../../../src/nats/bridge/leadership/progress.js";
import type { ClockSample } from "../../../src/nats/bridge/leadership/table.js";

const ms = (max: number) => fc.double({ min: 0, max, noNaN: true });

/** The clock of a process: an offset from the true time, and a rate within 400 ppm of the server's. */
const clock = fc.record({ offset: ms(1e9), rate: fc.double({ min: 1 - 4e-4, max: 1 + 4e-4, noNaN: true }) }).map(
  ({ offset, rate }) =>
    (trueTime: number) =>
      offset + trueTime * rate,
);

/** A server's clock, which is read in whole microseconds. */
const server = ms(2e12).map((offset) => (trueTime: number) => offset + trueTime);

/** A query: sent, read by the server, answered. */
const query = fc
  .tuple(ms(600_000), ms(5_000), ms(5_000))
  .map(([sent, there, back]) => ({ sent, read: sent + there, heard: sent + there + back }));

const sampleOf = (
  local: (time: number) => number,
  serverClock: (time: number) => number,
  { sent, read, heard }: { sent: number; read: number; heard: number },
): ClockSample => ({
  serverTime: Math.floor(serverClock(read) * 1000) / 1000,
  sentAt: local(sent),
  heardAt: local(heard),
});

describe("the server's time at a time of ours", () => {
  it("is never outside its bounds", () => {
    fc.assert(
      fc.property(clock, server, query, ms(600_000), (local, serverClock, asked, time) => {
        const sample = sampleOf(local, serverClock, asked);
        expect(serverTimeAtLeast(sample, local(time))).toBeLessThanOrEqual(serverClock(time));
        expect(serverTimeAtMost(sample, local(time))).toBeGreaterThanOrEqual(serverClock(time));
      }),
    );
  });

  it("is known within the latency, drift aside", () => {
    const sample = { serverTime: 5_000, sentAt: 100, heardAt: 130 };
    expect(serverTimeAtLeast(sample, 130)).toBeCloseTo(5_000, 1);
    expect(serverTimeAtMost(sample, 130)).toBeCloseTo(5_030, 1);
    expect(localTimeBefore(sample, 4_900)).toBeCloseTo(0, 0);
  });
});

describe("the position that a leader reports as done", () => {
  it("is, for another process, never later than it was", () => {
    fc.assert(
      fc.property(clock, clock, server, query, query, ms(600_000), (leader, other, serverClock, one, two, done) => {
        const said = Math.floor(serverTimeAtLeast(sampleOf(leader, serverClock, one), leader(done)));
        const bound = localTimeBefore(sampleOf(other, serverClock, two), said);
        expect(bound).toBeLessThanOrEqual(other(done));
      }),
    );
  });
});

describe("a clock that was set", () => {
  it("is noticed by nobody as long as it just goes on", () => {
    fc.assert(
      fc.property(clock, server, query, query, (local, serverClock, one, two) => {
        const later = { sent: two.sent + one.heard, read: two.read + one.heard, heard: two.heard + one.heard };
        expect(wasSet(sampleOf(local, serverClock, one), sampleOf(local, serverClock, later))).toBe(false);
      }),
    );
  });

  it("is noticed when it moved by more than the latencies and the drift leave open", () => {
    const move = fc.oneof(
      fc.double({ min: -1e9, max: -21_000, noNaN: true }),
      fc.double({ min: 21_000, max: 1e9, noNaN: true }),
    );
    fc.assert(
      fc.property(clock, server, query, query, move, (local, serverClock, one, two, moved) => {
        const later = { sent: two.sent + one.heard, read: two.read + one.heard, heard: two.heard + one.heard };
        const set = (time: number) => serverClock(time) + moved;
        expect(wasSet(sampleOf(local, serverClock, one), sampleOf(local, set, later))).toBe(true);
      }),
    );
  });
});
