/**
 * Transactions that take long, or that are prepared: messages of others pass, and the outbox has no dead rows.
 */
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { prepareForSql } from "../faults/support/sql-database.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";

let postgres: OwnPostgres;
let serve: HawserServer;
let client: pg.Client;
let natsConnection: Awaited<ReturnType<typeof connect>>;
const name = `prepared-${process.pid}`;

async function session(): Promise<pg.Client> {
  const made = new pg.Client(postgres.url);
  await made.connect();
  return made;
}

beforeAll(async () => {
  postgres = await ownPostgres();
  const first = await session();
  await first.query("ALTER SYSTEM SET max_prepared_transactions = 10");
  await first.end();
  await postgres.kill("SIGINT");
  await postgres.start();
  await prepareForSql(postgres.url);
  client = await session();
  natsConnection = await connect({ servers: testNatsUrl() });
  await (await jetstreamManager(natsConnection)).streams.add({ name, subjects: [`${name}.>`] });
  serve = await startServer({ listen: "127.0.0.1:0", databaseUrl: postgres.url });
}, 60_000);
afterAll(async () => {
  await serve?.stop();
  await natsConnection?.close();
  await client?.end();
  await postgres?.[Symbol.asyncDispose]();
});

/** @param after number of the stream's message behind which they begin */
async function texts(after = 0): Promise<string[]> {
  const manager = await jetstreamManager(natsConnection);
  const { state } = await manager.streams.info(name);
  const all = [];
  for (let seq = after + 1; seq <= state.last_seq; seq++)
    all.push((await manager.streams.getMessage(name, { seq }))!.string());
  return all;
}

/** What sessions have counted is there when they have ended, or with their first statement a second later. */
async function deadRows(): Promise<{ dead: number; changed: number }> {
  await delay(1_500);
  await client.query("SELECT");
  const { rows } = await client.query(
    `SELECT sum(s.n_dead_tup)::integer AS dead, sum(s.n_tup_upd + s.n_tup_del)::integer AS changed
       FROM pg_stat_user_tables AS s WHERE s.schemaname = 'hawser_data' AND s.relname ~ '^outbox(_turns|_[0-9])$'`,
  );
  return rows[0];
}

const enqueue = (text: string, more = ""): string =>
  `SELECT hawser.enqueue('${name}.a', '${text}', stream => true${more})`;

it("a prepared transaction's messages are published when it is committed, also those that are due later", async () => {
  const after = (await texts()).length;
  const writer = await session();
  for (const [id, text] of [
    ["kept", "prepared"],
    ["gone", "never"],
  ]) {
    await writer.query(
      `BEGIN; ${enqueue(text!)}; ${enqueue(`${text} later`, ", deliver_at => now() + interval '200 ms'")}`,
    );
    await writer.query(`PREPARE TRANSACTION '${id}'`);
  }
  await writer.end();
  await client.query(enqueue("other"));
  await eventually("the other one has passed", async () => (await texts(after)).includes("other"));
  // Messages that were due later are moved in the order of their due times.
  await client.query(enqueue("other later", ", deliver_at => now() + interval '300 ms'"));
  await eventually(
    "a message that is due after the prepared ones has passed",
    async () => (await texts(after)).length > 1,
  );
  expect(await texts(after)).toEqual(["other", "other later"]);
  await client.query("COMMIT PREPARED 'kept'");
  await client.query("ROLLBACK PREPARED 'gone'");
  await eventually("both are there", async () => (await texts(after)).length === 4);
  expect((await texts(after)).toSorted()).toEqual(["other", "other later", "prepared", "prepared later"]);
});

it("others' messages pass open transactions at once, and the outbox has no dead rows", {
  timeout: 60_000,
}, async () => {
  const deadBefore = await deadRows();
  const reader = await session();
  await reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hawser_data.outbox");
  const writer = await session();
  await writer.query(`BEGIN; ${enqueue("open")}`);
  const before = (await texts()).length;
  for (let sent = 0; sent < 50; sent += 1) {
    await client.query(enqueue(`n${sent}`));
    await eventually("it is there", async () => {
      const { state } = await (await jetstreamManager(natsConnection)).streams.info(name);
      return state.last_seq > before + sent;
    });
  }
  await writer.query("COMMIT");
  await eventually("it is there, too", async () => (await texts()).includes("open"));
  await reader.query("ROLLBACK");
  await Promise.all([reader.end(), writer.end()]);
  expect(await deadRows()).toEqual(deadBefore);
  const { rows: bloat } = await client.query("SELECT segments FROM hawser.outbox_status WHERE kind = 'nats'");
  expect(bloat[0].segments).toHaveLength(3);
});
