/**
 * Waits until what a listener has handled is committed, and so deleted: that is when draining has ended.
 */
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";

/** How often it is looked at: little against the seconds that a drain takes, and little work for Postgres. */
const lookEveryMs = 2;

/** Resolves when the committed cursors of all channels of the database sum up to `number`. */
export async function cursorReaches(client: pg.Client, number: number): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ sum: string | null }>({
      name: "bench.cursor",
      text: "SELECT sum(v) FROM hawser.conn_mess_number",
    });
    if (Number(rows[0]!.sum ?? 0) >= number) return;
    await delay(lookEveryMs);
  }
}
