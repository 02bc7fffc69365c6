/** Stored messages of senders and listeners: counting and clearing them, and finding absent listeners. */

import { type ChannelRow, storeFunctions, tables } from "../../../generated/ts/rows/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import {
  backlogCountRows,
  cursorJoin,
  type Database,
  isWaitingSql,
  nameHeldSql,
  type Sender,
  senderKey,
  unlessRunning,
} from "../../jobs-and-peers/store/index.js";

/** Listener with stored or enqueued messages whose name no process owns. */
export interface AbsentListener {
  readonly name: string;
  /** Epoch of its name; null if it was never taken. A changed epoch shows that the listener ran in between. */
  readonly epoch: number | null;
  /** Group of the listener when it last ran; null if none. */
  readonly group: string | null;
  /** True if messages are enqueued for it in one of the topics. */
  readonly isEnqueuedFor: boolean;
}

/**
 * SQL expression: number of unhandled messages of the row `s`, where `c` is its channel's cursor. A batch may be
 * handled in part.
 */
export const waitingMessagesSql =
  "CASE WHEN s.epoch = c.epoch THEN least(s.messages, s.number - c.number) ELSE s.messages END";

/** Number of messages that wait for one listener of one topic. */
export interface PendingMessages {
  /** Last known address of the listener; empty if the sender has no route to it any more. */
  readonly address: string;
  readonly topic: string;
  /** Name of the listener. */
  readonly name: string;
  readonly count: number;
}

const pendingRows = `FROM ${tables.channel} AS m
  JOIN ${tables.storedMessage} AS s USING (channel_id)
  LEFT JOIN ${tables.cursor} AS c USING (channel_id)
  WHERE m.sender_name = $1 AND m.source_topic = $2
    AND ${isWaitingSql}`;

const sql = {
  byPeer: `
    WITH waiting AS (
      SELECT m.listener_name AS name, coalesce(t.topic, '') AS topic, sum(p.count) AS count
      FROM (SELECT channel_id, s.topic_id, sum(${waitingMessagesSql}) AS count ${pendingRows} GROUP BY channel_id, s.topic_id) AS p
      JOIN ${tables.channel} AS m USING (channel_id)
      LEFT JOIN ${tables.topic} AS t ON t.id = p.topic_id
      GROUP BY 1, 2
    ), known AS (
      SELECT addr AS address, listener_topic AS topic, listener_name AS name
      FROM ${tables.route} WHERE sender_key = $3
    )
    SELECT * FROM (
      SELECT coalesce(k.address, a.addr, '') AS address, topic, name, coalesce(w.count, 0)::bigint AS count
      FROM known AS k
      FULL JOIN waiting AS w USING (topic, name)
      LEFT JOIN LATERAL (
        SELECT addr FROM ${tables.listener} AS b WHERE b.topic = w.topic AND b.listener_name = w.name ORDER BY addr LIMIT 1
      ) AS a ON true
    ) AS listed
    ORDER BY topic COLLATE "C", address COLLATE "C", name COLLATE "C"`,
  backlogs: `SELECT m.listener_name AS name,
                 sum(hawser.count_messages(m.channel_id, coalesce(c.epoch, 0), coalesce(c.number, 0), $2)) AS count
            FROM ${tables.channel} AS m
            ${cursorJoin}
           WHERE m.listener_name = ANY ($1::text[])
           GROUP BY 1`,
  absent: `
    SELECT o.name, p.epoch::float8 AS epoch, p.group_name AS "group", bool_or(o.queued) AS "isEnqueuedFor"
      FROM (
        SELECT DISTINCT m.listener_name AS name, false AS queued
          FROM ${tables.channel} AS m
          ${cursorJoin}
         WHERE (
           -- As in channels_with_messages. The statement is not prepared, so it is planned with the current statistics.
           SELECT s.channel_id FROM ${tables.storedMessage} AS s WHERE s.channel_id = m.channel_id AND ${isWaitingSql}
            ORDER BY s.channel_id, s.epoch, s.number LIMIT 1
         ) IS NOT NULL
        UNION
        SELECT substring(pg_catalog.ltrim(q.recipient, '${queueConstants.priorityMark}') FROM '^@(.*)$'), true FROM hawser.queue_places($1::text[]) AS q
         WHERE $1::text[] <> '{}' AND pg_catalog.starts_with(pg_catalog.ltrim(q.recipient, '${queueConstants.priorityMark}'), '@')
      ) AS o
      LEFT JOIN ${tables.peerName} AS p ON p.name = o.name
     WHERE NOT ${nameHeldSql("o.name")}
     GROUP BY o.name, p.epoch, p.group_name
     ORDER BY o.name COLLATE "C"`,
  served: `
    SELECT m.channel_id
      FROM ${tables.channel} AS m
      ${cursorJoin}
      JOIN LATERAL (
        SELECT bool_and(coalesce(t.topic = ANY ($2::text[]), false)) AS all_served
          FROM ${tables.storedMessage} AS s
          LEFT JOIN ${tables.topic} AS t ON t.id = s.topic_id
         WHERE s.channel_id = m.channel_id AND ${isWaitingSql}
      ) AS w ON w.all_served
     WHERE m.listener_name = $1
     ORDER BY 1`,
} as const;

