/**
 * Overviews as tables: columns that the operator's page, `hawser top` and the commands that list an overview show. Tests:
 * `test/page/page.test.ts`, `test/cli/top-view.test.ts`, `test/cli/topics.test.ts`, and `test/cli/mesh.slow.test.ts`, which has each cell.
 */
import type { StreamStatusRow } from "../../../generated/ts/rows/nats.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import type { ListedJob } from "../../jobs-and-peers/queue/enqueue/index.js";
import { certificateWarningMs } from "../doctor/index.js";
import {
  type EnqueuedOverview,
  type FirstJobs,
  type HeldBy,
  type ListenerOverview,
  limitsText,
  needsHelp,
  type OutboxOverview,
  type PeerOverview,
  type PendingOverview,
  type ScheduledMessage,
  type ScheduleOverview,
  type TopicOverview,
} from "../operate/index.js";
import { duration } from "./age.js";
import type { TopicRates } from "./topic-rates.js";

/** View of an overview: the operator's page, `hawser top`, or a command that lists its rows, such as `hawser peers`. */
type View = "page" | "top" | "list";

/** Value of a cell. Null if there is none; views show an empty text as it is. */
export type Cell = string | number | bigint | Date | null;

/** Severity of a value that an operator should see. */
export type Tone = "error" | "warning";

/** Column of a table. `now` is the time of the view, in ms since 1970. */
export interface OverviewColumn<Row> {
  readonly head: string;
  readonly cell: (row: Row, now: number) => Cell;
  readonly tone?: (row: Row, now: number) => Tone | undefined;
  /** Views that show the column. Default: all. */
  readonly in?: readonly View[];
  /** Kind of a number that is no count: the page shows bytes with a unit, and ids without separators. */
  readonly unit?: "bytes" | "id";
  /** Name by which the list can be sorted by the column. Default: it cannot. */
  readonly sort?: string;
  /** Part of a row in the sum of the column. Default: it has no sum. */
  readonly sum?: (row: Row) => { readonly count: number; readonly hasMore?: boolean };
}

/** Table of an overview. */
export interface OverviewTable<Row> {
  /** Title with the order of the rows. */
  readonly title: string;
  /** Text for no rows. */
  readonly none: string;
  readonly columns: readonly OverviewColumn<Row>[];
}

/** Columns that a view shows. */
export function columnsIn<Row>({ columns }: OverviewTable<Row>, view: View): OverviewColumn<Row>[] {
  return columns.filter(({ in: views }) => views?.includes(view) ?? true);
}

export const peersTable: OverviewTable<PeerOverview> = {
  title: "Peers, those with the oldest messages first",
  none: "No peer was ever started with this database.",
  columns: [
    { head: "Peer", cell: ({ name }) => name, sort: "name" },
    {
      head: "State",
      cell: ({ running, clean }) =>
        running ? "running" : clean === null ? "never ran" : clean ? "stopped" : "ended uncleanly",
      tone: ({ running, clean }) => (!running && clean === false ? "warning" : undefined),
    },
    { head: "Started", cell: ({ startedAt, running }) => startedAt ?? (running ? "" : "never"), sort: "started" },
    { head: "Epoch", cell: ({ epoch }) => epoch, in: ["list"] },
    { head: "Version", cell: ({ version }) => version, in: ["page", "list"] },
    {
      head: "Certificate ends",
      cell: ({ certificateEndsAt }) => certificateEndsAt,
      tone: certificateTone,
      in: ["page", "list"],
      sort: "certificate",
    },
    {
      head: "Certificate ends",
      cell: (peer, now) => (certificateTone(peer, now) === undefined ? null : peer.certificateEndsAt),
      tone: certificateTone,
      in: ["top"],
    },
    {
      head: "Waiting",
      cell: ({ waiting, isComplete }) => counted(waiting, !isComplete),
      sort: "waiting",
      sum: ({ waiting, isComplete }) => ({ count: waiting, hasMore: !isComplete }),
    },
    { head: "Oldest", cell: ({ oldestWaitingAt }) => oldestWaitingAt, in: ["page", "top"], sort: "oldest" },
    { head: "Sends on", cell: ({ sendsOn }) => sendsOn, in: ["page", "list"] },
    { head: "Listens on", cell: ({ listensOn }) => listensOn, in: ["page", "list"] },
    { head: "Topics", cell: ({ topics }) => topics.join(", ") },
  ],
};

/** `error` if the TLS certificate of a running peer has ended, `warning` if it ends soon. */
function certificateTone({ running, certificateEndsAt }: PeerOverview, now: number): Tone | undefined {
  if (!running || certificateEndsAt === null) return undefined;
  const leftMs = certificateEndsAt.getTime() - now;
  if (leftMs <= 0) return "error";
  return leftMs <= certificateWarningMs ? "warning" : undefined;
}

