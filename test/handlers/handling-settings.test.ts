import { afterEach, describe, expect, it, vi } from "vitest";
import { policyOf } from "../../src/jobs-and-peers/handlers/handling-settings.js";

const settings = { attempts: 1_000_000, delayMs: 100, factor: 2, maxDelayMs: 500, jitterPercent: 0 };

/** Delays after the attempts with these numbers. */
const delays = (changed: Partial<typeof settings>, ...attempts: readonly number[]): number[] =>
  attempts.map((begun) => policyOf({ ...settings, ...changed }).delayMs(begun));

describe("the delay of a retry", () => {
  afterEach(() => void vi.restoreAllMocks());

  it("is multiplied by the factor after each further attempt, up to the maximum", () => {
    expect(delays({}, 1, 2, 3, 4, 9)).toEqual([100, 200, 400, 500, 500]);
    expect(delays({ factor: 1 }, 1, 2, 1_000)).toEqual([100, 100, 100]);
    expect(delays({ factor: 100 }, 1_000_000)).toEqual([500]);
    expect(delays({ delayMs: 700 }, 1)).toEqual([500]);
  });

  it("is shortened by a random part of the jitter's share", () => {
    const random = vi.spyOn(Math, "random");
    const within = [0, 0.5, 1].map((value) => {
      random.mockReturnValue(value);
      return delays({ jitterPercent: 30 }, 2, 9);
    });
    expect(within).toEqual([
      [200, 500],
      [170, 425],
      [140, 350],
    ]);
  });
});
