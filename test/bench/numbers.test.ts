/**
 * What keeps published numbers true: how they are measured, compared, judged and written to the pages.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { type Contender, measureSideBySide, median, ratioOf } from "../../bench/measure.js";
import { withRatios, writeResults } from "../../bench/page.js";
import { readEarlier, readRecord, recordOf, verdictsOf } from "../../bench/report.js";
import type { Measured, Suite, Target } from "../../bench/suite.js";
import { temporaryDirectory } from "../support/temporary.js";

describe("contenders measured side by side", () => {
  it("are warmed up, take turns in another order each round, and get as much work as fills a run", async () => {
    const rates = { slow: 10, medium: 1_000, fast: 1_000_000 };
    const runs: { readonly name: string; readonly seconds: number }[] = [];
    const contenders = Object.entries(rates).map(
      ([name, rate]): Contender => ({
        name,
        async run(amount) {
          runs.push({ name, seconds: amount / rate });
          return amount / rate;
        },
      }),
    );
    const { signal } = new AbortController();
    const options = { rounds: 3, secondsPerRun: 0.5, firstAmount: 1_000, signal };
    const measured = await measureSideBySide(contenders, options);
    for (const [name, rate] of Object.entries(rates)) {
      expect(measured.get(name)).toEqual(Array(3).fill(expect.closeTo(rate)));
    }
    const [warmUps, counted] = [runs.slice(0, -9), runs.slice(-9)];
    expect(warmUps.map(({ name }) => name[0]).join("")).toMatch(/^s{2,}m{2,}f{2,}$/);
    const order = "slow medium fast slow fast medium fast slow medium";
    expect(counted).toEqual(order.split(" ").map((name) => ({ name, seconds: expect.closeTo(0.5) })));
  });
});

const throughput: Measured = {
  name: "at-most-once",
  payloadBytes: 100,
  unit: "messages/s",
  better: "higher",
  samples: [310, 200, 300],
  baselines: [{ name: "nats-core", samples: [90, 100, 110] }],
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
const ofThroughput = { name: "at-most-once", payloadBytes: 100 };
const ofTime = { name: "total", payloadBytes: 1024, variant: "one process" };

describe("a ratio", () => {
  it("is of medians, and above 1 where Hawser is better, for a throughput and for a time", () => {
    expect([median([10, 9, 100]), median([4, 1, 2, 100])]).toEqual([10, 3]);
    expect([ratioOf(300, 100, "higher"), ratioOf(50, 100, "lower"), ratioOf(100, 50, "lower")]).toEqual([3, 2, 0.5]);
  });
});

describe("a target", () => {
  it.each<[string, Target, string, boolean]>([
    ["a multiple of a baseline", { ...ofThroughput, baseline: "nats-core", atLeast: 3 }, "3.00×", true],
    ["a greater multiple", { ...ofThroughput, baseline: "nats-core", atLeast: 3.01 }, "3.00×", false],
    ["a multiple of a time", { ...ofTime, baseline: "pg-boss", atMost: 1.5 }, "0.22×", true],
    ["a fourth of a time", { ...ofTime, baseline: "pg-boss", atMost: 1 / 4 }, "4.50×", true],
    ["a fifth of a time", { ...ofTime, baseline: "pg-boss", atMost: 1 / 5 }, "4.50×", false],
    ["a time without a baseline", { ...ofTime, atMost: 7 }, "20 ms", false],
  ])("that is %s is judged by medians: %j", (_, target, measured, met) => {
    expect(verdictsOf([target], [throughput, time])).toEqual([{ target: expect.any(String), measured, met }]);
  });

  it("is not judged if its result or its baseline was not measured", () => {
    const targets = [
      { ...ofThroughput, payloadBytes: 10, atLeast: 1 },
      { ...ofTime, variant: "two processes", atMost: 7 },
      { ...ofThroughput, baseline: "jetstream", atLeast: 1 },
    ];
    expect(verdictsOf(targets, [throughput, time])).toEqual([]);
  });
});

const suite: Suite = {
  name: "peer-live",
  summary: "a suite",
  seconds: 1,
  page: { title: "A suite", text: "How.", charts: [{ title: "At most once", results: ["at-most-once"] }] },
  targets: [
    { ...ofThroughput, baseline: "nats-core", atLeast: 2 },
    { ...ofThroughput, baseline: "nats-core", atLeast: 4 },
  ],
  run: () => Promise.reject(new Error("it is not run here")),
};
const outcome = { results: [throughput], notes: ["a note"], servers: ["Postgres 18.4"] };
const recordWith = (quick: boolean) => recordOf([{ suite, outcome }], { quick, commit: "8f3c2a1" });

describe("the pages of results", () => {
  it("have medians with their spread, ratios, verdicts, and what was measured", () => {
    const directory = temporaryDirectory();
    writeResults(pathToFileURL(`${directory}/`), recordWith(false), [suite]);
    const page = readFileSync(join(directory, "results.md"), "utf8");
    expect(page).toContain(`at commit \`8f3c2a1\` with Node ${process.version.slice(1)}, Postgres 18.4`);
    expect(page).toContain("| 100 B | 300 (200 – 310) | 100 (90 – 110) | 3.00× |");
    expect(page).toContain("at least 2× nats-core | 3.00× | met |");
    expect(page).toContain("at least 4× nats-core | 3.00× | **missed** |");
    expect(page).toContain("- a note");
    expect(readFileSync(join(directory, "peer-live-at-most-once.svg"), "utf8")).toContain(
      "100 B: Hawser 300, nats-core 100.",
    );
  });

  it.each(["README.md", "docs/benchmarks.md"])("have a table of ratios, of measured ones alone, in %s", (path) => {
    const text = readFileSync(path, "utf8");
    const made = withRatios(text, recordWith(false));
    expect(made).toContain("| peer to peer, at most once, 100 B | nats.js, core publish | 3.0× |");
    expect(made).toContain("not measured / not measured / not measured |");
    expect(made.includes("| grpc-js |")).toBe(path === "docs/benchmarks.md");
    // Nothing else of the page changes.
    const rest = (page: string) => page.replace(/^\|.*$/gm, "");
    expect(rest(made)).toBe(rest(text));
  });

  it("are not written from a quick run", () => {
    const file = join(temporaryDirectory(), "results.json");
    writeFileSync(file, JSON.stringify(recordWith(true)));
    expect(() => readRecord(file)).toThrow("it was made with --quick");
  });
});

it("a run of all suites goes on behind what it has saved of the same commits", () => {
  const file = join(temporaryDirectory(), "results.json");
  const of = { commit: "8f3c2a1" };
  expect(readEarlier(file, of)).toBeUndefined();
  for (const quick of [true, false]) {
    writeFileSync(file, JSON.stringify(recordWith(quick)));
    expect(readEarlier(file, of) === undefined).toBe(quick);
  }
  for (const other of [{ commit: "1234567" }, { ...of, before: "1234567" }, { commit: "8f3c2a1-dirty" }]) {
    expect(readEarlier(file, other)).toBeUndefined();
  }
  const other = { suite: { ...suite, name: "other" }, outcome: { ...outcome, servers: ["nats-server 2.15.1"] } };
  const { suites, versions } = recordOf([other], { quick: false, ...of }, readEarlier(file, of));
  expect(suites.map((each) => each.suite)).toEqual([suite.name, "other"]);
  expect(versions).toEqual(["Postgres 18.4", "nats-server 2.15.1"]);
  writeFileSync(file, "");
  expect(readEarlier(file, of)).toBeUndefined();
});
