/** Listeners, running peers and waiting messages, as an operator lists them. */
import { type PeerStatusResult, tables } from "../../../generated/ts/rows/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { type Database, isWaitingSql } from "../../jobs-and-peers/store/index.js";
import { type Listing, listed } from "./listing.js";
import type { TopicLimits } from "./topic-settings.js";

/** Topic that has a message, a listener or a setting, or is known by one that is due later. */
export interface TopicOverview {
  readonly topic: string;
  /**
   * `paused`; or that of its waiting messages which needs most help, see {@link PendingOverview.state}; without such messages
   * `running` if a listener runs, `stopped` if there are only others, and `unserved` if there are none.
   */
  readonly state: BacklogState | null;
  /** Number of waiting messages, without those that are due later. */
  readonly waiting: number;
  /** True if there are more messages than were counted. */
  readonly hasMore: boolean;
  /** Time at which the oldest of them was stored, or enqueued; null if there is none. */
  readonly oldest: Date | null;
  /** Number of its listeners, with workers of the queue. */
  readonly listenerCount: number;
  /** Worker that took its messages last, if some wait that nobody can take; null if none is known. */
  readonly servedBy: string | null;
  /** Time until which it did. */
  readonly servedUntil: Date | null;
  /** Its listeners, at most `namedListeners`: those that run first, then by name. */
  readonly listeners: readonly ListenerOverview[];
  /** Time since which the topic is paused in all processes; null if it is not. */
  readonly pausedAt: Date | null;
  /** Database role that has paused the topic; null if it is not paused. */
  readonly pausedBy: string | null;
  /** Limits of the topic in all processes; null if it has none. */
  readonly limits: TopicLimits | null;
  /** Time for which the results of the topic are kept, in ms; null if the topic keeps none. Messages can have times of their own. */
  readonly keepMs: number | null;
}

/** Listener of a topic. */
export interface ListenerOverview {
  readonly name: string;
  /** Published address, host:port; empty for a worker of the queue that is in no directory. */
  readonly address: string;
  /** True if senders that never met the listener also store messages for it. */
  readonly durable: boolean;
  /** True if the listener subscribed to the topic; false if it is its source topic. */
  readonly subscribed: boolean;
  /** Group of the listener; null if none. See the setting `group`. */
  readonly group: string | null;
  /** True if a process owns the name, or is a worker of the queue with this name. */
  readonly running: boolean;
}

/** Row of `hawser.peer_status`, with numbers in place of bigints. */
export type PeerOverview = {
  readonly [Name in keyof PeerStatusResult]: bigint extends PeerStatusResult[Name]
    ? number | Exclude<PeerStatusResult[Name], bigint>
    : PeerStatusResult[Name];
};

/** Peer or worker, without what waits for it. */
export type PeerPresence = Omit<PeerOverview, "waiting" | "oldestWaitingAt" | "isComplete">;

/** Waiting messages of a sender for a listener, or of a group, to one topic. */
export interface PendingOverview {
  /** Name of the sender; null if the messages were enqueued. */
  readonly sender: string | null;
  /** Source topic of the sender; null if the messages were enqueued. */
  readonly from: string | null;
  /**
   * Listener that has the messages, runs them, or that they are for; null for enqueued messages that any listener of the
   * topic, or any member of `group`, can take.
   */
  readonly listener: string | null;
  /** Group of the listener, or the one whose members serve the topic; null if there is none, or several. */
  readonly group: string | null;
  readonly topic: string;
  readonly count: number;
  /** True if there are more messages than were counted. */
  readonly hasMore: boolean;
  /**
   * Payload bytes as stored, possibly compressed. Partly handled batches count fully. Null if the messages were enqueued: their
   * payloads are not read.
   */
  readonly bytes: number | null;
  /** Time at which the oldest message was stored, or enqueued. */
  readonly oldest: Date;
  /**
   * `running` if a process runs that can take the messages; `stopped` if the listener, or each known one of the topic, is
   * away; `unserved` if the listener never ran, or no listener of the topic is or was known, as with a mistyped name; `retrying`
   * if the messages were enqueued, have failed, and wait until they are tried again; `paused` if the topic is; `held` if
   * others have to be handled before them; `blocked` if one of these is a dead letter, or gone, and nothing goes on by
   * itself. Null on a standby, which does not know.
   */
  readonly state: BacklogState | null;
  /** Worker that took messages of the topic last, if nobody can take enqueued ones now; null if none is known. */
  readonly servedBy: string | null;
  /** Time until which it did. */
  readonly servedUntil: Date | null;
}

