/**
 * Overviews as tables: columns that the operator's page, `hawser top` and the commands that list an overview show. Tests:
 * `test/page/page.test.ts`, `test/cli/top-view.test.ts`, `test/cli/topics.test.ts`, and `test/cli/mesh.slow.test.ts`, which has each cell.
 */
import type { StreamStatusRow } from "../../generated/ts/rows/nats.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import {
  limitsText,
  type OutboxOverview,
  type PeerOverview,
  type PendingOverview,
  type ScheduledMessage,
  type ScheduleOverview,
  type TopicOverview,
} from "../operate/index.js";
import { duration } from "./age.js";

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
    { head: "Peer", cell: ({ name }) => name },
    {
      head: "State",
      cell: ({ running, clean }) =>
        running ? "running" : clean === null ? "never ran" : clean ? "stopped" : "ended uncleanly",
      tone: ({ running, clean }) => (!running && clean === false ? "warning" : undefined),
    },
    { head: "Started", cell: ({ startedAt }) => startedAt ?? "never" },
    { head: "Epoch", cell: ({ epoch }) => epoch, in: ["list"] },
    { head: "Version", cell: ({ version }) => version, in: ["page", "list"] },
    {
      head: "Certificate ends",
      cell: ({ certificateEndsAt }) => certificateEndsAt,
      tone: certificateTone,
      in: ["page", "list"],
    },
    {
      head: "Certificate ends",
      cell: (peer, now) => (certificateTone(peer, now) === undefined ? null : peer.certificateEndsAt),
      tone: certificateTone,
      in: ["top"],
    },
    { head: "Waiting", cell: ({ waiting }) => waiting },
    { head: "Oldest", cell: ({ oldestWaitingAt }) => oldestWaitingAt, in: ["page", "top"] },
    { head: "Parked", cell: ({ parked }) => parked },
    { head: "Sends on", cell: ({ sendsOn }) => sendsOn, in: ["page", "list"] },
    { head: "Listens on", cell: ({ listensOn }) => listensOn, in: ["page", "list"] },
    { head: "Topics", cell: ({ topics }) => topics.join(", ") },
  ],
};

/** Time before the end of a running peer's TLS certificate from which it is shown as a warning: 14 days. */
const certificateWarningMs = 1_209_600_000;

/** `error` if the TLS certificate of a running peer has ended, `warning` if it ends soon. */
function certificateTone({ running, certificateEndsAt }: PeerOverview, now: number): Tone | undefined {
  if (!running || certificateEndsAt === null) return undefined;
  const leftMs = certificateEndsAt.getTime() - now;
  if (leftMs <= 0) return "error";
  return leftMs <= certificateWarningMs ? "warning" : undefined;
}

export const topicsTable: OverviewTable<TopicOverview> = {
  title: "Topics and their listeners",
  none: "The directory has no listeners.",
  columns: [
    { head: "Topic", cell: ({ topic }) => topic },
    { head: "Listener", cell: ({ name }) => name },
    { head: "Address", cell: ({ address }) => address },
    { head: "State", cell: ({ name, running }) => (running ? "running" : name === "" ? "none" : "away") },
    {
      head: "Paused since",
      cell: ({ pausedAt }) => pausedAt ?? "",
      tone: ({ pausedAt }) => (pausedAt === null ? undefined : "warning"),
    },
    { head: "By", cell: ({ pausedBy }) => pausedBy ?? "" },
    { head: "Limits", cell: ({ limits }) => (limits === null ? "" : limitsText(limits)) },
    { head: "Results kept", cell: ({ keepMs }) => (keepMs === null ? "" : duration(keepMs)) },
    { head: "Group", cell: ({ group }) => group ?? "", in: ["page"] },
    {
      head: "",
      cell: ({ durable, subscribed, group }) => {
        const properties = { durable, subscribed, [`in the group ${group}`]: group !== null };
        return Object.entries(properties)
          .flatMap(([name, has]) => (has ? [name] : []))
          .join(", ");
      },
      in: ["list"],
    },
  ],
};

