/**
 * What a sender has stored for others, and how it is cleared.
 */
import { storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import type { Database } from "./database.js";
import { unlessRunning } from "./lease-held.js";
import { type Sender, senderKey } from "./routes.js";

/** What waits for one listener of one topic. */
export interface PendingMessages {
  /** The listener's last known address; empty if the sender has no route to it any more. */
  readonly address: string;
  readonly topic: string;
  /** The listener's name. */
  readonly name: string;
  readonly count: number;
}

/**
 * What a sender has stored. Rows that their listener has handled already, and not deleted yet, do not count; nor do dead
 * letters that are retried: for the sender they were delivered, and they are not its to clear.
 */
export interface Pending {
  /** How many messages wait. */
  pendingCount(sender: Sender): Promise<number>;
  /** How many wait for each listener and topic, known routes with none included; ordered by topic and address. */
  pendingByPeer(sender: Sender): Promise<PendingMessages[]>;
  /**
   * Deletes the sender's messages and routes. The cursors are their listeners' and stay.
   *
   * @throws StoreError `name_in_use` if a process has the sender's name; then nothing was deleted
   */
  clearStoredMessages(sender: Sender): Promise<void>;
}

const pendingRows = `FROM ${tables.connKeyMap} AS m
  JOIN ${tables.connMessage} AS s USING (connection_key)
  LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
  WHERE m.sender_name = $1 AND m.source_topic = $2 AND m.retry_of IS NULL
    AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))`;

const sql = {
  count: `SELECT count(*) AS count ${pendingRows}`,
  byPeer: `
    WITH waiting AS (
      SELECT coalesce(m.owner, m.listener_name) AS name, coalesce(t.topic, '') AS topic, sum(p.count) AS count
      FROM (SELECT connection_key, s.topic_key, count(*) ${pendingRows} GROUP BY connection_key, s.topic_key) AS p
      JOIN ${tables.connKeyMap} AS m USING (connection_key)
      LEFT JOIN ${tables.topicKey} AS t ON t.k = p.topic_key
      GROUP BY 1, 2
    ), known AS (
      SELECT addr AS address, listener_topic AS topic, client_name AS name
      FROM ${tables.senderListener} WHERE sender_key = $3
    )
    SELECT * FROM (
      SELECT coalesce(k.address, a.addr, '') AS address, topic, name, coalesce(w.count, 0)::bigint AS count
      FROM known AS k
      FULL JOIN waiting AS w USING (topic, name)
      LEFT JOIN LATERAL (
        SELECT addr FROM ${tables.topicAddr} AS b WHERE b.topic = w.topic AND b.client_name = w.name ORDER BY addr LIMIT 1
      ) AS a ON true
    ) AS listed
    ORDER BY topic COLLATE "C", address COLLATE "C", name COLLATE "C"`,
} as const;

/** What senders have stored in a database. */
export function pending(database: Database): Pending {
  return {
    async pendingCount(sender) {
      const statement = { text: sql.count, values: [sender.name, sender.sourceTopic] };
      const [row] = await database.query<{ count: bigint }>(`count what "${sender.name}" has stored`, statement);
      return Number(row?.count ?? 0);
    },
    async pendingByPeer(sender) {
      const statement = { text: sql.byPeer, values: [sender.name, sender.sourceTopic, senderKey(sender)] };
      const rows = await database.query<Omit<PendingMessages, "count"> & { count: bigint }>(
        `count what "${sender.name}" has stored`,
        statement,
      );
      return rows.map(({ address, topic, name, count }) => ({ address, topic, name, count: Number(count) }));
    },
    async clearStoredMessages({ name, sourceTopic }) {
      const caller = database.caller(`clear what "${name}" has stored`);
      await unlessRunning(name, () => storeFunctions(caller).clearStoredMessages({ name, sourceTopic }));
    },
  };
}
