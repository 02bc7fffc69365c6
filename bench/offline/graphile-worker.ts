/**
 * graphile-worker: `add_jobs` with many jobs at once, and a runner with a task that does nothing.
 */
import { Logger, makeWorkerUtils, type Runner, run } from "graphile-worker";
import pg from "pg";
import type { Draining, Storing } from "./queue-user.js";

const task = "bench";

/** Jobs of one `add_jobs`. */
const batchSize = 5_000;

/** Of the numbers tried, 4 to 24, the fastest one. */
const concurrency = 8;

const logger = new Logger(() => () => undefined);

/** Its tables. */
export async function storeByGraphileWorker(databaseUrl: string): Promise<Storing> {
  const pool = new pg.Pool({ connectionString: databaseUrl });
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  await utils.migrate();
  return {
    async store(text, count) {
      const payload = JSON.stringify({ text });
      for (let left = count; left > 0; left -= batchSize) {
        const payloads = Array.from({ length: Math.min(left, batchSize) }, () => payload);
        await pool.query({
          name: "bench.add_jobs",
          text: `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
            SELECT json_populate_record(NULL::graphile_worker.job_spec, json_build_object('identifier', $2::text, 'payload', payload))
            FROM unnest($1::json[]) AS payload))`,
          values: [payloads, task],
        });
      }
    },
    async close() {
      await utils.release();
      await pool.end();
    },
  };
}

/** A runner that is started for each drain. */
export async function drainByGraphileWorker(databaseUrl: string): Promise<Draining> {
  let runner: Runner | undefined;
  const rest = async (): Promise<void> => {
    await runner?.stop();
    runner = undefined;
  };
  return {
    async drain(count) {
      let completed = 0;
      const all = new Promise<void>((resolve, reject) => {
        run({
          connectionString: databaseUrl,
          maxPoolSize: concurrency + 2,
          concurrency,
          noHandleSignals: true,
          taskList: { [task]: () => undefined },
          logger,
        }).then((started) => {
          runner = started;
          // Told when the job's row is deleted.
          started.events.on("job:complete", () => {
            completed += 1;
            if (completed === count) resolve();
          });
        }, reject);
      });
      await all;
    },
    rest,
    close: rest,
  };
}
