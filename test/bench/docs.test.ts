import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { type Bar, type BarChart, barChartSvg, linearScale, logarithmicScale } from "../../bench/bar-chart.js";
import { withRatios, writeResults } from "../../bench/page.js";
import { type BenchRecord, readRecord, recordOf, writeReport } from "../../bench/report.js";
import type { Suite } from "../../bench/suite.js";
import { temporaryDirectory } from "../support/temporary.js";

const suite: Suite = {
  name: "knots",
  summary: "how fast knots are tied",
  seconds: 1,
  page: {
    title: "Knots",
    text: "A bowline each.",
    charts: [
      { title: "Tied", results: ["tied"] },
      { title: "Never measured", results: ["untied"] },
    ],
  },
  targets: [
    { name: "tied", payloadBytes: 100, baseline: "by hand", atLeast: 2 },
    { name: "tied", payloadBytes: 1024, baseline: "by hand", atLeast: 2 },
  ],
  run: () => Promise.reject(new Error("it is not run here")),
};

const tied = { name: "tied", unit: "knots/s", better: "higher" as const };
const outcomes = [
  {
    suite,
    outcome: {
      results: [
        { ...tied, payloadBytes: 100, samples: [300, 1_000, 2_000], baselines: [{ name: "by hand", samples: [400] }] },
        { ...tied, payloadBytes: 1024, samples: [100], baselines: [{ name: "by hand", samples: [90, 100, 110] }] },
      ],
      notes: ["nobody was tied up"],
      servers: ["Postgres 18.4", "nats-server 2.10.27"],
    },
  },
];
const record: BenchRecord = recordOf(outcomes, { quick: false, commit: "8f3c2a1" });

/** The page and the charts, written into a directory. */
function written(from: BenchRecord): { page: string; charts: Record<string, string> } {
  const directory = temporaryDirectory();
  writeResults(pathToFileURL(`${directory}/`), from, [suite]);
  const { "results.md": page, ...charts } = Object.fromEntries(
    readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), "utf8")]),
  );
  return { page: page!, charts };
}

describe.each(["README.md", "docs/benchmarks.md"])("%s", (path) => {
  it("has the ratios of the record, and says which there are none of", () => {
    const live = { name: "at-most-once", unit: "messages/s", better: "higher" as const, payloadBytes: 100 };
    const outcome = {
      results: [{ ...live, samples: [300], baselines: [{ name: "nats-core", samples: [100] }] }],
      notes: [],
      servers: [],
    };
    const of = recordOf([{ suite: { ...suite, name: "peer-live" }, outcome }], { quick: false, commit: "8f3c2a1" });
    const text = readFileSync(path, "utf8");
    const made = withRatios(text, of);
    expect(made).toContain("| peer to peer, at most once, 100 B | nats.js, core publish | 3.0× |");
    expect(made).toContain("not measured / not measured / not measured |");
    // Nothing else of it changes.
    expect(withRatios(made, of)).toBe(made);
    const rest = (page: string) => page.replace(/^\|.*$/gm, "");
    expect(rest(made)).toBe(rest(text));
  });
});