/** Whether somebody can take messages that wait: see {@link PendingOverview.state}. */
export type BacklogState = "running" | "stopped" | "unserved" | "retrying" | "limited" | "paused" | "held" | "blocked";

/** Filter of {@link listTopics}. */
export interface TopicFilter extends Listing {
  /** Only this topic. */
  readonly topic?: string | undefined;
}

/** Filter of {@link listPending}. */
export interface PendingFilter extends Listing {
  /** Only messages that wait for this listener. */
  readonly listener?: string | undefined;
  /** Only messages to this topic. */
  readonly topic?: string | undefined;
  /** Number of rows that are counted. Default: `countedMessages`. */
  readonly maxRows?: number | undefined;
}

/**
 * SQL query: the rows of {@link PendingOverview}.
 *
 * @param maxRows parameter with the number of rows that are counted
 * @param topic parameter with the only topic; NULL for all
 */
export const backlogSql = (maxRows: string, topic = "NULL"): string => `
  SELECT b.sender, b.source_topic AS "from", b.listener, b.group_name AS "group", b.topic, b.messages::float8 AS count,
         NOT b.is_complete AS "hasMore", b.bytes::float8 AS bytes, b.oldest_at AS oldest, b.state,
         b.served_by AS "servedBy", b.served_until AS "servedUntil"
    FROM hawser.backlog(${maxRows}::integer, ${topic}::text) AS b`;

const presenceColumns = `p.name, p.running, p.epoch::float8 AS epoch, p.started_at AS "startedAt", p.clean, p.version,
           p.certificate_ends_at AS "certificateEndsAt", p.topics, p.sends_on::float8 AS "sendsOn",
           p.listens_on::float8 AS "listensOn"`;

const sql = {
  topics: `
    SELECT topic,
           CASE WHEN t.paused_at IS NOT NULL THEN 'paused'
                WHEN b.messages IS NOT NULL THEN b.state
                WHEN t.running THEN 'running'
                WHEN t.listeners > 0 THEN 'stopped'
                ELSE 'unserved'
           END AS state,
           coalesce(b.messages, 0)::float8 AS waiting, coalesce(b.has_more, false) AS "hasMore", b.oldest_at AS oldest,
           coalesce(t.listeners, 0)::float8 AS "listenerCount", coalesce(t.named, '[]') AS listeners,
           b.served_by AS "servedBy", b.served_until AS "servedUntil",
           t.paused_at AS "pausedAt", t.paused_by AS "pausedBy", t.limits, t.keep_ms AS "keepMs"
      FROM hawser.topic_status() AS t
      FULL JOIN (
        SELECT w.topic, sum(w.messages) AS messages, bool_or(NOT w.is_complete) AS has_more, min(w.oldest_at) AS oldest_at,
               (array_agg(w.served_by ORDER BY w.served_until DESC NULLS LAST))[1] AS served_by, max(w.served_until) AS served_until,
               (array_agg(w.state ORDER BY array_position($1::text[], w.state)))[1] AS state
          FROM hawser.backlog($2::integer, $3::text) AS w
         GROUP BY w.topic
      ) AS b USING (topic)
     WHERE $3::text IS NULL OR topic COLLATE "C" = $3`,
  peers: `
    SELECT ${presenceColumns}, p.waiting::float8 AS waiting, p.oldest_waiting_at AS "oldestWaitingAt", p.is_complete AS "isComplete"
      FROM hawser.peer_status() AS p`,
  presence: `SELECT ${presenceColumns} FROM hawser.peer_status(true) AS p`,
  pending: `
    SELECT * FROM (${backlogSql("$1", "$3")}) AS b
     WHERE ($2::text IS NULL OR b.listener COLLATE "C" = $2) AND ($3::text IS NULL OR b.topic COLLATE "C" = $3)`,
  otherTopics: `
    SELECT topic COLLATE "C" AS topic
      FROM (
        SELECT topic FROM ${tables.listener} WHERE listener_name = $1
        UNION SELECT listener_topic FROM ${tables.route} WHERE listener_name = $1
        UNION SELECT t.topic
                FROM (
                  SELECT DISTINCT s.topic_id
                    FROM ${tables.channel} AS m JOIN ${tables.storedMessage} AS s USING (channel_id)
                    LEFT JOIN ${tables.cursor} AS c USING (channel_id)
                   WHERE m.listener_name = $1 AND ${isWaitingSql}
                ) AS waiting
                JOIN ${tables.topic} AS t ON t.id = waiting.topic_id
      ) AS found
     WHERE NOT topic COLLATE "C" = ANY ($2::text[])
     ORDER BY 1 LIMIT 10`,
} as const;

