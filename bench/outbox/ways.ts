/**
 * Writing a message in the user's transaction, by node-postgres: ours, and the baselines.
 */
import type pg from "pg";
import {
  addGraphileJobs,
  bossSessionOf,
  migrateGraphile,
  queue,
  startedBoss,
  stopBoss,
} from "../offline/job-queues.js";
import { execute } from "../postgres.js";

/** Subject of all messages; the stream has no other one. */
export const subject = "bench.outbox";

/** Messages that are written with one statement, and with one of each of many transactions. */
export const rowsOfStatement = 1_000;
export const rowsOfTransaction = 100;

/** Ways to write a message; the first one is Hawser's. */
export const wayNames = ["Hawser", "INSERT", "pg-boss", "graphile-worker"] as const;
export type WayName = (typeof wayNames)[number];

/** A way of writing. All statements are those that its users would send, prepared where its own library prepares them. */
export interface Way {
  one(client: pg.Client, text: string, key?: string): Promise<unknown>;
  /** Writes messages with one statement. */
  many(client: pg.Client, texts: readonly string[]): Promise<unknown>;
  close(): Promise<void>;
}

/** Prepares tables and queues. */
export const ways: Readonly<Record<WayName, (databaseUrl: string) => Promise<Way>>> = {
  async Hawser() {
    return {
      one: (client, text, key) =>
        key === undefined
          ? client.query({
              name: "bench.enqueue",
              text: "SELECT hawser.enqueue($1, $2::text, stream => true)",
              values: [subject, text],
            })
          : client.query({
              name: "bench.enqueue_key",
              text: "SELECT hawser.enqueue($1, $2::text, stream => true, key => $3)",
              values: [subject, text, key],
            }),
      many: (client, texts) =>
        client.query({
          name: "bench.enqueue_batch",
          text: "SELECT hawser.enqueue_batch($1, $2::text[], stream => true)",
          values: [subject, texts],
        }),
      close: async () => undefined,
    };
  },

  /** Into the table of an outbox that is written by hand: what it needs to publish the message, and nothing more. */
  async INSERT(databaseUrl) {
    await execute(
      databaseUrl,
      `CREATE TABLE IF NOT EXISTS bench_outbox (
         id bigserial PRIMARY KEY, subject text NOT NULL, payload text NOT NULL, headers jsonb, key text,
         message_id uuid NOT NULL DEFAULT gen_random_uuid(), created_at timestamptz NOT NULL DEFAULT now())`,
    );
    return {
      one: (client, text, key) =>
        client.query({
          name: "bench.insert",
          text: "INSERT INTO bench_outbox (subject, payload, key) VALUES ($1, $2, $3)",
          values: [subject, text, key],
        }),
      many: (client, texts) =>
        client.query({
          name: "bench.insert_many",
          text: "INSERT INTO bench_outbox (subject, payload) SELECT $1, p FROM unnest($2::text[]) AS p",
          values: [subject, texts],
        }),
      close: async () => undefined,
    };
  },

  async "pg-boss"(databaseUrl) {
    const boss = await startedBoss(databaseUrl, { max: 1 });
    await boss.createQueue(queue);
    return {
      one: (client, text) => boss.send(queue, { text }, bossSessionOf(client)),
      many: (client, texts) =>
        boss.insert(
          queue,
          texts.map((text) => ({ data: { text } })),
          bossSessionOf(client),
        ),
      close: () => stopBoss(boss),
    };
  },

  async "graphile-worker"(databaseUrl) {
    await migrateGraphile(databaseUrl);
    return {
      one: (client, text) =>
        client.query({
          name: "bench.add_job",
          text: "SELECT graphile_worker.add_job($1, $2::json)",
          values: [queue, JSON.stringify({ text })],
        }),
      many: (client, texts) =>
        addGraphileJobs(
          client,
          texts.map((text) => JSON.stringify({ text })),
        ),
      close: async () => undefined,
    };
  },
};
