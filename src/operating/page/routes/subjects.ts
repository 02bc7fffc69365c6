/** Pages of one topic, one peer or worker, one schedule, and one subscription to a stream or a subject. */
import type { Context } from "hono";
import { html } from "hono/html";
import { invalidArgument } from "../../../foundation/errors/index.js";
import { peersTable, type Reading, reading, schedulesTable, streamsTable, topicsTable } from "../../console/index.js";
import {
  type DeadLetterCause,
  firstJobs,
  type Listing,
  type PeerOverview,
  type PeerPresence,
  type PendingOverview,
  runSchedule,
  type SeriesReading,
  type TopicOverview,
  why,
  workerStatus,
} from "../../operate/index.js";
import { causeLink } from "../html/dead.js";
import { queryOf } from "../html/filter.js";
import { chartsSection, movingTiles, subscriptionTiles, tiles, waitingTiles } from "../html/overview.js";
import {
  confirmRun,
  details,
  firstJobsSections,
  firstSection,
  pendingSection,
  scheduleBar,
  topicBar,
  topicCauses,
  workersSection,
  workersTopics,
} from "../html/subject.js";
import { section, unread } from "../html/table.js";
import { type Html, short } from "../html/text.js";
import { type Site, valueIn } from "./site.js";

export function subjectRoutes(site: Site): void {
  const { prefix, readings, database, changing, metricsUrl, logger } = site.options;
  const { app } = site;

  app.get("/topic", async (c) => {
    const topic = nameOf(c);
    const context = site.formContext();
    const { now } = context;
    const span = c.req.query("span") === "day" ? "day" : "hour";
    const [rows, abilities, pending, workers, first, jobs, series, causes] = await Promise.all([
      readings.topics({ topic }),
      readings.abilities(),
      readings.pending({ topic }),
      reading(() => workerStatus(database, { topic })),
      reading(() => why(database, { topic })),
      reading(() => firstJobs(database, topic)),
      readings.series({ kind: "topic", names: [topic], span }),
      readings.causes({ topic }),
    ]);
    const row = valueIn(rows)?.[0] ?? { topic, pausedAt: null };
    const ofTopic: Reading<DeadLetterCause[]> =
      causes.state === "read"
        ? { state: "read", value: causes.value.causes.filter(({ origin }) => origin !== "subscription") }
        : causes;
    const charts =
      series.state === "read"
        ? chartsSection(series.value, span, (query) => `${prefix}/topic${queryOf({ name: topic, ...query })}`)
        : unread(series);
    const body = html`${topicBar(row, valueIn(abilities), metricsUrl, context)}
${topicNumbers(valueIn(rows) ?? [], series, prefix, now)}
<div class="columns">${section("state", "State", rows, ([found]) =>
      found === undefined
        ? html`<p>Nothing is known of this topic: it has no message, no worker and no setting.</p>`
        : details(topicsTable, found, now),
    )}
${firstSection(first, prefix, now)}</div>
${workersSection(workers, valueIn(series)?.series[0]?.durations, prefix, now)}
${pendingSection(pending, true, now)}
${firstJobsSections(jobs, valueIn(abilities)?.canCopy === true, prefix, now)}
${topicCauses(ofTopic, (cause) => causeLink(cause, prefix), now)}
${charts}`;
    return site.answer(c, `Topic ${topic}`, body, { refreshes: true, abilities, place: "/topics" });
  });

  app.get("/peer", async (c) => {
    const name = nameOf(c);
    const now = Date.now();
    const [peer, pending, workers] = await Promise.all([
      one(readings.presence, name),
      readings.pending({ listener: name }),
      reading(() => workerStatus(database, { name })),
    ]);
    const body = html`${section("state", "State", peer, (row) => (row === undefined ? html`<p>No peer or worker of this name is known.</p>` : details(peersTable, withWaiting(row, valueIn(pending) ?? []), now)))}
${workersTopics(workers, prefix, now)}
${pendingSection(pending, false, now)}`;
    return site.answer(c, `Peer ${name}`, body, { refreshes: true, place: "/peers" });
  });

  app.get("/stream", async (c) => {
    const name = nameOf(c);
    const now = Date.now();
    const [read, numbers, charts] = await Promise.all([one(readings.streams, name), ...movement(c, "stream", name)]);
    const state = section("state", "State", read, (row) =>
      row === undefined ? html`<p>There is no subscription of this name.</p>` : details(streamsTable, row, now),
    );
    const body = html`${numbers}${state}\n${charts}`;
    return site.answer(c, `Subscription ${name}`, body, { refreshes: true, place: "/streams" });
  });

  app.get("/subscription", async (c) => {
    const name = nameOf(c);
    const now = Date.now();
    const [causes, numbers, charts] = await Promise.all([readings.causes(), ...movement(c, "subscription", name)]);
    // The topic of a letter is the subject of its message, where the subscription may have wildcards.
    const own: Reading<DeadLetterCause[]> =
      causes.state === "read"
        ? {
            state: "read",
            value: causes.value.causes.filter(
              (cause) => cause.origin === "subscription" && name.endsWith(` ${cause.function}`),
            ),
          }
        : causes;
    const body = html`${numbers}${topicCauses(own, (cause) => causeLink(cause, prefix), now)}\n${charts}`;
    return site.answer(c, `Subscription ${name}`, body, { refreshes: true, place: "/streams" });
  });

  /** Tiles and charts of a series of subscriptions. */
  function movement(c: Context, kind: "stream" | "subscription", name: string): [Promise<Html>, Promise<Html>] {
    const span = c.req.query("span") === "day" ? "day" : "hour";
    const path = (query: Readonly<Record<string, string>>): string => `${prefix}/${kind}${queryOf({ name, ...query })}`;
    const read = readings.series({ kind, names: [name], span });
    const tilesOf = ({ series: [series] }: SeriesReading): Html =>
      series === undefined ? html`` : subscriptionTiles(series);
    return [
      read.then((of) => (of.state === "read" ? tilesOf(of.value) : html``)),
      read.then((of) => (of.state === "read" ? chartsSection(of.value, span, path) : unread(of))),
    ];
  }

  app.get("/schedule", async (c) => {
    const name = nameOf(c);
    const role = c.req.query("role") ?? "";
    const now = Date.now();
    const [read, abilities] = await Promise.all([readings.schedules({ filter: name }), readings.abilities()]);
    const body = section("state", "State", read, (rows) => {
      const row = rows.find((each) => each.name === name && each.role === role);
      if (row === undefined) return html`<p>The role ${short(role)} has no schedule of this name.</p>`;
      const bar = valueIn(abilities)?.canSchedule ? scheduleBar(row, site.formContext()) : "";
      return html`${bar}${details(schedulesTable, row, now)}`;
    });
    return site.answer(c, `Schedule ${name}`, body, { refreshes: true, abilities, place: "/schedules" });
  });

  site.onAction("/schedule/run", "canSchedule", "run schedules", async (c, { name = "", role = "", confirm }) => {
    const more = { place: "/schedules" };
    if (confirm !== "yes") return site.answer(c, "Run now?", confirmRun({ name, role }, site.formContext()), more);
    const id = await runSchedule(changing, name, role);
    if (id === undefined) throw invalidArgument(`no role of this login has a schedule "${name.slice(0, 128)}"`);
    logger.info({ action: "run", schedule: name, role, id }, "an operator runs a schedule");
    return c.redirect(`${prefix}/message${queryOf({ id })}`, 303);
  });
}