export const pendingTable: OverviewTable<PendingOverview> = {
  title: "Messages that wait for listeners, the oldest first",
  none: "Nothing waits.",
  columns: [
    { head: "Topic", cell: ({ topic }) => topic },
    { head: "Messages", cell: ({ count, hasMore }) => (hasMore ? `${count}+` : count) },
    { head: "Oldest", cell: ({ oldest }) => oldest },
    { head: "Bytes", cell: ({ bytes }) => bytes },
    {
      head: "Listener",
      cell: ({ listener, group, state }) => {
        if (listener !== null) return listener;
        if (group !== null) return `a member of ${group}`;
        return state === "unserved" ? "none is known" : "any listener";
      },
    },
    {
      head: "State",
      cell: ({ state }) => state ?? "unknown",
      tone: ({ state }) => (state === "stopped" || state === "unserved" ? "error" : undefined),
    },
    { head: "Sender", cell: ({ sender }) => sender ?? "enqueued" },
    { head: "From", cell: ({ from }) => from, in: ["list"] },
  ],
};

export const outboxTable: OverviewTable<OutboxOverview> = {
  title: "Enqueued messages",
  none: "There is no outbox.",
  columns: [
    { head: "Kind", cell: ({ kind }) => kind },
    { head: "Waiting", cell: ({ waiting }) => counted(waiting) },
    { head: "Oldest", cell: ({ oldestWaitingAt }) => oldestWaitingAt },
    { head: "For", cell: ({ oldestWaitingFor }) => oldestWaitingFor },
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
    },
    { head: "Later", cell: ({ later }) => counted(later) },
    { head: "Next due", cell: ({ nextDueAt }) => nextDueAt },
    { head: "Dead", cell: ({ deadLetters }) => deadLetters, in: ["list"] },
  ],
};

/** Count of `hawser.outbox_status`, with `+` if there may be more. */
function counted(count: number): Cell {
  return count < outboxConstants.countedMessages ? count : `${outboxConstants.countedMessages}+`;
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
    { head: "Id", cell: ({ id }) => BigInt(id) },
    { head: "Kind", cell: ({ kind }) => kind, in: ["list"] },
    { head: "Due", cell: ({ deliverAt }) => deliverAt },
    { head: "Held for", cell: ({ heldFor }) => heldFor || null },
    { head: "For", cell: ({ destination }) => destination },
    { head: "Key", cell: ({ key }) => key },
    { head: "Priority", cell: ({ priority }) => priority || null },
    { head: "Bytes", cell: ({ payloadBytes }) => payloadBytes },
    { head: "Enqueued", cell: ({ enqueuedAt }) => enqueuedAt, in: ["list"] },
  ],
};

export const streamsTable: OverviewTable<StreamStatusRow> = {
  title: "Subscriptions to streams",
  none: "No function is subscribed to a stream.",
  columns: [
    { head: "Name", cell: ({ name }) => name },
    { head: "Stream", cell: ({ stream }) => stream },
    { head: "Function", cell: (row) => row.function, in: ["page"] },
    { head: "Behind", cell: ({ lag }) => lag ?? "unknown" },
    {
      head: "State",
      cell: ({ paused, problem }) => problem ?? (paused ? "paused" : "runs"),
      tone: ({ paused, problem }) => (problem !== null ? "error" : paused ? "warning" : undefined),
    },
    { head: "Done to", cell: ({ done_to }) => done_to ?? "not begun" },
    { head: "Missing", cell: ({ missing, missing_reason: why }) => (why === null ? missing : `${missing} (${why})`) },
    { head: "Written", cell: ({ written_at }) => written_at },
  ],
};

export const schedulesTable: OverviewTable<ScheduleOverview> = {
  title: "Schedules, those that do not run and the next ones first",
  none: "There are no schedules.",
  columns: [
    { head: "Name", cell: ({ name }) => name },
    { head: "Role", cell: ({ role }) => role, in: ["page", "list"] },
    { head: "Cron", cell: ({ cron, timezone }) => `${cron} ${timezone}` },
    { head: "Missed", cell: ({ missed }) => missed, in: ["list"] },
    { head: "For", cell: ({ kind, destination }) => `${kind} ${destination}` },
    { head: "Priority", cell: ({ priority }) => priority || null, in: ["page", "list"] },
    { head: "Last", cell: ({ lastAt }) => lastAt ?? "never" },
    { head: "Next", cell: ({ nextAt, problem }) => nextAt ?? (problem === null ? "soon" : "never") },
    {
      head: "Problem",
      cell: ({ problem }) => problem ?? "",
      tone: ({ problem }) => (problem === null ? undefined : "error"),
    },
  ],
};
