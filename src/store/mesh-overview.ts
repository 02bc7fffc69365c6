/** Listeners, running peers and waiting messages, as an operator lists them. */
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables } from "../../generated/ts/rows/peer.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import type { Database } from "./database.js";
import { groupSql } from "./directory.js";
import { nameHeldSql } from "./leases.js";
import { waitingMessagesSql } from "./pending.js";

/** Listener of a topic. */
export interface TopicOverview {
  readonly topic: string;
  /** Name of the listener. */
  readonly name: string;
  /** Published address, host:port. */
  readonly address: string;
  /** True if senders that never met the listener also store messages for it. */
  readonly durable: boolean;
  /** True if the listener subscribed to the topic; false if it is its source topic. */
  readonly subscribed: boolean;
  /** Group of the listener; null if none. See the setting `group`. */
  readonly group: string | null;
  /** True if a process owns the name. */
  readonly running: boolean;
}

/** Name that was taken at least once, or for which messages wait. */
export interface PeerOverview {
  readonly name: string;
  /** True if a process owns the name. */
  readonly running: boolean;
  /** Null if no peer of this name was ever started. */
  readonly epoch: number | null;
  /** Time at which the name was last taken. */
  readonly startedAt: Date | null;
  /** True if the last owner shut down gracefully. False while a process runs. */
  readonly clean: boolean | null;
  /** Version of the program that registered last, in its own words: any text. Null if it did not say. */
  readonly version: string | null;
  /** End of the TLS certificate with which it registered last; null if it has none, or did not say. */
  readonly certificateEndsAt: Date | null;
  /** Topics of the peer in the directory. */
  readonly topics: readonly string[];
  /** Number of stored messages for the peer that it has not handled. */
  readonly waiting: number;
  /** Number of parked messages in its channels: with a long retry delay, or behind such a message of their key. */
  readonly parked: number;
  /** Number of channels in which it is the sender. */
  readonly sendsOn: number;
  /** Number of channels that it owns as their listener. */
  readonly listensOn: number;
}

/** Waiting messages of one channel and topic. */
export interface PendingOverview {
  /** Name of the sender. Messages of the outbox have {@link outboxSender}. */
  readonly sender: string;
  /** Source topic of the sender. */
  readonly from: string;
  /**
   * Listener that owns the channel; null if none does yet. The first listener of the topic, or a member of `group`, will
   * then take the messages.
   */
  readonly listener: string | null;
  /** Group to whose members these copies belong until one claims them; null if a listener owns them, or for other messages. */
  readonly group: string | null;
  readonly topic: string;
  readonly count: number;
  /** Payload bytes as stored, possibly compressed. Partly handled batches count fully. */
  readonly bytes: number;
  /** Time at which the oldest message was stored. */
  readonly oldest: Date;
}

/** Filter of {@link listPending}. */
export interface PendingFilter {
  /** Only messages that wait for this listener. */
  readonly listener?: string | undefined;
  /** Only messages to this topic. */
  readonly topic?: string | undefined;
}

/** Sender name of enqueued messages. */
export const outboxSender = outboxConstants.peerSender;

const owner = "coalesce(m.owner, m.listener_name)";

/**
 * SQL expression: peer that owns a channel. Null for a channel whose messages wait for the first listener of a topic, or
 * for a member of a group.
 */
export const peerOwner = `CASE WHEN NOT starts_with(${owner}, '${outboxConstants.reservedPrefix}') THEN ${owner} END`;

/** SQL condition: the row is not handled. Rows at or below the cursor are handled, but may not be deleted yet. */
const waits = "(s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))";

