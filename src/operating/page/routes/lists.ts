/** Lists of overviews, which share a filter, an order and pages. */
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
import { type Listing, presentPoints } from "../../operate/index.js";
import { queryOf } from "../html/filter.js";
import { subscriptionsSection } from "../html/overview.js";
import { leaderSection } from "../html/status.js";
import { type ListPlace, listFilter, listingOf, listPlace, overviewSection } from "../html/table.js";
import type { Html } from "../html/text.js";
import type { Site } from "./site.js";

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
  const topicLink = ({ topic }: { readonly topic: string }): string => `${prefix}/topic${queryOf({ name: topic })}`;

  onList("/backlog", "Backlog", async (place, listing, now) =>
    overviewSection("pending", pendingTable, await readings.pending(listing), now, { place, link: topicLink }),
  );
  onList("/topics", "Topics", async (place, listing, now) => {
    return overviewSection("topics", topicsTable, await readings.topics(listing), now, { place, link: topicLink });
  });
  onList("/peers", "Peers and workers", async (place, listing, now) =>
    overviewSection("peers", peersTable, await readings.peers(listing), now, {
      place,
      link: ({ name }) => `${prefix}/peer${queryOf({ name })}`,
    }),
  );
  onList("/later", "Due later", async (place, listing, now) =>
    overviewSection("scheduled", scheduledTable, await readings.scheduled(listing), now, {
      place,
      link: ({ id }) => `${prefix}/message${queryOf({ id })}`,
    }),
  );
  onList("/streams", "Streams and subjects", async (place, listing, now) => {
    const request = { kind: "subscription", each: true, points: presentPoints } as const;
    const [streams, subscriptions] = await Promise.all([readings.streams(listing), readings.series(request)]);
    const link = ({ name }: { readonly name: string }): string => `${prefix}/stream${queryOf({ name })}`;
    return html`${overviewSection("streams", streamsTable, streams, now, { place, link })}\n${subscriptionsSection(subscriptions, prefix)}`;
  });
  onList("/schedules", "Schedules", async (place, listing, now) =>
    overviewSection("schedules", schedulesTable, await readings.schedules(listing), now, {
      place,
      link: ({ name, role }) => `${prefix}/schedule${queryOf({ name, role })}`,
    }),
  );
  site.app.get("/outbox", async (c) => {
    const [outbox, leader] = await Promise.all([readings.outbox(), readings.leader()]);
    const now = Date.now();
    const body = html`${overviewSection("outbox", outboxTable, outbox, now)}\n${leaderSection(leader, now)}`;
    return site.answer(c, "Outbox for NATS", body, { refreshes: true });
  });
}
