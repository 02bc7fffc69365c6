/** Counts for metrics of messages that are only in the database. */

import { tables, views } from "../../../generated/ts/rows/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import type { SessionQuery } from "../../foundation/postgres/index.js";
import { batched, cursorJoin, type Database, isWaitingSql } from "../../jobs-and-peers/store/index.js";
import type { DeadLetterOrigin } from "./dead-letter-causes.js";
import { type BacklogState, backlogSql } from "./mesh-overview.js";
import { waitingMessagesSql } from "./pending.js";
import { type StuckSchedule, stuckSchedules } from "./schedule-overview.js";

/** Age up to which a dead letter counts as recent. */
const recentMs = 600_000;
/** Maximum number of messages of each kind that are counted. */
const maxStoredCount = 10_000;
/** Number of messages of the outbox that are examined for that, including those that are done. */
const maxStoredRead = 50_000;

/** Number of topics and groups of the backlog, those that have waited longest, that are counted one by one. */
const maxBacklogs = 50;
/** Number of rows of the queue, and of what is stored, that are counted for the backlog. */
const countedBacklog = 1_000_000;
/** Name under which the other topics and groups of the backlog are summed up. */
const otherBacklogs = "other";

/** Messages in the database at the time of a count. */
export interface StoredCounters {
  readonly waiting: {
    /** Messages of the outbox that have not been relayed, up to a limit. */
    readonly messages: number;
    /** Enqueue time of the oldest message, on the clock of `performance.now()`; undefined if there is none. */
    readonly oldestAt: number | undefined;
  };
  readonly deadLetters: readonly {
    readonly origin: DeadLetterOrigin;
    /** Dead letters of the last `recentMs`, up to a limit. */
    readonly messages: number;
  }[];
}

const countSql = `
  SELECT 'waiting' AS what, 'nats' AS of, NULL AS topic, count(*)::integer AS messages,
         extract(epoch FROM clock_timestamp() - min(u.enqueued_at))::float8 AS "ageSeconds"
    FROM hawser.outbox_undone(NULL, $1, $3) AS u
  UNION ALL
  SELECT 'dead', o.origin, NULL, count(d.origin)::integer, NULL
    FROM (VALUES ('subscription'), ('outbox'), ('queue')) AS o (origin)
    LEFT JOIN LATERAL (
      SELECT l.origin FROM ${views.deadLetter} AS l WHERE l.origin = o.origin AND l.created_at > now() - $2 * interval '1 ms' LIMIT $1
    ) AS d ON true
   GROUP BY o.origin`;

/** Messages that wait for the listeners of a topic and group. */
export interface Backlog {
  /** `otherBacklogs` for all that are not counted one by one. */
  readonly topic: string;
  /** Empty if the listeners are in no group, or in several. */
  readonly group: string;
  /** Listener that is away, or worker that took messages of the topic last; empty if the state is not `stopped`, or none is known. */
  readonly listener: string;
  readonly state: BacklogState;
  readonly messages: number;
  /** True if there are more than `messages`. */
  readonly hasMore: boolean;
  /** Time at which the oldest message was stored, on the clock of `performance.now()`. */
  readonly oldestAt: number;
}

// Names come from users: of very many, those that have waited longest stay apart.
const countBacklogSql = `
  WITH backlogs AS (
    SELECT b.topic, coalesce(b."group", '') AS "group", coalesce(b.state, 'running') AS state,
           -- A worker that is gone is the last one in all of its topics.
           CASE WHEN b.state = 'stopped' THEN coalesce((array_agg(coalesce(b."servedBy", b.listener) ORDER BY b."servedUntil" DESC NULLS LAST, b.oldest))[1], '') ELSE '' END AS listener,
           sum(b.count) AS messages, bool_or(b."hasMore") AS "hasMore", min(b.oldest) AS oldest
      FROM (${backlogSql("$1")}) AS b GROUP BY b.topic, coalesce(b."group", ''), b.state
  ), named AS (
    SELECT b.*, row_number() OVER (ORDER BY b.oldest, b.topic COLLATE "C", b."group" COLLATE "C", b.state) <= $2 AS has_name FROM backlogs AS b
  )
  SELECT CASE WHEN n.has_name THEN n.topic ELSE $3 END AS topic, CASE WHEN n.has_name THEN n."group" ELSE '' END AS "group",
         CASE WHEN n.has_name THEN n.listener ELSE '' END AS listener, n.state,
         sum(n.messages)::float8 AS messages, bool_or(n."hasMore") AS "hasMore", extract(epoch FROM clock_timestamp() - min(n.oldest))::float8 AS "ageSeconds"
    FROM named AS n GROUP BY 1, 2, 3, 4`;

/** Numbers of the whole database, which one of its processes counts. */
export interface SharedCounters {
  /** What waits for listeners, by topic and group. */
  readonly backlog: readonly Backlog[];
  /** Schedules that do not run, at most `maxBacklogs`. */
  readonly schedules: readonly StuckSchedule[];
}

/** Counts what waits for listeners in the whole database, and the schedules that do not run. @throws the error of `query` */
export async function countShared(query: SessionQuery): Promise<SharedCounters> {
  const values = [countedBacklog, maxBacklogs, otherBacklogs];
  const rows = await query<Omit<Backlog, "oldestAt"> & { readonly ageSeconds: number }>(countBacklogSql, values);
  const countedAt = performance.now();
  const backlog = rows.map(({ ageSeconds, ...backlog }) => ({ ...backlog, oldestAt: countedAt - ageSeconds * 1_000 }));
  return { backlog, schedules: await stuckSchedules(query, maxBacklogs) };
}

