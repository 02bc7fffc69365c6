/** Overview: the verdict, dead letters by cause, and the leader. */
import { html } from "hono/html";
import { deadLetterIdOf } from "../../operate/index.js";
import { causesSection } from "../html/dead.js";
import { leaderSection, verdictSection } from "../html/status.js";
import type { Site } from "./site.js";

export function overviewRoutes(site: Site): void {
  const { readings, verdicts } = site.options;
  site.app.get("/", async (c) => {
    const before = c.req.query("before");
    const beforeId = before === undefined ? undefined : String(deadLetterIdOf(before));
    const [causes, leader] = await Promise.all([readings.causes(beforeId), readings.leader()]);
    const context = site.formContext();
    const body = html`${verdictSection(verdicts.newest, Date.now())}\n${causesSection(causes, context)}\n${leaderSection(leader, context.now)}`;
    return site.answer(c, "Overview", body, { refreshes: true });
  });
}
