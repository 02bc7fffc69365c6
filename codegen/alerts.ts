import { readFileSync } from "node:fs";
import { load } from "js-yaml";
import type { GeneratedFile } from "./plugin.js";
import { markdownHead } from "./print.js";

/** Path relative to the root of the project. */
const alertsFile = "deploy/chart/alerts.yaml";

interface Rule {
  readonly alert: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string; readonly action: string };
}

/** Generates the page with a section for each alert, which the alert's `runbook_url` names. */
export function generateAlertsPage(): GeneratedFile {
  const { groups } = load(readFileSync(alertsFile, "utf8")) as {
    readonly groups: readonly { readonly rules: readonly Rule[] }[];
  };
  const sections = groups
    .flatMap(({ rules }) => rules)
    .map(
      ({ alert, labels: { severity }, annotations }) =>
        `\n## ${alert}\n\n**${severity}**: ${readable(annotations.summary)}. ${readable(annotations.description)}\n\n` +
        `${readable(annotations.action)}\n`,
    );
  const content = `${markdownHead("codegen", [alertsFile])}
# Alerts

For each alert its meaning, then what to do. [How to use them](../../docs/operations.md#alerts).
${sections.join("")}`;
  return { path: "alerts.md", content };
}

/** A text of an alert with the names of its labels in place of the templates of Prometheus. */
function readable(text: string): string {
  return text
    .replace(/\{\{-? *(?:if|with|range|end)\b.*?\}\}/g, "")
    .replace(/\{\{ *(?:\$labels|\.Labels)\.(\w+) *\}\}/g, "*$1*")
    .replace(/\{\{ *(?:\$value|\.Value)\b[^}]*\}\}/g, "*value*")
    .trim();
}
