/** A bar chart as SVG: groups of bars, each with its value and how far its runs reach. */
import { clamp, linearScale, type Scale } from "../src/operating/page/html/axis.js";
import { formatValue } from "./report.js";
import { svgOf, text } from "./svg.js";

/** A bar chart, with one unit for all bars. */
export interface BarChart {
  readonly title: string;
  /** The unit on the axis, such as `messages/s`. */
  readonly unit: string;
  /** The better direction, as labelled on the axis. */
  readonly better: "higher" | "lower";
  readonly scale: "linear" | "logarithmic";
  readonly groups: readonly BarGroup[];
}

/** Bars that belong together. */
interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface Bar {
  readonly label: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** True for a result of Hawser, false for a baseline. */
  readonly ours: boolean;
}

const width = 760;
const margin = 20;
/** X position of the bars' left end; the axis leaves 90 px on its right for the values. */
const barsLeft = 190;
const barsWidth = width - barsLeft - margin - 90;
const titleHeight = 48;
const groupHeadHeight = 26;
const rowHeight = 24;
const barHeight = 14;
const groupGap = 10;
const axisHeight = 52;

const style = [
  "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}",
  ".title{font-size:16px;font-weight:600}.group{font-weight:600}.tick,.unit{fill:#59636e;font-size:12px}",
  ".card{fill:#fff;stroke:#d1d9e0}.grid{stroke:#d1d9e0}.ours{fill:#0969da}.baseline{fill:#8c959f}",
  ".spread{stroke:#1f2328;stroke-width:1.5}",
  "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.tick,.unit{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}",
  ".grid{stroke:#3d444d}.ours{fill:#4493f8}.baseline{fill:#656c76}.spread{stroke:#f0f6fc}}",
].join("");

/** The picture as text. @throws RangeError if there is nothing to draw */
export function barChartSvg({ title, unit, better, scale: kind, groups }: BarChart): string {
  const bars = groups.flatMap((group) => group.bars);
  if (bars.length === 0) throw new RangeError(`the chart "${title}" has no bars`);
  const greatest = Math.max(...bars.map(({ max }) => max));
  const scale =
    kind === "linear" ? linearScale(greatest) : logarithmicScale(Math.min(...bars.map(({ min }) => min)), greatest);
  const x = (value: number): string => (barsLeft + scale.at(value) * barsWidth).toFixed(1);
  const drawn: string[] = [];
  let y = titleHeight;
  for (const group of groups) {
    drawn.push(text(margin, y + 17, group.label, "group"));
    y += groupHeadHeight;
    for (const bar of group.bars) {
      drawn.push(...barOf(bar, y, x));
      y += rowHeight;
    }
    y += groupGap;
  }
  const height = y + axisHeight;
  const grid = scale.ticks.flatMap((tick) => [
    `<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${titleHeight}" y2="${y}"/>`,
    text(x(tick), y + 18, formatTick(tick), "tick", "middle"),
  ]);
  const axis = `${unit}, ${better} is better${kind === "logarithmic" ? "; logarithmic axis" : ""}`;
  return svgOf({
    title,
    inWords: inWords(groups, unit),
    width,
    height,
    style,
    body: [...grid, ...drawn, text(barsLeft, y + 38, axis, "unit")],
  });
}

function barOf({ label, median, min, max, ours }: Bar, top: number, x: (value: number) => string): string[] {
  const middle = top + rowHeight / 2;
  const baseline = (middle + 4.5).toFixed(1);
  const right = x(median);
  const drawn = [
    text(barsLeft - 8, baseline, label, undefined, "end"),
    `<rect class="${ours ? "ours" : "baseline"}" x="${barsLeft}" y="${middle - barHeight / 2}" width="${(Number(right) - barsLeft).toFixed(1)}" height="${barHeight}"/>`,
    text((Math.max(Number(right), Number(x(max))) + 7).toFixed(1), baseline, formatValue(median)),
  ];
  if (min < max) {
    drawn.push(`<line class="spread" x1="${x(min)}" x2="${x(max)}" y1="${middle}" y2="${middle}"/>`);
  }
  return drawn;
}

/** Text alternative of the chart, for screen readers. */
function inWords(groups: readonly BarGroup[], unit: string): string {
  return groups
    .map(({ label, bars }) => `${label}: ${bars.map((bar) => `${bar.label} ${formatValue(bar.median)}`).join(", ")}`)
    .join("; ")
    .concat(`. Medians in ${unit}; thin lines reach from the least to the greatest run.`);
}

/** 20,000,000 as 20 M. */
function formatTick(value: number): string {
  if (value >= 1e6) return `${formatValue(value / 1e6)} M`;
  if (value >= 1e4) return `${formatValue(value / 1e3)} k`;
  return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

/** In powers of ten, from one that is below `min` to one that is not below `max`. Both must be above zero. */
function logarithmicScale(min: number, max: number): Scale {
  // A bar that begins at its own value would have no length.
  const first = Math.ceil(Math.log10(min)) - 1;
  const last = Math.max(first + 1, Math.ceil(Math.log10(max)));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => Number(`1e${first + index}`));
  return { at: (value) => clamp((Math.log10(value) - first) / (last - first)), ticks };
}
