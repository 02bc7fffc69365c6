/**
 * A worker in a process of its own, whose handlers of `t` never end. It says which resources it has open when it begins the first
 * message. The database is that of HAWSER_DATABASE_URL.
 */
import { Worker } from "../../../src/jobs-and-peers/peer/index.js";

const worker = new Worker({ name: "held", concurrency: 2, stopOnSignals: true });
await worker.handle("t", { takeoverMs: 1_000 }, async () => {
  console.log(JSON.stringify(process.getActiveResourcesInfo()));
  await new Promise(() => undefined);
});
await worker.start();
await worker.closed;
