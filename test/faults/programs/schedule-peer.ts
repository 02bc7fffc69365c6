/**
 * A peer in a process of its own, one of a group, that notes the messages of schedules in a transaction. It runs schedules all the
 * time, and not only while it relays. Arguments: its name. The database is that of HAWSER_DATABASE_URL.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { schedulerFunctions } from "../../../generated/ts/rows/outbox.js";
import { runDueSchedules } from "../../../src/outbox/schedules.js";
import { Peer } from "../../../src/peer/index.js";

const peer = new Peer({
  name: process.argv[2]!,
  topic: "scheduled",
  listen: "127.0.0.1:0",
  group: true,
  groupTakeoverMs: 1_000,
  transactional: true,
  maxAttempts: 1_000,
  nameWaitMs: 60_000,
});
await peer.run(async ({ client, headers }) => {
  const header = (name: string): string | undefined => headers.find(([each]) => each === name)?.[1];
  await client.query("INSERT INTO ran (name, time) VALUES ($1, $2)", [
    header("schedule-name"),
    header("schedule-time"),
  ]);
});
const client = new pg.Client({ connectionString: process.env["HAWSER_DATABASE_URL"] });
await client.connect();
const functions = schedulerFunctions({
  query: async ({ text, values }) => await client.query(text, values as unknown[]),
});
process.stdout.write("running\n");
for (;;) await delay(Math.min(await runDueSchedules(functions, () => false), 100));