/** Tiles of a topic. */
function topicNumbers(
  topics: readonly TopicOverview[],
  read: Reading<SeriesReading>,
  prefix: string,
  now: number,
): Html {
  const series = valueIn(read)?.series[0];
  const moving = series === undefined ? [] : movingTiles(series, "#charts");
  return tiles([...moving, ...waitingTiles(topics, series, prefix, now)]);
}

/** Peer with what waits for it, which is read once for the whole page. */
function withWaiting(peer: PeerPresence, pending: readonly PendingOverview[]): PeerOverview {
  const times = pending.map(({ oldest }) => oldest.getTime());
  return {
    ...peer,
    waiting: pending.reduce((sum, { count }) => sum + count, 0),
    oldestWaitingAt: times.length === 0 ? null : new Date(Math.min(...times)),
    isComplete: pending.every(({ hasMore }) => !hasMore),
  };
}

/** Name that the query string gives. @throws HawserError `invalid_argument` */
function nameOf(c: Context): string {
  const name = c.req.query("name") ?? "";
  if (name === "")
    throw invalidArgument('name "": give the name of a topic, peer, schedule or subscription, by ?name=…');
  return name;
}

/** Row of a list with a name; undefined if there is none. */
async function one<Row extends { readonly name: string }>(
  read: (listing: Listing) => Promise<Reading<Row[]>>,
  name: string,
): Promise<Reading<Row | undefined>> {
  const rows = await read({ filter: name });
  return rows.state === "read" ? { state: "read", value: rows.value.find((row) => row.name === name) } : rows;
}
