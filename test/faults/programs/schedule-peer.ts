/**
 * A peer in a process of its own, one of a group, that runs schedules if it relays, and notes their messages in a transaction.
 * Arguments: its name. The database is that of HAWSER_DATABASE_URL.
 */
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
process.stdout.write("running\n");
