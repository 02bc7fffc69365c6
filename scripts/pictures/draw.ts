/**
 * Draws the pictures of the docs. All are 520 px wide, so that their texts can be read at 400 px. A text that is longer than
 * its place is an error, by an estimate that suits all usual fonts.
 */
import { svgOf, text } from "../../bench/svg.js";
import type { Bar, overview as overviewOf, Steps, Timeline } from "./sources.js";

const width = 520;
const margin = 20;

/** Of the six paths, and of an axis, each for light and for dark. */
const colours = [
  ["#0969da", "#4493f8"],
  ["#bc4c00", "#f0883e"],
  ["#1a7f37", "#3fb950"],
  ["#8250df", "#ab7df8"],
  ["#0f7281", "#39c5cf"],
  ["#bf3989", "#f778ba"],
  ["#59636e", "#9198a1"],
] as const;

const paint = (dark: 0 | 1): string =>
  colours.map((both, index) => `.l${index + 1}{stroke:${both[dark]}}.f${index + 1}{fill:${both[dark]}}`).join("");

const style = [
  "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}",
  ".title{font-size:16px;font-weight:600}.bold{font-weight:600}.small{font-size:12px;fill:#59636e}",
  ".card{fill:#fff;stroke:#d1d9e0}.life,.group{stroke:#8c959f;stroke-dasharray:4 4;fill:none}.frame{fill:#f6f8fa;stroke:#8c959f}",
  ".halo{stroke:#fff;stroke-width:5;stroke-linejoin:round;paint-order:stroke}",
  ".you{fill:#eaeef2;stroke:#8c959f}.store{fill:#fff8e5;stroke:#bf8700}.hawser{fill:#ddf4ff;stroke:#54aeff}.nats{fill:#dafbe1;stroke:#4ac26b}",
  ".arrow{fill:none;stroke-width:2}.a{fill:#0969da}.b{fill:#1a7f37}.c{fill:#59636e}.fail{fill:#cf222e}.wait{fill:#eaeef2;stroke:#8c959f}",
  ".ahead{fill:#0969da}.behind{fill:#bc4c00}.on{fill:#fff}.line{stroke:#8c959f}",
  paint(0),
  "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}",
  ".life,.group,.line{stroke:#656c76}.frame{fill:#151b23;stroke:#656c76}.halo{stroke:#0d1117}",
  ".you{fill:#262c36;stroke:#656c76}.store{fill:#2e2611;stroke:#9e6a03}.hawser{fill:#0c2d4d;stroke:#1f6feb}.nats{fill:#12361f;stroke:#238636}",
  ".a{fill:#4493f8}.b{fill:#3fb950}.c{fill:#9198a1}.fail{fill:#f85149}.wait{fill:#262c36;stroke:#656c76}",
  `.ahead{fill:#4493f8}.behind{fill:#f0883e}.on{fill:#0d1117}${paint(1)}}`,
].join("");

/** A text in its place. @throws RangeError if it does not fit */
function label(x: number, y: number, content: string, place: number, className?: string, anchor = "middle"): string {
  if (content.length * 6.6 > place) throw new RangeError(`"${content}" is longer than ${place} px`);
  return text(x, y, content, className, anchor);
}

function box(kind: string, x: number, y: number, w: number, h: number): string {
  return `<rect class="${kind}" x="${x}" y="${y}" width="${w.toFixed(1)}" height="${h}" rx="6"/>`;
}

/** Line with a head at its last point. */
function arrow(path: number, points: string): string {
  const [[x0, y0], [x1, y1]] = points
    .split(" ")
    .slice(-2)
    .map((point) => point.split(",").map(Number)) as [[number, number], [number, number]];
  const turn = (Math.atan2(y1 - y0, x1 - x0) * 180) / Math.PI;
  const head = `<path class="f${path}" d="M0 0-9 5V-5z" transform="translate(${x1} ${y1}) rotate(${turn.toFixed(1)})"/>`;
  return `<polyline class="arrow l${path}" points="${points}"/>${head}`;
}

function circle(fill: string, x: number, y: number, content: string): string {
  return `<circle class="${fill}" cx="${x}" cy="${y}" r="9"/>${text(x, y + 4.5, content, "bold on", "middle")}`;
}

export function stepsSvg({ title, inWords, path, parts, steps }: Steps): string {
  const centre = (part: string | undefined): number => 96 + 164 * Number(part);
  const drawn: string[] = [];
  const groups: string[] = [];
  let [y, top, left, right] = [94, 0, 0, 0];
  for (const line of steps.trim().split(/\n\s*/)) {
    const [, from, sign, to, words = ""] = /^(\d?)([>@[\]])(\d?(?:-\d)?) ?(.*)$/.exec(line)!;
    if (sign === ">") {
      const [x0, x1] = [centre(from), centre(to)];
      drawn.push(label((x0 + x1) / 2, y + 14, words, Math.abs(x1 - x0) - 4, "halo"));
      drawn.push(arrow(path, `${x0},${y + 22} ${x1},${y + 22}`));
      y += 36;
    } else if (sign === "@") {
      drawn.push(box("you", centre(to) - 76, y + 4, 152, 26), label(centre(to), y + 21.5, words, 152));
      y += 38;
    } else if (sign === "[") {
      const [first, last] = to!.split("-");
      [top, left, right] = [y + 4, centre(first) - 82, centre(last) + 82];
      // Behind the life lines, and the width of the heads.
      drawn.push(label((left + right) / 2, y + 17, words, right - left, "small halo"));
      y += 24;
    } else {
      y += 10;
      groups.push(`<rect class="group" x="${left}" y="${top}" width="${right - left}" height="${y - top}" rx="6"/>`);
      y += 6;
    }
  }
  const heads = parts.flatMap((part, index) => {
    const [kind, name] = part.split(/:(.*)/) as [string, string];
    const x = centre(`${index}`);
    return [
      `<line class="life" x1="${x}" x2="${x}" y1="80" y2="${y + 4}"/>`,
      box(kind, x - 74, 46, 148, 34),
      label(x, 67.5, name, 148, "bold"),
    ];
  });
  return svgOf({ title, inWords, width, height: y + 16, style, body: [...heads, ...groups, ...drawn] });
}