export const topicsTable: OverviewTable<TopicOverview> = {
  title: "Topics, those with messages that nobody takes first",
  none: "No topic has a message, a listener or a setting.",
  columns: [
    { head: "Topic", cell: ({ topic }) => topic, sort: "topic" },
    {
      head: "State",
      cell: ({ state }) => state ?? "unknown",
      tone: ({ state, waiting }) =>
        state === "paused" ? "warning" : waiting > 0 && needsHelp(state) ? "error" : undefined,
    },
    {
      head: "Waiting",
      cell: ({ waiting, hasMore }) => counted(waiting, hasMore),
      sort: "waiting",
      sum: ({ waiting, hasMore }) => ({ count: waiting, hasMore }),
    },
    { head: "Oldest", cell: ({ oldest }) => oldest ?? "", sort: "oldest" },
    {
      head: "Listeners",
      cell: (topic) => listenersText(topic, ({ running }) => (running ? [] : ["away"])),
      in: ["page"],
    },
    {
      head: "Listeners",
      cell: (topic) =>
        listenersText(topic, ({ address, running, durable, subscribed, group }) => [
          ...(address === "" ? [] : [address]),
          running ? "running" : "away",
          ...(durable ? ["durable"] : []),
          ...(subscribed ? ["subscribed"] : []),
          ...(group === null ? [] : [`in the group ${group}`]),
        ]),
      in: ["list"],
    },
    { head: "Paused since", cell: ({ pausedAt }) => pausedAt ?? "" },
    { head: "By", cell: ({ pausedBy }) => pausedBy ?? "" },
    { head: "Limits", cell: ({ limits }) => (limits === null ? "" : limitsText(limits)) },
    { head: "Results kept", cell: ({ keepMs }) => (keepMs === null ? "" : duration(keepMs)) },
  ],
};

const perSecond = (rate: number | null): Cell => (rate === null ? null : Math.round(rate * 100) / 100);

export const topicRatesTable: OverviewTable<TopicRates> = {
  ...topicsTable,
  columns: [
    // The topic, its state, and what waits.
    ...topicsTable.columns.slice(0, 4),
    { head: "In/s", cell: ({ enqueued }) => perSecond(enqueued) },
    { head: "Out/s", cell: ({ handled }) => perSecond(handled) },
    {
      head: "Failed/s",
      cell: ({ failed }) => perSecond(failed),
      tone: ({ failed }) => (failed ? "warning" : undefined),
    },
  ],
};

/** Number of a topic's listeners that a cell names. */
const namedListeners = 3;

/** Who served a topic last, and until when; empty if nobody is known. */
function servedText(servedBy: string | null, servedUntil: Date | null): string[] {
  if (servedBy === null || servedUntil === null) return [];
  return [`last served by ${servedBy} until ${servedUntil.toISOString().slice(0, 16)}Z`];
}

/** Names of the first listeners of a topic, each with what is said of it, and how many more there are. */
function listenersText(
  { listeners, listenerCount, servedBy, servedUntil }: TopicOverview,
  saidOf: (listener: ListenerOverview) => readonly string[],
): string {
  const named = listeners.slice(0, namedListeners).map((each) => {
    const said = saidOf(each);
    return said.length === 0 ? each.name : `${each.name} (${said.join(", ")})`;
  });
  const more = listenerCount - named.length;
  const served = listeners.some(({ running }) => running) ? [] : servedText(servedBy, servedUntil);
  return [...named, ...(more > 0 ? [`${more} more`] : []), ...served].join(", ");
}

export const pendingTable: OverviewTable<PendingOverview> = {
  title: "Messages that wait for listeners, the oldest first",
  none: "Nothing waits.",
  columns: [
    { head: "Topic", cell: ({ topic }) => topic, sort: "topic" },
    {
      head: "State",
      cell: ({ state }) => state ?? "unknown",
      tone: ({ state }) => (needsHelp(state) ? "error" : undefined),
    },
    {
      head: "Messages",
      cell: ({ count, hasMore }) => counted(count, hasMore),
      sort: "messages",
      sum: ({ count, hasMore }) => ({ count, hasMore }),
    },
    { head: "Oldest", cell: ({ oldest }) => oldest, sort: "oldest" },
    {
      head: "Bytes",
      cell: ({ bytes }) => bytes,
      unit: "bytes",
      sort: "bytes",
      sum: ({ bytes }) => ({ count: bytes ?? 0 }),
    },
    {
      head: "Listener",
      cell: ({ listener, group, state, servedBy, servedUntil }) => {
        if (listener !== null) return listener;
        if (group !== null) return `a member of ${group}`;
        if (state === "held" || state === "blocked") return "held for others";
        const [served] = state === "stopped" ? servedText(servedBy, servedUntil) : [];
        if (served !== undefined) return served;
        return state === "unserved" ? "none is known" : "any listener";
      },
    },
    { head: "Sender", cell: ({ sender }) => sender ?? "enqueued" },
    { head: "From", cell: ({ from }) => from, in: ["list"] },
  ],
};

