/** Banner with the verdict about an installation, its findings, and the leader. */
import { html } from "hono/html";
import { plural, withoutPasswords } from "../../../foundation/errors/index.js";
import { age, type Reading, type ShownVerdict } from "../../console/index.js";
import type { LeaderOverview } from "../../operate/index.js";
import { section, table } from "./table.js";
import { fullTime, type Html, short, time } from "./text.js";

/** The verdict of `hawser doctor` in a line, its age beside it. */
export function verdictBanner({ report, ageMs, isOld, isExamining, problem }: ShownVerdict): Html {
  if (report === undefined) {
    return problem === undefined
      ? html`<section class="banner" aria-label="Verdict"><p role="status">The installation is being examined. Reload the page in a few seconds.</p></section>`
      : html`<section class="banner error" aria-label="Verdict">${failure(problem)}</section>`;
  }
  const { findings, checks } = report;
  const done = `${plural(checks.filter(({ outcome }) => outcome !== "not_checked").length, "check")} of ${checks.length} done`;
  const counted = (["error", "warning"] as const).flatMap((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? [] : [plural(count, severity)];
  });
  const found = counted.length === 0 ? "no errors" : counted.join(", ");
  const worst = findings.find(({ severity }) => severity !== "note")?.severity ?? "ok";
  const headline = isOld
    ? html`<strong>The present state is not known.</strong> The last examination found ${found}: ${done}.`
    : html`<strong class="${worst}">${found.charAt(0).toUpperCase()}${found.slice(1)}</strong>: ${done}.`;
  const link = findings.length === 0 ? "" : html`<p><a href="#verdict">What was found, and what to do</a></p>`;
  return html`<section class="banner ${isOld ? "warning" : worst}" aria-label="Verdict">
<p>${headline}</p><p class="quiet">Examined ${age(ageMs)}${isExamining ? ", and now again" : ""}.</p>${link}${problem === undefined ? "" : failure(problem)}
</section>`;
}

function failure(problem: string): Html {
  return html`<p class="error">The last examination failed: ${short(withoutPasswords(problem))}</p>`;
}

/** Section with the findings of the verdict; empty if there are none. An old verdict is none of the present. */
export function findingsSection({ report, isOld }: ShownVerdict): Html | string {
  if (report === undefined || report.findings.length === 0) return "";
  const title = isOld ? "Findings of the last examination" : "Findings";
  return html`<section id="verdict" aria-labelledby="verdict-title">
<h2 id="verdict-title">${title}</h2>
${table(title, report.findings, [
  { head: "Severity", cell: ({ severity }) => html`<span class="badge ${severity}">${severity}</span>` },
  { head: "Check", cell: ({ check }) => html`<span class="whole">${check}</span>` },
  { head: "Finding", cell: ({ what }) => short(withoutPasswords(what)) },
  { head: "Remedy", cell: ({ remedy }) => short(withoutPasswords(remedy)) },
])}
</section>`;
}

/** Section with the leader of the subscriptions. */
export function leaderSection(read: Reading<LeaderOverview | undefined>, now: number): Html {
  return section("leader", "Leader of the subscriptions", read, (leader) =>
    leader === undefined || leader.owner === null
      ? html`<p>No process leads.</p>`
      : html`<dl><dt>Process</dt><dd>${short(leader.owner)}</dd><dt>Epoch</dt><dd>${String(leader.epoch)}</dd>
<dt>Handles all subscriptions since</dt><dd>${fullTime(leader.completeSince, now)}</dd>
<dt>Last progress</dt><dd>${time(leader.progressAt, now)}</dd></dl>`,
  );
}