/** Functions of a database for stored messages. Rows that are handled but not deleted yet do not count. */
export function pending(database: Database) {
  return {
    /**
     * Number of waiting messages of a sender, in total, and per listener and topic, ordered by topic and address. Includes
     * known routes without messages. Messages that have left their channels for the queue do not count: for the sender they are delivered.
     */
    async pending(sender: Sender): Promise<{ count: number; listeners: PendingMessages[] }> {
      const statement = { text: sql.byPeer, values: [sender.name, sender.sourceTopic, senderKey(sender)] };
      const rows = await database.query<Omit<PendingMessages, "count"> & { count: bigint }>(
        `count the messages that "${sender.name}" has stored`,
        statement,
      );
      const listeners = rows.map(({ count, ...listener }) => ({ ...listener, count: Number(count) }));
      return { count: listeners.reduce((sum, { count }) => sum + count, 0), listeners };
    },
    /**
     * Deletes the sender's messages and routes. The cursors belong to the listeners and stay.
     *
     * @throws HawserError `name_in_use` if a process owns the sender's name; nothing was deleted then
     */
    async clearStoredMessages({ name, sourceTopic }: Sender): Promise<void> {
      const caller = database.caller(`clear the messages that "${name}" has stored`);
      await unlessRunning(name, () => storeFunctions(caller).clearStoredMessages({ name, sourceTopic }));
    },
    /**
     * Number of unhandled stored messages per listener, of all senders. Each channel is counted up to `backlogCountRows`. A
     * sender that reaches no listener chooses one by its backlog.
     */
    async backlogsOf(listenerNames: readonly string[]): Promise<Map<string, number>> {
      const statement = { text: sql.backlogs, values: [listenerNames, backlogCountRows] };
      const rows = await database.query<{ name: string; count: string }>(
        "count the messages that wait for listeners",
        statement,
      );
      const counts = new Map(rows.map(({ name, count }) => [name, Number(count)]));
      return new Map(listenerNames.map((name) => [name, counts.get(name) ?? 0]));
    },
    /** Absent listeners with stored messages, or with messages that are enqueued for them in one of the topics, by name. */
    async absentListeners(topics: readonly string[] = []): Promise<AbsentListener[]> {
      return database.query("read which listeners are away", { text: sql.absent, values: [topics] });
    },
    /** Ids of the listener's channels whose stored messages are all for these topics, in order. */
    async channelsServedBy(listenerName: string, topics: readonly string[]): Promise<number[]> {
      const action = `read which messages are stored for "${listenerName}"`;
      const statement = { text: sql.served, values: [listenerName, topics] };
      const rows = await database.query<Pick<ChannelRow, "channel_id">>(action, statement);
      return rows.map((row) => row.channel_id);
    },
  };
}
