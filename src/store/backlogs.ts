/**
 * How much waits for listeners, whoever sent it: what a sender that reaches none of them chooses by.
 */

import { tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { Database } from "./database.js";

/** Counts what waits for listeners. */
export interface Backlogs {
  /** The stored messages that each of these listeners has not taken, each channel counted up to `backlogCountRows`. */
  backlogsOf(listenerNames: readonly string[]): Promise<Map<string, number>>;
}

const owner = "coalesce(m.owner, m.listener_name)";

const sql = {
  count: `SELECT ${owner} AS name,
                 sum(hawser.count_messages(m.connection_key, coalesce(c.epoch, 0), coalesce(c.v, 0), $2)) AS count
            FROM ${tables.connKeyMap} AS m
            LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)
           WHERE ${owner} = ANY ($1::text[])
           GROUP BY 1`,
} as const;

/** The listeners' backlogs in a database. */
export function backlogs(database: Database): Backlogs {
  return {
    async backlogsOf(listenerNames) {
      const statement = { text: sql.count, values: [listenerNames, storeConstants.backlogCountRows] };
      const rows = await database.query<{ name: string; count: string }>("count what waits for listeners", statement);
      const counts = new Map(rows.map(({ name, count }) => [name, Number(count)]));
      return new Map(listenerNames.map((name) => [name, counts.get(name) ?? 0]));
    },
  };
}
