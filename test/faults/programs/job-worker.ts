/**
 * A worker in a process of its own, whose handler writes what it has handled in its transaction, and returns the number of that row.
 * A message whose id ends with "endless" is handled until it is cancelled. Arguments: its name. The database is that of HAWSER_DATABASE_URL.
 */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "../../../src/jobs-and-peers/peer/index.js";

const worker = new Worker({
  name: process.argv[2]!,
  stopOnSignals: true,
  concurrency: 4,
  defaults: { takeoverMs: 1_000, retry: { attempts: 1_000, delayMs: 1 } },
});
await worker.handle("jobs", { transactional: true }, async (message) => {
  const { client, signal } = message;
  const id = message.text();
  const { rows } = await client.query("INSERT INTO done (consumer, id) VALUES ('jobs', $1) RETURNING nth::float8", [
    id,
  ]);
  message.progress("begun");
  if (id.endsWith("endless")) {
    await once(signal, "abort");
    throw signal.reason;
  }
  await delay(50 * Math.random());
  return rows[0]!.nth;
});
await worker.start();
process.stdout.write("running\n");
await worker.closed;