export function timelineSvg({ title, inWords, lanes, end, ticks }: Timeline): string {
  const left = 112;
  const x = (at: number): number => Number((left + (at / end) * (width - margin - left)).toFixed(1));
  const bottom = 48 + lanes.length * 34;
  const drawnBar = ([kind, from, to, words]: Bar, y: number): string => {
    if (kind === "try") return circle("fail", x(from), y + 17, words);
    const w = x(to) - x(from);
    return `${box(kind, x(from), y + 5, w, 24)}${label(x(from) + w / 2, y + 21.5, words, w, kind === "wait" ? undefined : "on")}`;
  };
  const body = [
    ...ticks.flatMap(([at, words]) => [
      `<line class="life" x1="${x(at)}" x2="${x(at)}" y1="48" y2="${bottom + 4}"/>`,
      text(x(at), bottom + 20, words, "small", "middle"),
    ]),
    ...lanes.flatMap(([name, ...bars], index) => [
      label(margin, 48 + index * 34 + 21.5, name, left - margin, "bold", "start"),
      ...bars.map((bar) => drawnBar(bar, 48 + index * 34)),
    ]),
    ...(ticks.length > 0
      ? []
      : [
          arrow(7, `${left},${bottom + 12} ${width - margin},${bottom + 12}`),
          text(margin, bottom + 16.5, "time", "small"),
        ]),
  ];
  return svgOf({ title, inWords, width, height: bottom + 32, style, body });
}

export function overviewSvg({ title, inWords, height, boxes, arrows, numbers, legend }: typeof overviewOf): string {
  const body = [
    ...boxes.flatMap(([kind, x, y, w, h, name, remark]) => {
      const middle = y + (kind === "frame" ? 20 : h / 2 + (remark === "" ? 4.5 : -3));
      const remarks = remark === "" ? [] : [label(x + w / 2, middle + 17, remark, w, "small")];
      return [
        box(kind, x, y, w, h),
        label(kind === "frame" ? x + 158 : x + w / 2, middle, name, w, "bold"),
        ...remarks,
      ];
    }),
    ...arrows.map(([path, points]) => arrow(path, points)),
    ...numbers.map(([path, x, y]) => circle(`f${path}`, x, y, `${path}`)),
    ...legend.flatMap((words, index) => {
      const [x, y] = [30 + 250 * (index % 2), height - 52 + 20 * Math.floor(index / 2)];
      return [circle(`f${index + 1}`, x, y - 4.5, `${index + 1}`), label(x + 16, y, words, 220, undefined, "start")];
    }),
  ];
  return svgOf({ title, inWords, width, height, style, body });
}

/** Ratios to others, as in `sources.ts`. */
export interface Glance {
  readonly title: string;
  readonly inWords: string;
  readonly ratios: readonly (readonly [label: string, ratio: number])[];
}

/** Bars from 1× on, on a logarithmic axis: to the right where Hawser is ahead, to the left where it is behind. */
export function glanceSvg({ title, inWords, ratios }: Glance): string {
  const sorted = [...ratios].sort(([, one], [, other]) => other - one);
  const logs = sorted.map(([, ratio]) => Math.log10(ratio));
  const [least, greatest] = [Math.min(0, ...logs), Math.max(0, ...logs)];
  // A value stands behind the end of its bar.
  const [left, right] = [296, width - margin - 42];
  const x = (log: number): number => left + ((log - least) / (greatest - least)) * (right - left);
  const height = 80 + sorted.length * 24;
  const body = [
    text(x(0) - 8, 58, "Hawser is behind", "small", "end"),
    text(x(0) + 8, 58, "Hawser is ahead", "small"),
    `<line class="line" x1="${x(0).toFixed(1)}" x2="${x(0).toFixed(1)}" y1="46" y2="${height - 14}"/>`,
    ...sorted.flatMap(([name, ratio], index) => {
      const [y, from, to] = [66 + index * 24, x(Math.min(0, logs[index]!)), x(Math.max(0, logs[index]!))];
      const isAhead = ratio >= 1;
      return [
        label(margin, y + 16.5, name, 236, undefined, "start"),
        box(isAhead ? "ahead" : "behind", from, y + 5, to - from, 14),
        text(
          (isAhead ? to + 6 : from - 6).toFixed(1),
          y + 16.5,
          `${ratio.toFixed(ratio < 1 ? 2 : 1)}×`,
          undefined,
          isAhead ? "start" : "end",
        ),
      ];
    }),
  ];
  return svgOf({ title, inWords, width, height, style, body });
}
