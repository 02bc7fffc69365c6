/** Overview: the verdict, numbers, what waits, what has failed, and who runs. */
import { html } from "hono/html";
import { age, badgesOf, signsOf } from "../../console/index.js";
import { deadLetterIdOf } from "../../operate/index.js";
import { causeLink, causesSection } from "../html/dead.js";
import { queryOf } from "../html/filter.js";
import {
  chartsSection,
  movingTiles,
  oldestTopics,
  processesLine,
  recentCauses,
  tiles,
  waitingTiles,
} from "../html/overview.js";
import { findingsSection, verdictBanner } from "../html/status.js";
import { unread } from "../html/table.js";
import { short } from "../html/text.js";
import { type Site, valueIn } from "./site.js";

export function overviewRoutes(site: Site): void {
  const { prefix, readings, verdicts, glances } = site.options;
  site.app.get("/", async (c) => {
    const shown = await glances.fresh();
    const { glance, ageMs, away } = shown;
    const verdict = verdicts.seen(signsOf(shown));
    const away503 = away === undefined ? {} : ({ status: 503 } as const);
    const problem =
      away === undefined
        ? ""
        : html`<section class="banner error" aria-label="Postgres"><p><strong class="error">Postgres is away.</strong> ${short(away)}</p>
<p class="quiet">${glance === undefined ? "Nothing has been read before." : `What follows was read ${age(ageMs)}.`}</p></section>`;
    if (glance === undefined) {
      const body = html`${problem}${verdictBanner(verdict)}${findingsSection(verdict)}`;
      return site.answer(c, "Overview", body, { refreshes: true, ...away503 });
    }
    const { hasNats } = badgesOf(glance, glance.at);
    const span = c.req.query("span") === "day" ? "day" : "hour";
    const charts =
      span === "day" && away === undefined ? await readings.series({ kind: "topic", span }) : glance.series;
    const series = valueIn(glance.series)?.series[0];
    const numbers = [
      ...(series === undefined ? [] : movingTiles(series, "#charts")),
      ...waitingTiles(valueIn(glance.topics) ?? [], series, prefix, glance.at),
    ];
    const body = html`${problem}${verdictBanner(verdict)}
${tiles(numbers)}
<div class="columns">${oldestTopics(glance.topics, prefix, glance.at)}
${recentCauses(glance, prefix, (cause) => causeLink(cause, prefix))}</div>
${processesLine(glance, hasNats, prefix)}
${findingsSection(verdict)}
${charts.state === "read" ? chartsSection(charts.value, span, (query) => `${prefix}/${queryOf(query)}`) : unread(charts)}`;
    return site.answer(c, "Overview", body, { refreshes: true, ...away503 });
  });

  site.app.get("/causes", async (c) => {
    const before = c.req.query("before");
    const causes = await readings.causes(before === undefined ? {} : { beforeId: String(deadLetterIdOf(before)) });
    return site.answer(c, "Causes", causesSection(causes, site.formContext()), { refreshes: true, place: "/dead" });
  });
}
