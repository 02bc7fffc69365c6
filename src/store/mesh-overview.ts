/**
 * What an operator wants to see of the mesh: who listens where, who runs, what waits.
 */
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables } from "../../generated/ts/rows/peer.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import type { Database } from "./database.js";
import { groupSql } from "./directory.js";
import { nameHeldSql } from "./leases.js";
import { waitingMessagesSql } from "./pending.js";

/** A listener of a topic. */
export interface TopicOverview {
  readonly topic: string;
  /** The listener's name. */
  readonly name: string;
  /** The published address, host:port. */
  readonly address: string;
  /** Messages are stored for it also by senders that never met it. */
  readonly durable: boolean;
  /** It subscribed to the topic, as opposed to serving it as its source topic. */
  readonly subscribed: boolean;
  /** The group that it is a member of; null: of none. See the setting `group`. */
  readonly group: string | null;
  /** A process holds its name now. */
  readonly running: boolean;
}

/** A name that was taken at least once, or that messages wait for. */
export interface PeerOverview {
  readonly name: string;
  /** A process holds the name now. */
  readonly running: boolean;
  /** Null: no peer of this name was ever started. */
  readonly epoch: number | null;
  /** When the name was taken last. */
  readonly startedAt: Date | null;
  /** The last holder ended in good order; false also while one runs. */
  readonly clean: boolean | null;
  /** The topics that the directory lists it for. */
  readonly topics: readonly string[];
  /** Messages stored for it that it has not handled. */
  readonly waiting: number;
  /** Messages in its channels that are parked: they wait long to be tried again, or behind such a message of their key. */
  readonly parked: number;
  /** Channels whose sender it is. */
  readonly sendsOn: number;
  /** Channels that it owns as their listener. */
  readonly listensOn: number;
}

/** What waits in one channel for one topic. */
export interface PendingOverview {
  /** The sender's name. That of the outbox is {@link outboxSender}. */
  readonly sender: string;
  /** The sender's source topic. */
  readonly from: string;
  /** The listener that owns the channel. Null: the first listener of the topic that comes, or a member of `group`. */
  readonly listener: string | null;
  /** The group whose copies they are, until a member claims them. Null: they are no copies, or a listener has them. */
  readonly group: string | null;
  readonly topic: string;
  readonly count: number;
  /** Payload bytes as stored, which may be compressed. Of a batch that is handled in part, all. */
  readonly bytes: number;
  /** When the oldest was stored. */
  readonly oldest: Date;
}

/** Which messages to look at. */
export interface PendingFilter {
  /** Only those that wait for this listener. */
  readonly listener?: string | undefined;
  /** Only those sent to this topic. */
  readonly topic?: string | undefined;
}

/** The sender of messages that were enqueued. */
export const outboxSender = outboxConstants.peerSender;

const owner = "coalesce(m.owner, m.listener_name)";

/** The owner of a channel; null where that is none of a peer: a topic that nobody has served yet has a channel, too. */
const peerOwner = `CASE WHEN NOT starts_with(${owner}, '${outboxConstants.reservedPrefix}') THEN ${owner} END`;

/** Rows at or below the cursor are handled already, and not deleted yet. */
const waits = "(s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))";

const sql = {
  topics: `
    SELECT topic, client_name AS name, addr AS address, durable, subscribed, ${groupSql("t")} AS "group",
           ${nameHeldSql("client_name")} AS running
      FROM ${tables.topicAddr} AS t ORDER BY topic COLLATE "C", client_name COLLATE "C", addr COLLATE "C"`,
  peers: `
    WITH waiting AS (
      SELECT ${owner} AS name, sum(${waitingMessagesSql})::float8 AS count
        FROM ${tables.connMessage} AS s
        JOIN ${tables.connKeyMap} AS m USING (connection_key)
        LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
       WHERE ${waits} AND ${peerOwner} IS NOT NULL GROUP BY 1
    ), parked AS (
      SELECT ${owner} AS name, count(*)::integer AS count
        FROM ${tables.parkedMessage} AS k JOIN ${tables.connKeyMap} AS m USING (connection_key) GROUP BY 1
    ), senders AS (
      SELECT sender_name AS name, count(*)::integer AS channels FROM ${tables.connKeyMap} GROUP BY 1
    ), listeners AS (
      SELECT ${owner} AS name, count(*)::integer AS channels FROM ${tables.connKeyMap} AS m GROUP BY 1
    ), book AS (
      SELECT client_name AS name, array_agg(topic ORDER BY topic COLLATE "C") AS topics
        FROM ${tables.topicAddr} GROUP BY 1
    )
    SELECT name, ${nameHeldSql("name")} AS running, p.epoch::float8 AS epoch, p.started_at AS "startedAt", p.clean,
           coalesce(book.topics, '{}') AS topics, coalesce(waiting.count, 0) AS waiting,
           coalesce(parked.count, 0) AS parked,
           coalesce(senders.channels, 0) AS "sendsOn", coalesce(listeners.channels, 0) AS "listensOn"
      FROM ${tables.peerName} AS p
      FULL JOIN book USING (name)
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
          FROM ${tables.connMessage} AS s
          JOIN ${tables.connKeyMap} AS m USING (connection_key)
          LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
          LEFT JOIN ${tables.topicKey} AS t ON t.k = s.topic_key
          LEFT JOIN ${outboxTables.peerWaitingTopic} AS w ON w.connection_key = m.connection_key
         WHERE ${waits} AND ($1::text IS NULL OR ${owner} = $1) AND ($2::text IS NULL OR t.topic = $2)
      ) AS waiting
     GROUP BY sender, "from", listener, "group", topic
     ORDER BY listener COLLATE "C", "group" COLLATE "C", topic COLLATE "C", sender COLLATE "C", "from" COLLATE "C"`,
} as const;

/** The directory, by topic and name. */
export async function listTopics(database: Database): Promise<TopicOverview[]> {
  return database.query("list the topics", { text: sql.topics });
}

/** The peers, by name; also names that only the directory or waiting messages know. */
export async function listPeers(database: Database): Promise<PeerOverview[]> {
  return database.query("list the peers", { text: sql.peers });
}

/** What waits, by listener, topic and sender. */
export async function listPending(database: Database, filter: PendingFilter = {}): Promise<PendingOverview[]> {
  const values = [filter.listener ?? null, filter.topic ?? null];
  return database.query("list the stored messages", { text: sql.pending, values });
}
