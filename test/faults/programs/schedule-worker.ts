/**
 * A worker in a process of its own that notes the messages of schedules in a transaction. It runs schedules all the
 * time, and not only while it relays. Arguments: its name. The database is that of HAWSER_DATABASE_URL.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { schedulerFunctions } from "../../../generated/ts/rows/queue.js";
import { Worker } from "../../../src/jobs-and-peers/peer/index.js";
import { runDueSchedules } from "../../../src/jobs-and-peers/queue/schedules/schedules.js";

const worker = new Worker({
  name: process.argv[2]!,
  defaults: { takeoverMs: 1_000, retry: { attempts: 1_000 } },
});
await worker.handle("scheduled", { transactional: true }, async ({ client, headers }) => {
  const values = [headers.get("schedule-name"), headers.get("schedule-time")];
  const sql =
    "INSERT INTO done (consumer, id) SELECT 'scheduled', $1::text || ' ' || extract(epoch FROM $2::timestamptz)";
  await client.query(sql, values);
});
await worker.start();
const client = new pg.Client({ connectionString: process.env["HAWSER_DATABASE_URL"] });
await client.connect();
const functions = schedulerFunctions({
  query: async ({ text, values }) => await client.query(text, values as unknown[]),
});
process.stdout.write("running\n");
for (;;) await delay(Math.min(await runDueSchedules(functions, () => false), 100));
