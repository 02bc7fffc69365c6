/**
 * Queues that are SQL and nothing else, by node-postgres.
 */
import { readFileSync } from "node:fs";
import type pg from "pg";
import { baselineOf } from "../baselines.js";
import { connected, execute } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import type { Draining, Storing, System } from "./system.js";

/** pgmq: messages of one call. Of the numbers tried, 1,000 to 10,000, the fastest. */
export const pgmqBatch = 1_000;

/** Seconds for which a message in work is invisible to other readers. */
const visibilitySeconds = 60;

/** pgmq, its SQL: `send_batch`; then `read` and `delete` of as many, over and over. */
export const pgmq: System = {
  async openStoring(databaseUrl) {
    const [installed] = await execute(databaseUrl, "SELECT FROM pg_namespace WHERE nspname = 'pgmq'");
    if (installed === undefined) {
      await execute(databaseUrl, readFileSync(baselineOf("HAWSER_BENCH_PGMQ_SQL")!, "utf8"));
      await execute(databaseUrl, "SELECT pgmq.create('bench')");
    }
    return await storing(databaseUrl, pgmqBatch, (client, text, count) =>
      client.query({
        name: "bench.send",
        text: "SELECT count(*) FROM pgmq.send_batch('bench', $1::jsonb[])",
        values: [Array.from({ length: count }, () => JSON.stringify({ text }))],
      }),
    );
  },
  openDraining: (databaseUrl) =>
    draining(databaseUrl, async (client) => {
      const read = "SELECT msg_id, message FROM pgmq.read('bench', $1, $2)";
      const values = [visibilitySeconds, pgmqBatch];
      const { rows } = await client.query<{ msg_id: string }>({ name: "bench.read", text: read, values });
      const ids = rows.map(({ msg_id }) => msg_id);
      const text = "SELECT count(*) FROM pgmq.delete('bench', $1::bigint[])";
      await client.query({ name: "bench.delete", text, values: [ids] });
      return rows.length;
    }),
};

/** Rows of a page of the loop, as many as our own drain takes at a time. */
const pageRows = 1024;

/** A handwritten queue: a table from which pages of rows are read, handled and deleted in a loop. */
export const sqlLoop: System = {
  async openStoring(databaseUrl) {
    await execute(databaseUrl, "CREATE TABLE bench_backlog (id bigserial PRIMARY KEY, payload bytea NOT NULL)");
    return await storing(databaseUrl, Number.POSITIVE_INFINITY, (client, text, count) =>
      client.query("INSERT INTO bench_backlog (payload) SELECT $1 FROM generate_series(1, $2::int)", [
        Buffer.from(text),
        count,
      ]),
    );
  },
  openDraining: (databaseUrl) =>
    draining(databaseUrl, async (client) => {
      const { rows } = await client.query<{ id: string; payload: Buffer }>({
        name: "bench.page",
        text: `SELECT id, payload FROM bench_backlog ORDER BY id LIMIT ${pageRows}`,
      });
      const text = "DELETE FROM bench_backlog WHERE id <= $1";
      if (rows.length > 0) await client.query({ name: "bench.delete", text, values: [rows.at(-1)!.id] });
      return rows.length;
    }),
};

async function storing(
  databaseUrl: string,
  batch: number,
  insert: (client: pg.Client, text: string, count: number) => Promise<unknown>,
): Promise<Storing> {
  const client = await connected(databaseUrl);
  return {
    async store(text, count) {
      for (let left = count; left > 0; left -= batch) await insert(client, text, Math.min(left, batch));
    },
    close: () => client.end(),
  };
}

/** On one connection, `take` after `take`; each says how many messages it has handled and deleted. */
async function draining(databaseUrl: string, take: (client: pg.Client) => Promise<number>): Promise<Draining> {
  const client = await connected(databaseUrl);
  return {
    async drain(count) {
      let left = count;
      while (left > 0) {
        const taken = await take(client);
        if (taken === 0) throw new BenchFailure(`${left} of ${count} messages were not found`);
        left -= taken;
      }
    },
    rest: async () => undefined,
    close: () => client.end(),
  };
}
