import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Metric, peerMetrics, serveMetrics } from "../../../generated/ts/metrics/metrics.js";
import { prometheusText } from "../../../src/foundation/monitor/prometheus-text.js";
import { ServeMetrics } from "../../../src/nats/serve/monitor/index.js";
import { type Family, parsePrometheus } from "../../monitor/prometheus-text.js";
import { answer, serveCounters } from "./counters.js";

const page = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");

/** Our families, each with every label that it can have. */
async function families(): Promise<readonly Family[]> {
  const metrics = new ServeMetrics({ version: "1.2.3", database: "app", counters: serveCounters });
  try {
    metrics.observeCall("Publish", "ok", 1);
    metrics.observeRequest(answer, 1);
    return [...parsePrometheus(prometheusText(await metrics.read())).values()];
  } finally {
    metrics.close();
  }
}

describe("the table of metrics", () => {
  it("is what hawser serve shows: each with its type, its help and its labels", async () => {
    const found = await families();
    expect(found.map(({ name }) => name)).toEqual(Object.keys(serveMetrics));
    for (const { name, type, help, samples } of found) {
      const metric: Metric = serveMetrics[name as keyof typeof serveMetrics];
      expect({ type, help }).toEqual({ type: metric.type, help: metric.help });
      expect(samples.length, name).toBeGreaterThan(0);
      for (const { labels } of samples) {
        const { le: _, database: __, ...own } = labels;
        expect(Object.keys(own), name).toEqual(metric.labels);
        for (const [label, values] of Object.entries(metric.values)) expect(values, name).toContain(own[label]);
      }
    }
  });
});

describe("docs/metrics.md", () => {
  it("names no metric that does not exist", () => {
    const known = Object.keys({ ...serveMetrics, ...peerMetrics });
    for (const [name] of page.matchAll(/\bhawser_(?!data\.)[a-z_]+[a-z]/g)) {
      expect(known, name).toContain(name.replace(/_(bucket|sum|count)$/, ""));
    }
  });

  it("explains each label of hawser serve", () => {
    const labels = new Set(Object.values<Metric>(serveMetrics).flatMap((metric) => metric.labels));
    for (const label of labels) if (label !== "version") expect(page, label).toContain(`\`${label}\``);
  });
});
