import { describe, expect, it } from "vitest";
import { median, ratioOf, summarize } from "../../bench/statistics.js";

describe("a series", () => {
  it("has its median in the middle, of numbers as numbers, and stays as it was", () => {
    const values = [10, 9, 100];
    expect([median(values), median([7]), median([4, 1, 2, 100])]).toEqual([10, 7, 3]);
    expect(values).toEqual([10, 9, 100]);
  });

  it("is summarized by its middle and how far it reaches; without a run it is none", () => {
    expect(summarize([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
    expect(() => summarize([])).toThrow(RangeError);
  });

  it("has a ratio above 1 where we are better, for a throughput and for a latency", () => {
    expect([ratioOf(300, 100, "higher"), ratioOf(50, 100, "lower"), ratioOf(100, 50, "lower")]).toEqual([3, 2, 0.5]);
  });
});