/**
 * Lists up to 10 topics, other than the given ones, whose messages reach a listener: it is in the directory for them, senders
 * know it as their listener, or their messages wait for it.
 */
export async function otherTopicsOf(database: Database, name: string, topics: readonly string[]): Promise<string[]> {
  const statement = { text: sql.otherTopics, values: [name, topics] };
  const rows = await database.query<{ topic: string }>(`read which topics "${name}" listens to`, statement);
  return rows.map(({ topic }) => topic);
}

/** States of waiting messages, by how much a topic that has some of them needs help. */
const statesByUrgency: readonly BacklogState[] = [
  "paused",
  "blocked",
  "unserved",
  "stopped",
  "limited",
  "running",
  "retrying",
  "held",
];

/** True if nobody takes messages that wait in this state, and nothing changes that by itself. */
export function needsHelp(state: BacklogState | null): boolean {
  return state === "blocked" || state === "unserved" || state === "stopped";
}

/** Lists the topics, each once: those with messages that nobody takes first, then by name. */
export async function listTopics(
  database: Database,
  { topic, ...listing }: TopicFilter = {},
): Promise<TopicOverview[]> {
  const names = [
    "l.topic",
    "(SELECT string_agg(concat_ws(' ', e.each ->> 'name', e.each ->> 'group', e.each ->> 'address'), ' ') FROM jsonb_array_elements(l.listeners) AS e (each))",
  ];
  const order = `(l.waiting > 0 AND l.state IN (${statesByUrgency.filter(needsHelp).map((each) => `'${each}'`)})) IS NOT TRUE, l.topic COLLATE "C"`;
  const values = [statesByUrgency, queueConstants.countedMessages, topic ?? null];
  const sorts = { topic: 'l.topic COLLATE "C"', waiting: "l.waiting", oldest: "l.oldest" };
  return listed(database, "list the topics", { rows: sql.topics, values, names, order, sorts }, listing);
}

/**
 * Lists the peers: those for which a message has waited longest first, then those that are away, then by name. Includes
 * names that occur only in the directory or as listeners of waiting messages.
 */
export async function listPeers(database: Database, listing: Listing = {}): Promise<PeerOverview[]> {
  const names = ["l.name", "array_to_string(l.topics, ' ')"];
  const order = 'l."oldestWaitingAt" NULLS LAST, l.running, l.name COLLATE "C"';
  const sorts = {
    name: 'l.name COLLATE "C"',
    started: 'l."startedAt"',
    certificate: 'l."certificateEndsAt"',
    waiting: "l.waiting",
    oldest: 'l."oldestWaitingAt"',
  };
  return listed(database, "list the peers", { rows: sql.peers, names, order, sorts }, listing);
}

/** Lists the peers by name, without what waits for them; not those that only messages name. */
export function listPresence(database: Database, listing: Listing = {}): Promise<PeerPresence[]> {
  const list = { rows: sql.presence, names: ["l.name"], order: 'l.name COLLATE "C"' };
  return listed(database, "list the peers", list, listing);
}

/** Lists waiting messages by listener, group, topic and sender, those that have waited longest first. */
export async function listPending(database: Database, filter: PendingFilter = {}): Promise<PendingOverview[]> {
  const { listener = null, topic = null, maxRows = queueConstants.countedMessages, ...listing } = filter;
  const names = ["l.topic", "l.listener", 'l."group"', "l.sender"];
  const order = 'l.oldest, l.topic COLLATE "C", l.listener COLLATE "C", l.sender COLLATE "C", l."from" COLLATE "C"';
  const sorts = { topic: 'l.topic COLLATE "C"', messages: "l.count", oldest: "l.oldest", bytes: "l.bytes" };
  const list = { rows: sql.pending, values: [maxRows, listener, topic], names, order, sorts };
  return listed(database, "list the stored messages", list, listing);
}
