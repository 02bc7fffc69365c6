import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { canWriteReport, formatBytes, formatValue, reportOf, tablesOf, writeReport } from "../../bench/report.js";
import type { Measured } from "../../bench/suite.js";
import { temporaryDirectory } from "../support/temporary.js";

const throughput: Measured = {
  name: "at-most-once",
  payloadBytes: 100,
  unit: "messages/s",
  better: "higher",
  samples: [3_000_000, 1_000_000, 2_000_000.123456],
  baselines: [
    { name: "tcp", samples: [8_000_000, 4_000_000, 6_000_000] },
    { name: "nats-core", samples: [500_000] },
  ],
};

const latency: Measured = {
  name: "ping-pong",
  payloadBytes: 1024,
  unit: "µs",
  better: "lower",
  samples: [30],
  baselines: [{ name: "tcp", samples: [20] }],
};

describe("the report", () => {
  it("has exactly the shape of the design", () => {
    expect(reportOf("peer-live", [throughput])).toEqual({
      suite: "peer-live",
      node: process.version,
      cpus: availableParallelism(),
      results: [
        {
          name: "at-most-once",
          payloadBytes: 100,
          unit: "messages/s",
          median: 2_000_000,
          min: 1_000_000,
          max: 3_000_000,
          baselines: {
            tcp: { median: 6_000_000, ratio: 0.333333 },
            "nats-core": { median: 500_000, ratio: 4 },
          },
        },
      ],
    });
  });

  it("gives a latency the ratio of the baseline to ours", () => {
    expect(reportOf("s", [latency]).results[0]?.baselines["tcp"]).toEqual({ median: 20, ratio: 0.666667 });
  });

  it("is refused before the measuring where the file cannot be written", () => {
    const file = join(temporaryDirectory(), "no", "such", "folder.json");
    expect(() => canWriteReport(file)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("is written as JSON, and not emptied before there is something new to write", () => {
    const file = join(temporaryDirectory(), "bench.json");
    const report = reportOf("before", [throughput, latency]);
    writeReport(file, report);
    canWriteReport(file);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(report);
  });
});

describe("the tables", () => {
  it("show one result each, sizes down, ours and the baselines with their ratios across", () => {
    expect(tablesOf([throughput, { ...throughput, payloadBytes: 65_536 }, latency]).split("\n")).toEqual([
      "messages/s, medians; ratio: at-most-once over the baseline, above 1 is better",
      "payload  at-most-once        min        max        tcp  ratio  nats-core  ratio",
      "  100 B     2,000,000  1,000,000  3,000,000  6,000,000  0.33×    500,000  4.00×",
      " 64 KiB     2,000,000  1,000,000  3,000,000  6,000,000  0.33×    500,000  4.00×",
      "",
      "µs, medians; ratio: the baseline over ping-pong, above 1 is better",
      "payload  ping-pong  min  max  tcp  ratio",
      "  1 KiB         30   30   30   20  0.67×",
    ]);
  });

  it("leave a gap where a size has no such baseline", () => {
    expect(
      tablesOf([latency, { ...latency, payloadBytes: 10, baselines: [] }])
        .split("\n")
        .slice(2),
    ).toEqual(["  1 KiB         30   30   30   20  0.67×", "   10 B         30   30   30"]);
  });

  it("call sizes by the largest unit that fits, and round values", () => {
    const sizes = [10, 1000, 1024, 1536, 65_536, 1 << 20].map(formatBytes);
    expect(sizes).toEqual(["10 B", "1000 B", "1 KiB", "1536 B", "64 KiB", "1 MiB"]);
    expect([1_234_567.8, 100, 12.345].map(formatValue)).toEqual(["1,234,568", "100", "12.35"]);
  });
});
