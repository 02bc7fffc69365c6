import { describe, expect, it } from "vitest";
import { Histogram, type MetricFamily } from "../../src/foundation/monitor/index.js";
import { prometheusText } from "../../src/foundation/monitor/prometheus-text.js";
import { parsePrometheus } from "./prometheus-text.js";

function filled(buckets: readonly number[], ...values: readonly number[]): Histogram {
  const histogram = new Histogram({ buckets });
  for (const value of values) histogram.observe(value);
  return histogram;
}

/** Text of a gauge. */
function gaugeText(...samples: MetricFamily["samples"]): string {
  return prometheusText([{ name: "a", type: "gauge", help: "Some.", samples }]);
}

describe("the text for Prometheus", () => {
  it("has help, type and a line for each time series, with a blank line between metrics", () => {
    const families: MetricFamily[] = [
      { name: "a_total", type: "counter", help: "Some.", samples: [[{}, 1]] },
      {
        name: "b",
        type: "gauge",
        help: "Others.",
        samples: [
          [{ x: "1", y: "2" }, 0.5],
          [{ x: "3", y: "" }, -4],
        ],
      },
      { name: "c", type: "gauge", help: "None.", samples: [] },
    ];
    const expected = `# HELP a_total Some.
# TYPE a_total counter
a_total 1

# HELP b Others.
# TYPE b gauge
b{x="1",y="2"} 0.5
b{x="3",y=""} -4

# HELP c None.
# TYPE c gauge
`;
    expect(prometheusText(families)).toBe(expected);
    expect(prometheusText([])).toBe("");
  });

  it("adds up the buckets of a histogram", () => {
    const samples: MetricFamily["samples"] = [[{ x: "1" }, filled([0.1, 1], 0.1, 0.11, 1, 2)]];
    const text = prometheusText([{ name: "a", type: "histogram", help: "Some.", samples }]);
    expect(text).toBe(`# HELP a Some.
# TYPE a histogram
a_bucket{le="0.1",x="1"} 1
a_bucket{le="1",x="1"} 3
a_bucket{le="+Inf",x="1"} 4
a_sum{x="1"} 3.21
a_count{x="1"} 4
`);
  });

  it("escapes line breaks and backslashes, and quotes in labels", () => {
    expect(gaugeText([{ x: 'a "b"\n\\n' }, 1])).toContain('a{x="a \\"b\\"\\n\\\\n"} 1\n');
    const text = prometheusText([{ name: "a", type: "gauge", help: 'A "b"\n\\n', samples: [] }]);
    expect(text).toContain('# HELP a A "b"\\n\\\\n\n');
  });

  it("is read as it was meant, whatever characters and numbers there are", () => {
    const texts = ['"', "\\", "\n", "\\n", '\\"', "", "\r\u2028\u0000é💡", "},a 1", 'a="b",c="d"'];
    const numbers = [0, 1e21, 1e-7, 2 ** 53, -1.5, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
    const samples = texts.flatMap((x) => numbers.map((number, y) => [{ x, y: String(y) }, number] as const));
    const found = parsePrometheus(gaugeText(...samples)).get("a")!.samples;
    expect(found.map(({ labels, value }) => [labels, value])).toEqual(samples);
  });
});

describe("a histogram", () => {
  it("puts a value into the first bucket whose bound it does not exceed", () => {
    const { buckets, sum } = filled([0.001, 0.003], 0, 0.001, 0.002, 60);
    expect(buckets).toEqual([2, 1, 1]);
    expect(sum).toBeCloseTo(60.003, 9);
  });

  it("adds up with another one", () => {
    const histogram = filled([1, 2], 1, 3);
    histogram.add(filled([1, 2], 1.5, 4));
    expect(histogram).toMatchObject({ buckets: [1, 1, 2], sum: 9.5 });
  });
});
