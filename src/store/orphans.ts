/**
 * Listeners that are away although messages wait for them, as one who might take over looks for them.
 */
import { type ConnKeyMapRow, tables } from "../../generated/ts/rows/peer.js";
import type { Database } from "./database.js";
import { leaseHeldSql } from "./lease-held.js";

/** A listener whose name nobody holds, and for which messages are stored. */
export interface AbsentListener {
  readonly name: string;
  /** The epoch of its name; null if it was never taken. Another one says that it was there in between. */
  readonly epoch: number | null;
}

/** Looks for absent listeners. */
export interface Orphans {
  /** The absent listeners, by name. */
  absentListeners(): Promise<AbsentListener[]>;
  /**
   * The keys of a listener's channels with stored messages all of which are for these topics, in key order. A channel
   * goes together with its retries, so those count as its own.
   */
  channelsServedBy(listenerName: string, topics: readonly string[]): Promise<number[]>;
}

const owner = "coalesce(m.owner, m.listener_name)";
const waiting = "(s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))";

const sql = {
  absent: `
    SELECT o.name, p.epoch::float8 AS epoch
      FROM (
        SELECT DISTINCT ${owner} AS name
          FROM ${tables.connKeyMap} AS m
          LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
         WHERE EXISTS (
           SELECT FROM ${tables.connMessage} AS s WHERE s.connection_key = m.connection_key AND ${waiting}
         )
      ) AS o
      LEFT JOIN ${tables.peerName} AS p ON p.name = o.name
     WHERE NOT ${leaseHeldSql("o.name")}
     ORDER BY o.name COLLATE "C"`,
  served: `
    SELECT coalesce(m.retry_of, m.connection_key) AS connection_key
      FROM ${tables.connKeyMap} AS m
      LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
      JOIN LATERAL (
        SELECT bool_and(coalesce(t.topic = ANY ($2::text[]), false)) AS all_served
          FROM ${tables.connMessage} AS s
          LEFT JOIN ${tables.topicKey} AS t ON t.k = s.topic_key
         WHERE s.connection_key = m.connection_key AND ${waiting}
      ) AS w ON w.all_served IS NOT NULL
     WHERE ${owner} = $1
     GROUP BY 1
    HAVING bool_and(w.all_served)
     ORDER BY 1`,
} as const;

/** The absent listeners of a database. */
export function orphans(database: Database): Orphans {
  return {
    async absentListeners() {
      return database.query("look for listeners that are away", { text: sql.absent });
    },
    async channelsServedBy(listenerName, topics) {
      const action = `read what is stored for "${listenerName}"`;
      const statement = { text: sql.served, values: [listenerName, topics] };
      const rows = await database.query<Pick<ConnKeyMapRow, "connection_key">>(action, statement);
      return rows.map((row) => row.connection_key);
    },
  };
}
