/** Lists of overviews, which share a filter and pages. */
import { html } from "hono/html";
import {
  outboxTable,
  peersTable,
  pendingTable,
  scheduledTable,
  schedulesTable,
  streamsTable,
  topicsTable,
} from "../../console/index.js";
import type { Listing } from "../../operate/index.js";
import { type ListPlace, listFilter, listingOf, listPlace, overviewSection } from "../html/table.js";
import type { Html } from "../html/text.js";
import { topicActions } from "../html/topics.js";
import { type Site, valueIn } from "./site.js";

export function listRoutes(site: Site): void {
  const { prefix, readings } = site.options;
  const onList = (
    path: string,
    title: string,
    render: (place: ListPlace, listing: Listing, now: number) => Promise<Html>,
  ): void => {
    site.app.get(path, async (c) => {
      const place = listPlace(`${prefix}${path}`, c.req.query());
      const body = html`${listFilter(place)}\n${await render(place, listingOf(place), Date.now())}`;
      return site.answer(c, title, body, { refreshes: true });
    });
  };
  onList("/backlog", "Backlog", async (place, listing, now) => {
    const pending = overviewSection("pending", pendingTable, await readings.pending(listing), now, place);
    return html`${pending}\n<p><a href="${prefix}/topics">Topics and their listeners</a></p>`;
  });
  onList("/topics", "Topics", async (place, listing, now) => {
    const [topics, abilities] = await Promise.all([readings.topics(listing), readings.abilities()]);
    const may = valueIn(abilities);
    const actions = may && topicActions(may, site.formContext());
    return overviewSection("topics", topicsTable, topics, now, place, actions);
  });
  onList("/peers", "Peers", async (place, listing, now) =>
    overviewSection("peers", peersTable, await readings.peers(listing), now, place),
  );
  onList("/outbox", "Outbox", async (place, listing, now) => {
    const [outbox, scheduled] = await Promise.all([readings.outbox(), readings.scheduled(listing)]);
    return html`${overviewSection("outbox", outboxTable, outbox, now)}
${overviewSection("scheduled", scheduledTable, scheduled, now, place)}`;
  });
  onList("/streams", "Streams", async (place, listing, now) =>
    overviewSection("streams", streamsTable, await readings.streams(listing), now, place),
  );
  onList("/schedules", "Schedules", async (place, listing, now) =>
    overviewSection("schedules", schedulesTable, await readings.schedules(listing), now, place),
  );
}
