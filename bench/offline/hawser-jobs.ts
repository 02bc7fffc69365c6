/**
 * Hawser's jobs: `enqueueBatch`, and a worker that is started for each drain. The handler has no transaction.
 */
import pg from "pg";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import { measuredModule } from "../worker.js";
import { batchSize, loops, queue } from "./job-queues.js";
import type { Draining, Storing } from "./system.js";

const measured = await measuredModule<typeof import("../../src/jobs-and-peers/peer/index.js")>(
  "src/jobs-and-peers/peer/index.ts",
);

export async function openStoring(databaseUrl: string): Promise<Storing> {
  // A worker that starts makes the tables.
  const worker = new measured.Worker({ databaseUrl });
  await worker.start();
  await worker.stop();
  const pool = new pg.Pool({ connectionString: databaseUrl, max: loops });
  return {
    async store(text, count) {
      const payload = Buffer.from(text);
      let left = count;
      const loop = async (): Promise<void> => {
        while (left > 0) {
          const now = Math.min(left, batchSize);
          left -= now;
          await measured.enqueueBatch(pool, queue, new Array<Uint8Array>(now).fill(payload));
        }
      };
      await Promise.all(Array.from({ length: loops }, loop));
    },
    close: () => pool.end(),
  };
}

export async function openDraining(databaseUrl: string): Promise<Draining> {
  const client = await connected(databaseUrl);
  let worker: InstanceType<typeof measured.Worker> | undefined;
  const stop = async (): Promise<void> => {
    await worker?.stop();
    worker = undefined;
  };
  return {
    async drain(count) {
      let handled = 0;
      worker = new measured.Worker({ databaseUrl });
      await new Promise<void>((resolve, reject) => {
        const start = async (): Promise<void> => {
          await worker!.handle(queue, () => {
            handled += 1;
            if (handled === count) resolve();
          });
          await worker!.start();
        };
        start().catch(reject);
      });
      const isLeft = async () => (await client.query("SELECT FROM hawser_data.queue LIMIT 1")).rows.length > 0;
      while (await isLeft());
      if (handled !== count) throw new BenchFailure(`Hawser: ${handled} jobs were handled, not ${count}`);
    },
    rest: stop,
    async close() {
      await stop();
      await client.end();
    },
  };
}
