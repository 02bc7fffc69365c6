import { describe, expect, it } from "vitest";
import { Backoff, backoffMs } from "../../src/foundation/runtime/index.js";

const limits = { minMs: 100, maxMs: 1_000 };

describe("backoff", () => {
  it("doubles from the shortest wait to the longest", () => {
    const backoff = new Backoff(limits);
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.failed())).toEqual([100, 200, 400, 800, 1_000, 1_000]);
    expect(backoff.failures).toBe(6);
    expect(backoffMs(limits, 5_000)).toBe(1_000);
  });

  it("is short again after a success", () => {
    const backoff = new Backoff(limits);
    backoff.failed();
    backoff.failed();
    backoff.reset();
    expect(backoff.failed()).toBe(100);
  });

  it("draws the last part of a wait at random", () => {
    const waits = [0, 0.5, 1].map((random) => backoffMs({ ...limits, jitter: 0.5, random: () => random }, 2));
    expect(waits).toEqual([100, 150, 200]);
    expect(backoffMs({ ...limits, jitter: 1, random: () => 0.25 }, 1)).toBe(25);
  });
});