interface CountRow {
  readonly what: string;
  /** Origin, or name of the peer. */
  readonly of: string;
  readonly topic: string | null;
  readonly messages: number;
  readonly ageSeconds: number | null;
}

/** Counts the messages of the outbox and the dead letters of the database. @throws the error of `query` */
export async function countStored(query: SessionQuery): Promise<StoredCounters> {
  const rows = await query<CountRow>(countSql, [maxStoredCount, recentMs, maxStoredRead]);
  const countedAt = performance.now();
  const { messages = 0, ageSeconds = null } = rows.find(({ what }) => what === "waiting") ?? {};
  return {
    waiting: { messages, oldestAt: ageSeconds === null ? undefined : countedAt - ageSeconds * 1_000 },
    deadLetters: rows
      .filter(({ what }) => what === "dead")
      .map(({ of, messages }) => ({ origin: of as DeadLetterOrigin, messages })),
  };
}

/** Messages of one topic. */
export interface StoredTopic {
  /** Empty if the topic is not in the catalog. */
  readonly topic: string;
  readonly messages: number;
  /** Time at which the oldest message was stored, on the clock of `performance.now()`; undefined if it is not read. */
  readonly oldestAt: number | undefined;
}

/** Messages in the database that concern a peer. */
export interface PeerStoredCounters {
  /** Stored messages that wait for the peer, and enqueued ones that it has, or that are for it alone. */
  readonly backlog: readonly StoredTopic[];
  /** Messages that the peer has stored, and that wait for their listeners. */
  readonly pending: readonly StoredTopic[];
  /** Dead letters of the peer in the last `recentMs`. */
  readonly deadTopics: readonly StoredTopic[];
}

/** SQL query: stored messages by the name of a peer and topic. @param channels channels `m` of the names `n` */
const waitingSql = (what: string, channels: string): string => `
  SELECT '${what}' AS what, n.name, coalesce(t.topic, '') AS topic, sum(s.messages) AS messages,
         extract(epoch FROM clock_timestamp() - min(s.stored_at))::float8 AS age
    FROM unnest($3::text[]) AS n (name)
    JOIN ${tables.channel} AS m ON ${channels}
    ${cursorJoin}
   CROSS JOIN LATERAL (
     SELECT s.topic_id, ${waitingMessagesSql} AS messages, s.stored_at
       FROM ${tables.storedMessage} AS s
      WHERE s.channel_id = m.channel_id AND ${isWaitingSql}
      ORDER BY s.channel_id, s.epoch, s.number LIMIT $1
   ) AS s
    LEFT JOIN ${tables.topic} AS t ON t.id = s.topic_id
   GROUP BY n.name, t.topic`;

const countForPeersSql = `
  SELECT b.what, b.name AS of, b.topic, sum(b.messages)::integer AS messages, max(b.age) AS "ageSeconds"
    FROM (
      ${waitingSql("backlog", "m.listener_name = n.name")}
      UNION ALL
      -- Of the topics of these peers alone: there may be very many others.
      SELECT 'backlog', q.listener, q.topic, q.messages, extract(epoch FROM clock_timestamp() - q.oldest_at)::float8
        FROM (
          SELECT array_agg(DISTINCT l.topic) AS topics FROM ${tables.listener} AS l WHERE l.listener_name = ANY ($3::text[]) HAVING count(*) > 0
        ) AS t
       CROSS JOIN LATERAL hawser.queue_backlog($1::integer, t.topics) AS q
       WHERE q.listener = ANY ($3::text[]) AND NOT q.is_put_off
      UNION ALL ${waitingSql("pending", "m.sender_name = n.name")}
    ) AS b
   GROUP BY 1, 2, 3
  UNION ALL
  -- Of each peer that may have had them.
  SELECT 'dead of peer', n.name, l.topic, count(*)::integer, NULL
    FROM (
      SELECT ltrim(d.source, '${queueConstants.priorityMark}') AS source, d.topic FROM ${views.deadLetter} AS d
       WHERE d.origin = 'queue' AND d.created_at > now() - $2 * interval '1 ms' ORDER BY d.created_at DESC LIMIT $1
    ) AS l
    JOIN unnest($3::text[]) AS n (name) ON l.source = '@' || n.name OR (
      l.source = coalesce((SELECT '#' || p.group_name FROM ${tables.peerName} AS p WHERE p.name = n.name AND l.source <> ''), '')
      AND EXISTS (SELECT FROM ${tables.listener} AS t WHERE t.topic = l.topic AND t.listener_name = n.name)
    )
   GROUP BY 2, 3`;

/** Counts for the metrics of peers. */
export function storedCounts(database: Database) {
  return {
    /** As {@link countShared}. @throws HawserError as {@link Database.query} */
    countShared(): Promise<SharedCounters> {
      return countShared((text, values = []) => database.query("count the backlog", { text, values }));
    },
    /** Counts the messages that concern a peer. Concurrent calls share one statement. */
    storedCountersOf: batched(async (names: readonly string[]): Promise<PeerStoredCounters[]> => {
      const values = [maxStoredCount, recentMs, [...new Set(names)]];
      const rows = await database.query<CountRow>("count stored messages", { text: countForPeersSql, values });
      const countedAt = performance.now();
      const topicsOf = (kind: string, name: string): StoredTopic[] =>
        rows
          .filter(({ what, of }) => what === kind && of === name)
          .map(({ topic, messages, ageSeconds }) => ({
            ...{ topic: topic ?? "", messages },
            oldestAt: ageSeconds === null ? undefined : countedAt - ageSeconds * 1_000,
          }));
      return names.map((name) => ({
        backlog: topicsOf("backlog", name),
        pending: topicsOf("pending", name),
        deadTopics: topicsOf("dead of peer", name),
      }));
    }),
  };
}
