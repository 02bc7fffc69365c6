/**
 * Time limits, also where the process itself stands still.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type Clock, Deadline, inTime, systemClock, TimeLimit, within } from "../../src/foundation/runtime/index.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";

/** Time limits, and on which moments of the clock they were over. */
function timeLimit(limitMs: number, clock: Clock = systemClock) {
  const over: number[] = [];
  return { limit: new TimeLimit(limitMs, () => over.push(clock.now()), clock), over };
}

/** As a stopped process does. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

it("fires once, not before its limit", async () => {
  const clock = new ManualClock();
  const { over } = timeLimit(700, clock);
  clock.advance(699);
  await nextTurn();
  expect(over).toEqual([]);
  clock.advance(1);
  await nextTurn();
  expect(over).toEqual([700]);
  clock.advance(10_000);
  await nextTurn();
  expect(over).toEqual([700]);
});

it("does not count time in which the process is suspended", async () => {
  const clock = new ManualClock();
  const { over } = timeLimit(1_400, clock);
  clock.stall(1_800);
  await nextTurn();
  expect(over).toEqual([]);
  clock.advance(1_400);
  await nextTurn();
  expect(over).toHaveLength(1);
});

it("does not fire if data that had arrived cancels it", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const far = connect((server.address() as { port: number }).port, "127.0.0.1");
  const [near] = (await once(server, "connection")) as [Socket];
  const { limit, over } = timeLimit(50);
  const { over: later } = timeLimit(1_000);
  far.on("data", () => limit.end());
  near.write("an answer");
  standStill(200);
  await eventually("the other one is over", () => later.length > 0);
  expect(over).toEqual([]);
  near.destroy();
  server.close();
});

describe("a deadline", () => {
  it("has whole milliseconds left, at least one", () => {
    const clock = new ManualClock();
    const deadline = new Deadline(100, clock);
    clock.advance(99.5);
    expect([deadline.remainingMs, deadline.isOver]).toEqual([1, false]);
    clock.advance(0.5);
    expect([deadline.remainingMs, deadline.isOver]).toEqual([1, true]);
  });
});

describe("a wait with a limit", () => {
  const never = new Promise<never>(() => {});

  it("settles as the work does, or with undefined", async () => {
    expect(await within(60_000, Promise.resolve(1))).toBe(1);
    expect(await within(Number.POSITIVE_INFINITY, Promise.resolve(1))).toBe(1);
    await expect(within(60_000, Promise.reject(new Error("failed")))).rejects.toThrow("failed");
    expect(await within(0, never)).toBeUndefined();
  });

  it("aborts the signal of late work", async () => {
    const clock = new ManualClock();
    const late = new Error("too late");
    let reason: unknown;
    const result = inTime(
      100,
      () => late,
      (signal) => {
        signal.addEventListener("abort", () => {
          reason = signal.reason;
        });
        return never;
      },
      clock,
    );
    clock.advance(100);
    await expect(result).rejects.toBe(late);
    expect(reason).toBe(late);
    expect(
      await inTime(
        100,
        () => late,
        async () => 1,
        clock,
      ),
    ).toBe(1);
    expect(clock.timers).toBe(0);
  });
});