const waitingColumns: readonly OverviewColumn<EnqueuedOverview>[] = [
  { head: "Waiting", cell: ({ waiting, hasMore }) => counted(waiting, hasMore) },
  { head: "Oldest", cell: ({ oldestWaitingAt }) => oldestWaitingAt },
  { head: "For", cell: ({ oldestWaitingFor }) => oldestWaitingFor },
];
const laterColumns: readonly OverviewColumn<EnqueuedOverview>[] = [
  { head: "Later", cell: ({ later }) => counted(later, later >= queueConstants.countedMessages) },
  { head: "Next due", cell: ({ nextDueAt }) => nextDueAt },
  { head: "Dead", cell: ({ deadLetters }) => deadLetters, in: ["list"] },
];

export const outboxTable: OverviewTable<OutboxOverview> = {
  title: "Enqueued messages",
  none: "There is no outbox.",
  columns: [
    { head: "Kind", cell: ({ kind }) => kind, in: ["page", "top"] },
    ...waitingColumns,
    { head: "Position saved", cell: ({ positionSavedAt }) => positionSavedAt },
    { head: "Relay", cell: relayState, in: ["top", "list"] },
    {
      head: "Relay",
      cell: (row) => (row.relay === null ? relayState(row) : `${row.relay}, ${relayState(row)}`),
      in: ["page"],
    },
    {
      head: "Bytes",
      cell: ({ segments }) => (segments.length === 0 ? null : segments.reduce((sum, { bytes }) => sum + bytes, 0)),
      in: ["list"],
      unit: "bytes",
    },
    ...laterColumns,
  ],
};

export const jobsTable: OverviewTable<EnqueuedOverview> = {
  title: "Jobs",
  none: "There is no queue.",
  columns: [...waitingColumns, ...laterColumns],
};

/** Form of a count with `+`, since there are more. */
export const countedForm = /^(\d+)\+$/;

/** Count with `+` if there are more. */
function counted(count: number, hasMore: boolean): Cell {
  return hasMore ? `${count}+` : count;
}

/** State of the relay; empty for peers, who have none. */
function relayState({ kind, relay, isAwake }: OutboxOverview): string {
  if (kind === "peer") return "";
  return relay === null ? "none" : isAwake ? "awake" : "asleep";
}

export const scheduledTable: OverviewTable<ScheduledMessage> = {
  title: "Messages that are due later, the next first",
  none: "No message is due later.",
  columns: [
    { head: "Id", cell: ({ id }) => BigInt(id), unit: "id", sort: "id" },
    {
      head: "Due",
      cell: ({ deliverAt, enqueuedAt, heldFor }) => (heldFor > 0 && deliverAt <= enqueuedAt ? null : deliverAt),
      sort: "due",
    },
    {
      head: "Held for",
      cell: ({ heldFor, waitsFor }) => (heldFor === 0 ? null : heldForText(heldFor, waitsFor ?? [])),
      tone: ({ waitsFor }) => (waitsFor?.some(({ state }) => state !== "waiting") ? "error" : undefined),
    },
    { head: "For", cell: ({ destination }) => destination, sort: "for" },
    { head: "Key", cell: ({ key }) => key },
    { head: "Priority", cell: ({ priority }) => priority || null, sort: "priority" },
    { head: "Bytes", cell: ({ payloadBytes }) => payloadBytes, unit: "bytes", sort: "bytes" },
    { head: "Enqueued", cell: ({ enqueuedAt }) => enqueuedAt, in: ["list"] },
  ],
};

/** Job of a list, with ids as digits. */
export type ListedJobRow = Omit<ListedJob, "id" | "place" | "waitsFor"> & {
  readonly id: string;
  readonly waitsFor: readonly HeldBy[] | undefined;
};

