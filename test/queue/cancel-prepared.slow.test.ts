/** A server with prepared transactions, in which no transaction that cancels may notify. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { cancel, enqueue, Worker } from "../../src/jobs-and-peers/peer/index.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { prepareForSql } from "../faults/support/sql-database.js";
import { eventually } from "../support/eventually.js";

let postgres: OwnPostgres;
let client: pg.Client;
beforeAll(async () => {
  postgres = await ownPostgres();
  const first = new pg.Client(postgres.url);
  await first.connect();
  await first.query("ALTER SYSTEM SET max_prepared_transactions = 10");
  await first.end();
  await postgres.kill("SIGINT");
  await postgres.start();
  await prepareForSql(postgres.url);
  client = new pg.Client(postgres.url);
  await client.connect();
}, 60_000);
afterAll(async () => {
  await client?.end();
  await postgres?.[Symbol.asyncDispose]();
});

it("tells the handler of a job that is cancelled in a prepared transaction", async () => {
  await using worker = new Worker({ databaseUrl: postgres.url });
  let signal: AbortSignal | undefined;
  await worker.handle("jobs", async (message) => {
    signal = message.signal;
    await new Promise((resolve) => message.signal.addEventListener("abort", resolve));
  });
  await worker.start();
  const id = await enqueue(client, "jobs", "x");
  await eventually("it runs", () => signal !== undefined);
  await client.query("BEGIN");
  expect(await cancel(client, id)).toBe("cancelling");
  await client.query("PREPARE TRANSACTION 'cancels'");
  expect(signal!.aborted).toBe(false);
  await client.query("COMMIT PREPARED 'cancels'");
  await eventually("it is told", () => signal!.aborted);
  const left = "SELECT FROM hawser_data.queue UNION ALL SELECT FROM hawser_data.cancellations";
  await eventually("nothing is left", async () => (await client.query(left)).rows.length === 0);
});
