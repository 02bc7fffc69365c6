/** Charts that the page draws: lines with gaps, axes with round values, and the same in words and in a table. */
import { describe, expect, it } from "vitest";
import { durationScale, linearScale } from "../../src/operating/page/html/axis.js";
import { lineChart, sparkline } from "../../src/operating/page/html/chart.js";

const perSecond = (value: number): string => `${value}/s`;
/** Paths of the lines, without those of the grid. */
const linesIn = (text: string): string[] =>
  [...text.matchAll(/class="line[^"]*"[^>]* d="([^"]*)"/g)].map(([, path]) => path!);
const labelOf = (text: string): string => /aria-label="([^"]*)"/.exec(text)![1]!;
const drawn = async (given: ReturnType<typeof sparkline>): Promise<string> => String(await given);

describe("a sparkline", () => {
  const label = "Handled";

  it("goes from 0 to the greatest value, and is said in words", async () => {
    const text = await drawn(sparkline([0, 5, 10], { label, format: perSecond }));
    expect(linesIn(text)).toEqual(["M0 26.5L60 14L120 1.5"]);
    expect(labelOf(text)).toBe("Handled: first 0/s, last 10/s, least 0/s, greatest 10/s");
    expect(text).toContain('role="img"');
    expect(text).toContain("<title>Handled: first 0/s");
  });

  it("has a gap where nothing is known, and a dot between two gaps", async () => {
    const text = await drawn(sparkline([1, 1, null, 1, null, null], { label, format: perSecond }));
    expect(linesIn(text)).toEqual(["M0 1.5L24 1.5M72 1.5h0"]);
    expect(text).toContain('class="area" d="M0 1.5L24 1.5V28H0ZM72 1.5V28H72Z"');
    expect(labelOf(text)).toMatch(/; nothing is known of 3 of 6 steps$/);
  });

  it("of nothing, of one value and of zeros is a drawing, too", async () => {
    for (const [values, path] of [
      [[], ""],
      [[null, null], ""],
      [[7], "M0 1.5h0"],
      [[0, 0], "M0 26.5L120 26.5"],
    ] as const)
      expect(linesIn(await drawn(sparkline(values, { label, format: perSecond })))).toEqual([path]);
    expect(labelOf(await drawn(sparkline([null], { label, format: perSecond })))).toBe("Handled: nothing is known");
  });

  it("has the second colour if asked, no style of its own, and text as text", async () => {
    const text = await drawn(sparkline([1], { label: '"><b>', format: perSecond, isSecond: true }));
    expect(text).toContain('class="line second"');
    expect(text).not.toMatch(/style=|<style|<b>/);
  });
});

describe("a chart", () => {
  const times = (count: number): number[] =>
    Array.from({ length: count }, (_, nth) => Date.UTC(2026, 0, 1, 12) + nth * 15_000);

  it("has the lines, round values and ages on its axes, and names its lines", async () => {
    const text = await drawn(
      lineChart({
        title: "Messages",
        times: times(240),
        stepMs: 15_000,
        lines: [
          { name: "in", values: new Array(240).fill(3) },
          { name: "out", values: new Array(240).fill(7.5) },
        ],
        format: perSecond,
      }),
    );
    expect(linesIn(text)).toHaveLength(2);
    const [ys, xs] = [...text.matchAll(/<ul class="[xy]s"[^>]*>(.*?)<\/ul>/gs)].map(([, items]) =>
      items!
        .replaceAll("</li>", " ")
        .replaceAll(/<[^>]*>/g, "")
        .trim()
        .split(/ (?=−|now|\d)/),
    );
    expect(ys).toEqual(["8/s", "6/s", "4/s", "2/s", "0/s"]);
    expect(xs).toEqual(["−60 min", "−45 min", "−30 min", "−15 min", "now"]);
    expect(text).toContain('<span class="first">in</span>');
    expect(text).toContain('<span class="second">out</span>');
    expect(text).toContain('aria-label="Messages. in: first 3/s, last 3/s');
    expect(text).not.toMatch(/style=|<style/);
  });

  it("has its numbers in a table, the newest first: all of few steps, means of many", async () => {
    const chart = { title: "Waiting", stepMs: 15_000, format: String };
    const few = await drawn(
      lineChart({ ...chart, times: times(3), lines: [{ name: "waiting", values: [1, null, 3] }] }),
    );
    const cells = (text: string): string[] =>
      [...text.matchAll(/<td.*?>(.*?)<\/td>/g)].map(([, cell]) => cell!.replaceAll(/<[^>]*>/g, ""));
    expect(cells(few)).toEqual(["12:00:30", "3", "12:00:15", "none", "12:00:00", "1"]);
    const values = Array.from({ length: 240 }, (_, nth) =>
      nth >= 236 ? 10 : nth < 4 && nth > 0 ? null : nth < 4 ? 2 : 4,
    );
    const many = await drawn(lineChart({ ...chart, times: times(240), lines: [{ name: "waiting", values }] }));
    expect(cells(many)).toHaveLength(120);
    expect(cells(many).slice(0, 4)).toEqual(["12:59:00", "10", "12:58:00", "4"]);
    expect(cells(many).slice(-2)).toEqual(["12:00:00", "2"]);
    expect(many).toContain("means of 60 s, from the times on");
  });
});

describe("an axis", () => {
  it("has round values from 0 on, evenly", () => {
    expect(linearScale(7.5, 4).ticks).toEqual([0, 2, 4, 6, 8]);
    expect(linearScale(0.3, 3).ticks).toEqual([0, 0.1, 0.2, 0.3]);
    expect(linearScale(0).ticks).toEqual([0, 1]);
    expect(linearScale(8).at(9)).toBe(1);
  });

  it("of durations has whole seconds, minutes, hours and days", () => {
    const minute = 60_000;
    expect(durationScale(2_500, 4).ticks).toEqual([0, 1_000, 2_000, 3_000]);
    expect(durationScale(7 * minute, 4).ticks).toEqual([0, 2, 4, 6, 8].map((count) => count * minute));
    expect(durationScale(47 * 60 * minute, 4).ticks).toEqual([0, 12, 24, 36, 48].map((count) => count * 60 * minute));
    expect(durationScale(100 * 24 * 60 * minute, 4).ticks[1]).toBe(50 * 24 * 60 * minute);
    expect(durationScale(0).ticks).toEqual([0, 1_000]);
  });
});
