/**
 * Schedules: what the functions refuse, what a schedule's occurrences become, and that each is enqueued once.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { scheduleFunctions } from "../../generated/ts/rows/outbox.js";
import { runDueSchedules } from "../../src/outbox/schedules.js";
import { schedule, unschedule } from "../../src/peer/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let client: pg.Client;
const clients: pg.Client[] = [];

beforeAll(async () => {
  database = await testDatabase({ nats: true });
  client = await connected();
});
beforeEach(async () => {
  await client.query("TRUNCATE hawser.outbox, hawser.schedules");
});
afterAll(async () => {
  for (const one of clients) await one.end();
  await database?.drop();
});

async function connected(): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: database.url });
  await one.connect();
  clients.push(one);
  return one;
}

const run = (on = client) =>
  runDueSchedules(
    scheduleFunctions({ query: async ({ text, values }) => await on.query(text, values as unknown[]) }),
    () => false,
  );

it("works", async () => {
  await schedule(client, "nightly", { cron: "* * * * * *", to: "reports", missed: "all" });
  await client.query("UPDATE hawser.schedules SET since = since - interval '5 s'");
  console.log(await run());
  console.log((await client.query("SELECT destination, convert_from(payload,'UTF8'), headers, role, slot FROM hawser.outbox")).rows);
  console.log((await client.query("SELECT * FROM hawser.schedule_status")).rows);
  console.log(await unschedule(client, "nightly"), await unschedule(client, "nightly"));
  await schedule(client, "n", { cron: "* * * * * *", to: { subject: "a.b", stream: true, domain: "x" }, missed: "all" });
  await client.query("UPDATE hawser.schedules SET since = since - interval '5 s'");
  console.log(await run());
  console.log((await client.query("SELECT destination, convert_from(payload,'UTF8'), headers, role, slot,message_id FROM hawser.outbox")).rows);
  await client.query("SELECT hawser.schedule('x','60 * * * *','t','p')");
  await client.query("SELECT hawser.schedule('y','0 0 30 2 *','t','{}'::jsonb, 'EST5EDT')");
  console.log(await run());
  console.log((await client.query("SELECT * FROM hawser.schedule_status")).rows);
  await expect(schedule(client, "x", { cron: "60 * * * *", to: "a" })).rejects.toThrow("bla");
});