const sql = {
  topics: `
    SELECT topic, listener_name AS name, addr AS address, durable, subscribed, ${groupSql("t")} AS "group",
           ${nameHeldSql("listener_name")} AS running
      FROM ${tables.listener} AS t ORDER BY topic COLLATE "C", listener_name COLLATE "C", addr COLLATE "C"`,
  peers: `
    WITH waiting AS (
      SELECT ${owner} AS name, sum(${waitingMessagesSql})::float8 AS count
        FROM ${tables.storedMessage} AS s
        JOIN ${tables.channel} AS m USING (channel_id)
        LEFT JOIN ${tables.cursor} AS c USING (channel_id)
       WHERE ${waits} AND ${peerOwner} IS NOT NULL GROUP BY 1
    ), parked AS (
      SELECT ${owner} AS name, count(*)::integer AS count
        FROM ${tables.parkedMessage} AS k JOIN ${tables.channel} AS m USING (channel_id) GROUP BY 1
    ), senders AS (
      SELECT sender_name AS name, count(*)::integer AS channels FROM ${tables.channel} GROUP BY 1
    ), listeners AS (
      SELECT ${owner} AS name, count(*)::integer AS channels FROM ${tables.channel} AS m GROUP BY 1
    ), directory AS (
      SELECT listener_name AS name, array_agg(topic ORDER BY topic COLLATE "C") AS topics
        FROM ${tables.listener} GROUP BY 1
    )
    SELECT name, ${nameHeldSql("name")} AS running, p.epoch::float8 AS epoch, p.started_at AS "startedAt", p.clean,
           p.version, p.certificate_ends_at AS "certificateEndsAt",
           coalesce(directory.topics, '{}') AS topics, coalesce(waiting.count, 0) AS waiting,
           coalesce(parked.count, 0) AS parked,
           coalesce(senders.channels, 0) AS "sendsOn", coalesce(listeners.channels, 0) AS "listensOn"
      FROM ${tables.peerName} AS p
      FULL JOIN directory USING (name)
      FULL JOIN waiting USING (name)
      LEFT JOIN parked USING (name)
      LEFT JOIN senders USING (name)
      LEFT JOIN listeners USING (name)
     ORDER BY name COLLATE "C"`,
  pending: `
    SELECT sender, "from", listener, "group", topic, sum(messages)::float8 AS count, sum(bytes)::float8 AS bytes, min(stored_at) AS oldest
      FROM (
        SELECT m.sender_name AS sender, m.source_topic AS "from", ${peerOwner} AS listener, nullif(w.for_group, '') AS "group",
               coalesce(t.topic, '') AS topic,
               ${waitingMessagesSql} AS messages, octet_length(s.payload) AS bytes, s.stored_at
          FROM ${tables.storedMessage} AS s
          JOIN ${tables.channel} AS m USING (channel_id)
          LEFT JOIN ${tables.cursor} AS c USING (channel_id)
          LEFT JOIN ${tables.topic} AS t ON t.id = s.topic_id
          LEFT JOIN ${outboxTables.peerWaitingTopic} AS w ON w.channel_id = m.channel_id
         WHERE ${waits} AND ($1::text IS NULL OR ${owner} = $1) AND ($2::text IS NULL OR t.topic = $2)
      ) AS waiting
     GROUP BY sender, "from", listener, "group", topic
     ORDER BY listener COLLATE "C", "group" COLLATE "C", topic COLLATE "C", sender COLLATE "C", "from" COLLATE "C"`,
  otherTopics: `
    SELECT topic COLLATE "C" AS topic
      FROM (
        SELECT topic FROM ${tables.listener} WHERE listener_name = $1
        UNION SELECT listener_topic FROM ${tables.route} WHERE listener_name = $1
        UNION SELECT t.topic
                FROM (
                  SELECT s.topic_id
                    FROM ${tables.channel} AS m JOIN ${tables.storedMessage} AS s USING (channel_id)
                    LEFT JOIN ${tables.cursor} AS c USING (channel_id)
                   WHERE ${owner} = $1 AND ${waits}
                  UNION SELECT k.topic_id
                          FROM ${tables.channel} AS m JOIN ${tables.parkedMessage} AS k USING (channel_id) WHERE ${owner} = $1
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

/** Lists the directory by topic and name. */
export async function listTopics(database: Database): Promise<TopicOverview[]> {
  return database.query("list the topics", { text: sql.topics });
}

/** Lists the peers by name, including names that occur only in the directory or as owners of waiting messages. */
export async function listPeers(database: Database): Promise<PeerOverview[]> {
  return database.query("list the peers", { text: sql.peers });
}

/** Lists waiting messages by listener, topic and sender. */
export async function listPending(database: Database, filter: PendingFilter = {}): Promise<PendingOverview[]> {
  const values = [filter.listener ?? null, filter.topic ?? null];
  return database.query("list the stored messages", { text: sql.pending, values });
}
