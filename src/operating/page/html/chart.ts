/**
 * Charts of series as SVG, drawn by the server: a sparkline for a cell or a tile, and a chart with axes. Both say in words what they show, and a
 * chart has its numbers in a table. Colours are classes, so that both colour schemes have theirs; texts are HTML around the drawing, so that they
 * keep their size on narrow screens.
 */
import { html } from "hono/html";
import { duration } from "../../console/index.js";
import type { Values } from "../../operate/index.js";
import { durationScale, linearScale, type Scale } from "./axis.js";
import type { Html } from "./text.js";

/** How a sparkline is shown. */
export interface SparklineOptions {
  /** What the values are, such as `Handled per second`. */
  readonly label: string;
  /** Words for a value, with its unit. */
  readonly format: (value: number) => string;
  /** True for the second colour. */
  readonly isSecond?: boolean;
}

/** Line of a chart. */
export interface ChartLine {
  readonly name: string;
  /** Values of the steps. Null: not known, which is a gap in the line. */
  readonly values: Values;
}

/** A chart. */
export interface LineChart {
  readonly title: string;
  /** Beginnings of the steps in milliseconds since 1970, ascending and without gaps. */
  readonly times: readonly number[];
  readonly stepMs: number;
  /** One or two lines, with values of the same unit. */
  readonly lines: readonly ChartLine[];
  /** Words for a value, with its unit. */
  readonly format: (value: number) => string;
  /** `duration`: the values are milliseconds. Default: plain numbers. */
  readonly axis?: "number" | "duration";
}

const sparklineSize = { width: 120, height: 28 };
const chartSize = { width: 600, height: 160 };
/** Room above and below a line, so that its stroke is not cut. */
const margin = 1.5;
/** Approximate number of intervals on the axis of values, and on that of time. */
const [valueParts, timeParts] = [4, 4];
/** Maximum number of rows of the table behind a chart. */
const mostRows = 60;

/** Draws values as a line without axes, from 0 to the greatest one. Its words say the first, last, least and greatest value. */
export function sparkline(values: Values, { label, format, isSecond = false }: SparklineOptions): Html {
  const { width, height } = sparklineSize;
  const scale = { at: (value: number) => value / (greatest(values) || 1), ticks: [] };
  const words = `${label}: ${inWords(values, format)}`;
  return html`<svg class="sparkline" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label="${words}"><title>${words}</title>${line(values, scale, sparklineSize, isSecond)}</svg>`;
}

/** Draws one or two series over time, with axes, words for screen readers, and the numbers in a table. */
export function lineChart({ title, times, stepMs, lines, format, axis = "number" }: LineChart): Html {
  const { width, height } = chartSize;
  const most = greatest(lines.flatMap(({ values }) => values));
  const scale = axis === "duration" ? durationScale(most, valueParts) : linearScale(most, valueParts);
  const ticks = scale.ticks.toReversed();
  const grid = ticks.map((tick) => yOf(tick, scale, height));
  const words = lines.map(({ name, values }) => `${name}: ${inWords(values, format)}`).join("; ");
  const spanMs = times.length * stepMs;
  const ages = Array.from({ length: timeParts + 1 }, (_, nth) => (spanMs / timeParts) * (timeParts - nth));
  return html`<figure class="chart"><figcaption>${title}${lines.length > 1 ? lines.map(({ name }, nth) => html` <span class="${nth === 0 ? "first" : "second"}">${name}</span>`) : ""}</figcaption>
<div class="plot"><ul class="ys" aria-hidden="true">${ticks.map((tick) => html`<li>${format(tick)}</li>`)}</ul>
<svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label="${title}. ${words}"><title>${words}</title>${grid.map((y) => html`<path class="grid" vector-effect="non-scaling-stroke" d="M0 ${y}H${width}"/>`)}${lines.map(({ values }, nth) => line(values, scale, chartSize, nth > 0))}</svg>
<ul class="xs" aria-hidden="true">${ages.map((ms) => html`<li>${ms === 0 ? "now" : `−${duration(ms)}`}</li>`)}</ul></div>
${numbers(title, times, stepMs, lines, format)}</figure>`;
}

/** Line through the known values, of which each stretch begins anew behind a gap, and the area below the first one. */
function line(
  values: Values,
  scale: Scale,
  size: { readonly width: number; readonly height: number },
  isSecond: boolean,
): Html {
  const stepWidth = size.width / Math.max(1, values.length - 1);
  const stretches: { readonly from: number; readonly points: string[] }[] = [];
  for (const [nth, value] of values.entries()) {
    if (value === null) continue;
    const [x, y] = [round(nth * stepWidth), yOf(value, scale, size.height)];
    if (nth === 0 || values[nth - 1] === null) stretches.push({ from: x, points: [] });
    stretches.at(-1)!.points.push(`${x} ${y}`);
  }
  // A point between two gaps is a dot, since the ends of lines are round.
  const stroke = stretches.map(({ points }) => `M${points.join("L")}${points.length === 1 ? "h0" : ""}`).join("");
  const area = stretches.map(({ from, points }) => `M${points.join("L")}V${size.height}H${from}Z`).join("");
  return html`${isSecond ? "" : html`<path class="area" d="${area}"/>`}<path class="line${isSecond ? " second" : ""}" vector-effect="non-scaling-stroke" stroke-linecap="round" stroke-linejoin="round" d="${stroke}"/>`;
}

function yOf(value: number, scale: Scale, height: number): number {
  return round(height - margin - scale.at(value) * (height - 2 * margin));
}

/** Coordinate with as many digits as can be seen. */
const round = (coordinate: number): number => Math.round(coordinate * 10) / 10;

const greatest = (values: Values): number => values.reduce((most: number, value) => Math.max(most, value ?? 0), 0);

function inWords(values: Values, format: (value: number) => string): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return "nothing is known";
  const [first, last] = [known[0]!, known.at(-1)!];
  const least = known.reduce((one, other) => Math.min(one, other));
  const gaps =
    known.length < values.length
      ? `; nothing is known of ${values.length - known.length} of ${values.length} steps`
      : "";
  return `first ${format(first)}, last ${format(last)}, least ${format(least)}, greatest ${format(greatest(known))}${gaps}`;
}

function numbers(
  title: string,
  times: readonly number[],
  stepMs: number,
  lines: readonly ChartLine[],
  format: (value: number) => string,
): Html {
  const steps = Math.ceil(times.length / mostRows);
  const firsts = Array.from({ length: Math.ceil(times.length / steps) }, (_, nth) => nth * steps).toReversed();
  const what = steps > 1 ? `${title}: means of ${duration(steps * stepMs)}, from the times on` : title;
  const rowOf = (first: number): Html => {
    const iso = new Date(times[first]!).toISOString();
    return html`<tr><td data-head="Time, UTC"><time datetime="${iso}">${iso.slice(11, 19)}</time></td>${lines.map(
      ({ name, values }) => {
        const mean = meanOf(values.slice(first, first + steps));
        return html`<td class="number" data-head="${name}">${mean === undefined ? html`<span class="none">none</span>` : format(mean)}</td>`;
      },
    )}</tr>\n`;
  };
  return html`<details><summary>Numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="${title}, numbers"><table><caption>${what}</caption>
<thead><tr><th scope="col">Time, UTC</th>${lines.map(({ name }) => html`<th scope="col" class="number">${name}</th>`)}</tr></thead>
<tbody>${firsts.map(rowOf)}</tbody></table></div></details>`;
}

function meanOf(values: Values): number | undefined {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value) / known.length;
}
