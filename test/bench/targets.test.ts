import { describe, expect, it } from "vitest";
import { reportOf, verdictsOf } from "../../bench/report.js";
import type { Measured } from "../../bench/suite.js";
import { suites } from "../../bench/suites.js";

const throughput: Measured = {
  name: "at-most-once",
  payloadBytes: 100,
  unit: "messages/s",
  better: "higher",
  samples: [290, 300, 310],
  baselines: [{ name: "nats-core", samples: [100] }],
};
const time: Measured = {
  name: "total",
  payloadBytes: 1024,
  variant: "one process",
  unit: "ms",
  better: "lower",
  samples: [20],
  baselines: [{ name: "pg-boss", samples: [90] }],
};
const of = { name: "at-most-once", payloadBytes: 100 };
const ofTime = { name: "total", payloadBytes: 1024, variant: "one process" };

describe("a target", () => {
  it("of a multiple of a baseline is met by the medians", () => {
    expect(verdictsOf([{ ...of, baseline: "nats-core", atLeast: 3 }], [throughput])).toEqual([
      { target: "at-most-once, 100 B: at least 3× nats-core", measured: "3.00×", met: true },
    ]);
    expect(verdictsOf([{ ...of, baseline: "nats-core", atLeast: 3.01 }], [throughput])[0]?.met).toBe(false);
  });

  it("of a time is at most a multiple, or a fraction, which is said as how many times as fast", () => {
    const targets = [
      { ...ofTime, baseline: "pg-boss", atMost: 1.5 },
      { ...ofTime, baseline: "pg-boss", atMost: 1 / 5 },
      { ...ofTime, baseline: "pg-boss", atMost: 1 / 4 },
    ];
    expect(verdictsOf(targets, [time])).toEqual([
      { target: "total, one process: at most 1.5× pg-boss", measured: "0.22×", met: true },
      { target: "total, one process: at least 5× as fast as pg-boss", measured: "4.50×", met: false },
      { target: "total, one process: at least 4× as fast as pg-boss", measured: "4.50×", met: true },
    ]);
  });

  it("without a baseline is the value itself", () => {
    expect(verdictsOf([{ ...ofTime, atMost: 7 }], [time])).toEqual([
      { target: "total, one process: at most 7 ms", measured: "20 ms", met: false },
    ]);
  });

  it("whose result or baseline was not measured says nothing", () => {
    const targets = [
      { ...of, payloadBytes: 10, atLeast: 1 },
      { ...ofTime, variant: "two processes", atMost: 7 },
      { ...of, baseline: "jetstream", atLeast: 1 },
    ];
    expect(verdictsOf(targets, [throughput, time])).toEqual([]);
  });
});

describe("the suites", () => {
  it("have names of their own, a page, and targets that say which way is good", () => {
    expect(new Set(suites.map(({ name }) => name)).size).toBe(suites.length);
    for (const { page, targets } of suites) {
      expect(page.charts.length).toBeGreaterThan(0);
      for (const { atLeast, atMost } of targets)
        expect([atLeast, atMost].filter((bound) => bound !== undefined)).toHaveLength(1);
    }
  });

  it("tell a variant in the name of a result", () => {
    expect(reportOf("s", [time]).results[0]?.name).toBe("total, one process");
  });
});