describe("the page of results", () => {
  it("says that it is generated, on what it was measured, and where to read how to do it again", () => {
    const { page } = written(record);
    expect(page).toMatch(/^<!-- Written by `npm run bench -- all --write-docs`\. Do not edit\. -->\n/);
    expect(page).toContain(`Node ${process.version.slice(1)}, Postgres 18.4, nats-server 2.10.27`);
    expect(page).toContain(`${record.cpus} processors`);
    expect(page).toContain("at commit `8f3c2a1`");
    expect(page).toContain("](../benchmarks.md)");
    expect(page).not.toContain("`before`");
    expect(written({ ...record, before: "1a2b3c4" }).page).toMatch(/`before`[^.]* at\s+commit `1a2b3c4`/);
  });

  it("has the targets, met and missed", () => {
    const { page } = written(record);
    expect(page).toContain("| `knots` | tied, 100 B: at least 2× by hand | 2.50× | met |");
    expect(page).toContain("| `knots` | tied, 1 KiB: at least 2× by hand | 1.00× | **missed** |");
  });

  it("has a section for each suite, with text, pictures, tables with the spread, and notes", () => {
    const { page, charts } = written(record);
    const section = page.slice(page.indexOf("## Knots"));
    expect(section.split("\n").filter((line) => line !== "")).toEqual([
      "## Knots",
      "`npm run bench -- knots`",
      "A bowline each.",
      "![Tied](knots-tied.svg)",
      "| payload | tied, knots/s | by hand | ratio |",
      "| --- | ---: | ---: | ---: |",
      "| 100 B | 1,000 (300 – 2,000) | 400 | 2.50× |",
      "| 1 KiB | 100 | 100 (90 – 110) | 1.00× |",
      "- nobody was tied up",
    ]);
    expect(Object.keys(charts)).toEqual(["knots-tied.svg"]);
  });

  it("is the same when it is written from what was saved, and old charts are gone", () => {
    const directory = temporaryDirectory();
    const file = join(directory, "results.json");
    writeReport(file, record);
    expect(written(readRecord(file))).toEqual(written(record));
    writeResults(pathToFileURL(`${directory}/`), record, [suite]);
    writeFileSync(join(directory, "of-last-year.svg"), "");
    writeResults(pathToFileURL(`${directory}/`), record, [suite]);
    expect(readdirSync(directory).sort()).toEqual(["knots-tied.svg", "results.json", "results.md"]);
  });

  it.each([
    ["{", "cannot be read as JSON"],
    ["null", "it is not what `npm run bench -- all --json` writes"],
    [JSON.stringify(recordOf(outcomes, { quick: true, commit: "8f3c2a1" })), "it was made with --quick"],
    ['{"suite":"peer-live","results":[]}', "it is not what `npm run bench -- all --json` writes"],
  ])("is not written from %s", (content, why) => {
    const file = join(temporaryDirectory(), "results.json");
    writeFileSync(file, content);
    expect(() => readRecord(file)).toThrow(why);
  });
});

describe("a bar chart", () => {
  const bar = (label: string, median: number): Bar => ({ label, median, min: median / 2, max: median * 2, ours: true });
  const chart: BarChart = {
    title: "Fast & <loud>",
    unit: "messages/s",
    better: "higher",
    scale: "linear",
    groups: [{ label: "100 B", bars: [bar("Hawser", 500), { ...bar("tcp", 250), ours: false }] }],
  };
  const barWidths = (svg: string): number[] =>
    [...svg.matchAll(/<rect class="(?:ours|baseline)" [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width));

  it("has a title and its values in words, for those who do not see it", () => {
    const svg = barChartSvg(chart);
    expect(svg).toContain('role="img" aria-labelledby="title description"');
    expect(svg).toContain('<title id="title">Fast &amp; &lt;loud&gt;</title>');
    expect(svg).toMatch(/<desc id="description">100 B: Hawser 500, tcp 250\. Medians in messages\/s/);
    expect(svg).toContain(">messages/s, higher is better</text>");
  });

  it("draws bars as long as their values, whose longest run ends within the axis", () => {
    const svg = barChartSvg(chart);
    const [ours, theirs] = barWidths(svg);
    expect(ours! / theirs!).toBeCloseTo(2, 2);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it("draws each factor of ten as long as any other on a logarithmic axis", () => {
    const bars = [bar("a", 100), bar("b", 1_000), bar("c", 10_000)];
    const svg = barChartSvg({ ...chart, scale: "logarithmic", groups: [{ label: "", bars }] });
    const [a, b, c] = barWidths(svg);
    expect(b! - a!).toBeCloseTo(c! - b!, 0);
    expect(svg).toContain("logarithmic axis");
  });

  it("refuses to be empty", () => {
    expect(() => barChartSvg({ ...chart, groups: [] })).toThrow(RangeError);
  });
});

describe("an axis", () => {
  it("from zero has round ticks", () => {
    const ticks = [10, 0.73, 1_234_567, 0].map((max) => linearScale(max).ticks);
    expect(ticks).toEqual([
      [0, 2, 4, 6, 8, 10],
      [0, 0.2, 0.4, 0.6, 0.8],
      [0, 500_000, 1_000_000, 1_500_000],
      [0, 1],
    ]);
  });

  it("in powers of ten begins below the least value", () => {
    const expected: [number, number, number[]][] = [
      [5, 2_000, [1, 10, 100, 1_000, 10_000]],
      [10, 100, [1, 10, 100]],
      [0.02, 0.03, [0.01, 0.1]],
    ];
    for (const [min, max, ticks] of expected) {
      const scale = logarithmicScale(min, max);
      expect(scale.ticks).toEqual(ticks);
      expect(scale.at(min)).toBeGreaterThan(0);
      expect(scale.at(max)).toBeLessThanOrEqual(1);
    }
  });
});