export const listedJobsTable: OverviewTable<ListedJobRow> = {
  title: "Jobs, those that came last first",
  none: "No job matches.",
  columns: [
    { head: "Id", cell: ({ id }) => BigInt(id) },
    { head: "Topic", cell: ({ topic }) => topic },
    { head: "State", cell: ({ state }) => state, tone: ({ state }) => (state === "dead" ? "error" : undefined) },
    { head: "Key", cell: ({ key }) => key ?? null },
    { head: "Priority", cell: ({ priority }) => priority || null },
    { head: "Enqueued", cell: ({ enqueuedAt }) => enqueuedAt },
    { head: "Due", cell: ({ dueAt }) => dueAt ?? null },
    { head: "Ended", cell: ({ endedAt }) => endedAt ?? null },
    { head: "Took", cell: ({ durationMs }) => (durationMs === undefined ? null : `${durationMs} ms`) },
    { head: "Attempts", cell: ({ attempts }) => attempts },
    { head: "Listener", cell: ({ listener }) => listener ?? null },
    { head: "Role", cell: ({ enqueuedBy }) => enqueuedBy, in: ["page"] },
    { head: "Error", cell: ({ errorCode }) => errorCode ?? null },
    {
      head: "Held for",
      cell: ({ waitsFor }) => (waitsFor === undefined ? null : heldForText(waitsFor.length, waitsFor)),
      tone: ({ waitsFor }) => (waitsFor?.some(({ state }) => state !== "waiting") ? "error" : undefined),
    },
  ],
};

export const firstJobsTable: OverviewTable<FirstJobs["oldest"][number]> = {
  title: "Messages",
  none: "There are none.",
  columns: [
    { head: "Id", cell: ({ id }) => id, unit: "id" },
    { head: "State", cell: ({ state }) => state },
    { head: "Enqueued", cell: ({ enqueuedAt }) => enqueuedAt },
    { head: "Key", cell: ({ key }) => key },
    { head: "Priority", cell: ({ priority }) => priority || null },
    { head: "Failed attempts", cell: ({ attempts }) => attempts || null },
    { head: "Tried again", cell: ({ dueAt }) => dueAt },
    { head: "Listener", cell: ({ listener }) => listener },
    { head: "Role", cell: ({ role }) => role },
    { head: "Bytes", cell: ({ payloadBytes }) => payloadBytes, unit: "bytes" },
  ],
};

/** Number of messages before one that is held, with the first of them that release nothing, or the first ones. */
export function heldForText(heldFor: number, waitsFor: readonly HeldBy[]): string {
  const blocking = waitsFor.filter(({ state }) => state !== "waiting");
  const named = (blocking.length > 0 ? blocking : waitsFor).slice(0, namedMessages);
  const ids = named.map(({ id, state }) => (state === "waiting" ? id : `${id} (${state})`)).join(", ");
  return named.length === heldFor ? ids : `${heldFor}: ${ids}, …`;
}

/** Number of messages before one that is held that a cell names. */
const namedMessages = 3;

export const streamsTable: OverviewTable<StreamStatusRow> = {
  title: "Subscriptions to streams",
  none: "No function is subscribed to a stream.",
  columns: [
    { head: "Name", cell: ({ name }) => name, sort: "name" },
    {
      head: "State",
      cell: ({ paused, problem }) => problem ?? (paused ? "paused" : "runs"),
      tone: ({ paused, problem }) => (problem !== null ? "error" : paused ? "warning" : undefined),
    },
    { head: "Stream", cell: ({ stream }) => stream },
    { head: "Function", cell: (row) => row.function, in: ["page"] },
    { head: "Behind", cell: ({ lag }) => lag ?? "unknown", sort: "behind" },
    { head: "Done to", cell: ({ done_to }) => done_to ?? "not begun" },
    {
      head: "Missing",
      cell: ({ missing, missing_reason: why }) => (why === null ? missing : `${missing} (${why})`),
      sort: "missing",
    },
    { head: "Written", cell: ({ written_at }) => written_at, sort: "written" },
  ],
};

export const schedulesTable: OverviewTable<ScheduleOverview> = {
  title: "Schedules, those that do not run and the next ones first",
  none: "There are no schedules.",
  columns: [
    { head: "Name", cell: ({ name }) => name, sort: "name" },
    { head: "Role", cell: ({ role }) => role, in: ["page", "list"] },
    { head: "Cron", cell: ({ cron, timezone }) => `${cron} ${timezone}` },
    { head: "Missed", cell: ({ missed }) => missed, in: ["list"] },
    { head: "For", cell: ({ kind, destination }) => `${kind} ${destination}` },
    { head: "Priority", cell: ({ priority }) => priority || null, in: ["page", "list"] },
    { head: "Last", cell: ({ lastAt }) => lastAt ?? "never", sort: "last" },
    { head: "Next", cell: ({ nextAt, problem }) => nextAt ?? (problem === null ? "soon" : "never"), sort: "next" },
    {
      head: "Problem",
      cell: ({ problem }) => problem ?? "",
      tone: ({ problem }) => (problem === null ? undefined : "error"),
    },
  ],
};
