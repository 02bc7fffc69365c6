/**
 * Reads Prometheus's text format, version 0.0.4, and refuses whatever a scraper would. It knows nothing of `src/foundation/monitor/`.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
 */

interface Sample {
  /** The name of the line: of a histogram with `_bucket`, `_sum` or `_count`. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly Sample[];
}

const sampleLine = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/s;
const labelPair = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/y;
const suffixes: Readonly<Record<string, readonly string[]>> = {
  counter: [""],
  gauge: [""],
  histogram: ["_bucket", "_sum", "_count"],
  summary: ["", "_sum", "_count"],
};

/** The families by name. Throws on the first line that is not right. */
export function parsePrometheus(text: string): ReadonlyMap<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const families = new Map<string, Family & { samples: Sample[] }>();
  const series = new Set<string>();
  let current: (Family & { samples: Sample[] }) | undefined;
  let help: readonly [name: string, text: string] | undefined;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [, keyword, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === "HELP") {
      help = [name, rest];
    } else if (keyword === "TYPE") {
      if (families.has(name)) throw new Error(`${name} comes twice`);
      if (help?.[0] !== name) throw new Error(`${name} has no help`);
      if (!Object.hasOwn(suffixes, rest)) throw new Error(`${name} is of no known type: ${rest}`);
      current = { name, type: rest, help: help[1], samples: [] };
      families.set(name, current);
    } else {
      const sample = readSample(line);
      const { type = "", name: family = "" } = current ?? {};
      if (!(suffixes[type] ?? []).some((suffix) => sample.name === family + suffix)) {
        throw new Error(`this line does not belong to ${family}: ${line}`);
      }
      const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`;
      if (series.has(key)) throw new Error(`this series comes twice: ${key}`);
      series.add(key);
      current?.samples.push(sample);
    }
  }
  return families;
}

function readSample(line: string): Sample {
  const [, name, pairs = "", number = ""] = sampleLine.exec(line) ?? [];
  if (name === undefined) throw new Error(`this is no line of the format: ${line}`);
  const value = Number(number.replace(/^([+-])Inf$/, "$1Infinity"));
  // What Go's ParseFloat reads, which scrapers use.
  if (!/^nan$/i.test(number) && Number.isNaN(value)) throw new Error(`this has no number: ${line}`);
  return { name, labels: readLabels(pairs), value };
}

function readLabels(pairs: string): Record<string, string> {
  const labels: Record<string, string> = {};
  labelPair.lastIndex = 0;
  while (labelPair.lastIndex < pairs.length) {
    const [, name, value] = labelPair.exec(pairs) ?? [];
    if (name === undefined || value === undefined) throw new Error(`these are no labels: ${pairs}`);
    if (Object.hasOwn(labels, name)) throw new Error(`the label ${name} comes twice: ${pairs}`);
    labels[name] = value.replaceAll(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
  }
  return labels;
}
