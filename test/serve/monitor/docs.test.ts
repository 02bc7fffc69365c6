import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ServeMetrics } from "../../../src/serve/monitor/index.js";
import { type Family, parsePrometheus } from "../../monitor/prometheus-text.js";
import { answer, serveCounters } from "./counters.js";

const page = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");

/** Our families, each with every label that it can have. */
async function families(): Promise<readonly Family[]> {
  const metrics = new ServeMetrics({ version: "1.2.3", database: "app", counters: serveCounters() });
  try {
    metrics.observeCall("Publish", "ok", 1);
    metrics.observeRequest(answer, 1);
    return [...parsePrometheus(await metrics.text()).values()].filter(({ name }) => name.startsWith("hawser_"));
  } finally {
    metrics.close();
  }
}

/** Label by label, the values that it has, without the bounds of histograms, and without the label that all have. */
function labelsOf({ samples }: Family): ReadonlyMap<string, ReadonlySet<string>> {
  const found = new Map<string, Set<string>>();
  for (const [label, value] of samples.flatMap(({ labels }) => Object.entries(labels))) {
    if (label === "le" || label === "database") continue;
    found.set(label, (found.get(label) ?? new Set()).add(value));
  }
  return found;
}

describe("docs/metrics.md", () => {
  it("has every metric, with its type, its labels and its help", async () => {
    const said = page.split("\n").filter((line) => /^\| `hawser_\w+` \|/.test(line));
    const rows = (await families()).map((family) => {
      const labels = [...labelsOf(family).keys()].map((label) => `\`${label}\``).join(", ");
      return `| \`${family.name}\` | ${family.type} | ${labels} | ${family.help} |`.replace("|  |", "| |");
    });
    expect([...said].sort()).toEqual([...rows].sort());
  });

  it("names the values of the labels whose values are few", async () => {
    const few = ["client", "outcome", "reason", "role"];
    for (const family of await families()) {
      for (const [label, values] of labelsOf(family)) {
        if (!few.includes(label)) continue;
        for (const value of values) expect(page, `${family.name} ${label}`).toContain(`\`${value}\``);
      }
    }
  });

  it("asks for no metric that does not exist", async () => {
    const known = new Set((await families()).map(({ name }) => name));
    for (const [name] of page.matchAll(/\bhawser_[a-z_]+[a-z]/g)) {
      expect([...known], name).toContain(name.replace(/_(bucket|sum|count)$/, ""));
    }
  });
});
