/** Sections with the verdict about an installation and the leader. */
import { html } from "hono/html";
import { plural, withoutPasswords } from "../../../foundation/errors/index.js";
import type { Reading, ShownVerdict } from "../../console/index.js";
import type { LeaderOverview } from "../../operate/index.js";
import { section, table } from "./table.js";
import { type Html, short, time } from "./text.js";

/** Section with the verdict of `hawser doctor`, its age beside the headline. */
export function verdictSection({ report, ageMs, isOld, isExamining, problem }: ShownVerdict, now: number): Html {
  const examined = html`Examined ${time(new Date(now - ageMs), now)}${isExamining ? ", and now again" : ""}.`;
  const failure =
    problem === undefined
      ? ""
      : html`<p class="error">The last examination failed: ${short(withoutPasswords(problem))}</p>`;
  const body =
    report === undefined
      ? problem === undefined &&
        html`<p role="status">The installation is being examined. Reload the page in some seconds.</p>`
      : html`${headlineOf(report, isOld)} ${examined}</p>\n${findingsOf(report, isOld)}`;
  return html`<section id="verdict" aria-labelledby="verdict-title">
<h2 id="verdict-title">Verdict</h2>
${failure}${body}
</section>`;
}

type Report = NonNullable<ShownVerdict["report"]>;

/** Begin of the paragraph with the headline. An old verdict is none of the present. */
function headlineOf({ findings, checks }: Report, isOld: boolean): Html {
  const done = `${plural(checks.filter(({ outcome }) => outcome !== "not_checked").length, "check")} of ${checks.length} done`;
  const counted = (["error", "warning"] as const).flatMap((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? [] : [plural(count, severity)];
  });
  const found = counted.length === 0 ? "no errors" : counted.join(", ");
  if (isOld)
    return html`<p class="warning">The present state is not known. The last examination found ${found}: ${done}.`;
  const worst = findings.find(({ severity }) => severity !== "note")?.severity ?? "ok";
  return html`<p class="${worst}">${found.charAt(0).toUpperCase()}${found.slice(1)}: ${done}.`;
}

function findingsOf({ findings }: Report, isOld: boolean): Html | string {
  if (findings.length === 0) return "";
  return table(isOld ? "Findings of the last examination" : "Findings", findings, [
    { head: "Severity", cell: ({ severity }) => html`<strong class="${severity}">${severity}</strong>` },
    { head: "Check", cell: ({ check }) => check },
    { head: "Finding", cell: ({ what }) => short(withoutPasswords(what)) },
    { head: "Remedy", cell: ({ remedy }) => short(withoutPasswords(remedy)) },
  ]);
}

/** Section with the leader of the subscriptions. */
export function leaderSection(read: Reading<LeaderOverview | undefined>, now: number): Html {
  return section("leader", "Leader of the subscriptions", read, (leader) =>
    leader === undefined || leader.owner === null
      ? html`<p>No process leads.</p>`
      : html`<dl><dt>Process</dt><dd>${short(leader.owner)}</dd><dt>Epoch</dt><dd>${String(leader.epoch)}</dd>
<dt>Handles all subscriptions since</dt><dd>${time(leader.completeSince, now)}</dd>
<dt>Last progress</dt><dd>${time(leader.progressAt, now)}</dd></dl>`,
  );
}
