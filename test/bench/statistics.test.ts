import { describe, expect, it } from "vitest";
import { median, ratioOf, summarize } from "../../bench/statistics.js";

describe("median", () => {
  it("is the value in the middle, whatever the order", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([7])).toBe(7);
  });

  it("is the mean of the two in the middle of an even number of values", () => {
    expect(median([4, 1, 2, 100])).toBe(3);
  });

  it("compares numbers as numbers and leaves the series as it was", () => {
    const values = [10, 9, 100];
    expect(median(values)).toBe(10);
    expect(values).toEqual([10, 9, 100]);
  });
});

describe("summarize", () => {
  it("tells the middle and how far the series reaches", () => {
    expect(summarize([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
  });

  it("refuses a series without a run", () => {
    expect(() => summarize([])).toThrow(RangeError);
  });
});

describe("ratioOf", () => {
  it("is above 1 where we are better, for a throughput and for a latency", () => {
    expect(ratioOf(300, 100, "higher")).toBe(3);
    expect(ratioOf(50, 100, "lower")).toBe(2);
    expect(ratioOf(100, 50, "lower")).toBe(0.5);
  });
});
