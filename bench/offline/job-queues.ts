/**
 * The job queues of TypeScript. They are no dependencies: `baselines.ts` says which versions are measured.
 */
import pg from "pg";
import { baselinePackage } from "../baselines.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import type { Draining, System } from "./system.js";

/** The queue of pg-boss, and the task of graphile-worker. */
export const queue = "bench";

/** Jobs of one insert, and of one fetch of pg-boss: of the sizes tried, 1,000 to 10,000, the fastest one. */
export const batchSize = 5_000;

/** Loops side by side of pg-boss, for storing and for draining. */
export const loops = 2;

const sideBySide = async (loop: () => Promise<void>): Promise<void> => {
  await Promise.all(Array.from({ length: loops }, loop));
};

/** The part of pg-boss that is used here. */
export interface PgBoss {
  on(event: "error", listener: (error: Error) => void): void;
  start(): Promise<unknown>;
  stop(options: { readonly graceful: boolean }): Promise<void>;
  createQueue(name: string, options?: { readonly notify: boolean }): Promise<void>;
  send(name: string, data: object, options: BossSession): Promise<unknown>;
  insert(name: string, jobs: readonly { readonly data: object }[], options?: BossSession): Promise<unknown>;
  fetch(name: string, options: { readonly batchSize: number }): Promise<BossJob[]>;
  work(
    name: string,
    options: object,
    handler: (jobs: BossJob[], session: BossDatabase) => Promise<void>,
  ): Promise<unknown>;
  complete(
    name: string,
    jobs: readonly string[] | BossJob,
    output?: object,
    options?: BossSession,
  ): Promise<{ readonly affected?: number }>;
  supervise(name: string): Promise<void>;
  getQueue(name: string): Promise<{ readonly readyCount: number } | null>;
  deleteAllJobs(name: string): Promise<void>;
}

/** A job as pg-boss hands it out. */
export interface BossJob<Data = unknown> {
  readonly id: string;
  readonly data: Data;
}

/** Adapter through which pg-boss executes a statement. */
interface BossDatabase {
  executeSql(text: string, values: unknown[]): Promise<unknown>;
}

/** The option with which a call runs in the user's transaction. */
interface BossSession {
  readonly db: BossDatabase;
}

/** Starts an instance. @param options more of its own, such as `max`, the connections of its pool */
export async function startedBoss(databaseUrl: string, options: object = {}): Promise<PgBoss> {
  const module = (await import(baselinePackage("pg-boss"))) as { PgBoss: new (options: object) => PgBoss };
  // Its maintenance and cron, which are not measured, would only disturb.
  const boss = new module.PgBoss({ connectionString: databaseUrl, schedule: false, supervise: false, ...options });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

/** Makes pg-boss run its statements in the transaction of that client. */
export function bossSessionOf(client: pg.ClientBase): BossSession {
  return { db: { executeSql: (text, values) => client.query(text, values) } };
}

export const stopBoss = (boss: PgBoss): Promise<void> => boss.stop({ graceful: false });

/**
 * pg-boss: `insert` of many jobs at once; then `fetch` of many and `complete` of all of them, over and over, by an
 * instance that is started for each drain. `work` does the same, but waits half a second or more between two fetches.
 */
export const pgBoss: System = {
  async openStoring(databaseUrl) {
    const boss = await startedBoss(databaseUrl);
    await boss.createQueue(queue);
    return {
      async store(text, count) {
        let left = count;
        await sideBySide(async () => {
          while (left > 0) {
            const now = Math.min(left, batchSize);
            left -= now;
            await boss.insert(
              queue,
              Array.from({ length: now }, () => ({ data: { text } })),
            );
          }
        });
      },
      close: () => stopBoss(boss),
    };
  },
  openDraining: (databaseUrl) =>
    drainingBoss(databaseUrl, async (boss, count) => {
      let handled = 0;
      await sideBySide(async () => {
        for (;;) {
          const jobs = await boss.fetch(queue, { batchSize });
          if (jobs.length === 0) return;
          await boss.complete(
            queue,
            jobs.map(({ id }) => id),
          );
          handled += jobs.length;
        }
      });
      if (handled !== count) throw new BenchFailure(`pg-boss: ${handled} of ${count} jobs were handled`);
    }),
};

/** pg-boss: the same, but `work` takes and completes the jobs. */
export const workedPgBoss: System = {
  openStoring: pgBoss.openStoring,
  openDraining: (databaseUrl) =>
    drainingBoss(databaseUrl, async (boss, count) => {
      const client = await connected(databaseUrl);
      let handled = 0;
      await new Promise<void>((resolve, reject) => {
        const options = { batchSize, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true };
        const handle = (jobs: readonly BossJob[]): Promise<void> => {
          handled += jobs.length;
          if (handled === count) resolve();
          return Promise.resolve();
        };
        for (let loop = 0; loop < loops; loop++) boss.work(queue, options, handle).catch(reject);
      });
      const left = "SELECT FROM pgboss.job WHERE name = $1 AND state < 'completed' LIMIT 1";
      while ((await client.query(left, [queue])).rows.length > 0);
      await client.end();
    }),
};

/** @param drain handles and completes so many jobs by an instance that was started for it */
async function drainingBoss(
  databaseUrl: string,
  drain: (boss: PgBoss, count: number) => Promise<void>,
): Promise<Draining> {
  let boss: PgBoss | undefined;
  const close = async (): Promise<void> => {
    if (boss !== undefined) await stopBoss(boss);
    boss = undefined;
  };
  return {
    async drain(count) {
      boss = await startedBoss(databaseUrl);
      await drain(boss, count);
    },
    async rest() {
      // Completed jobs stay; pg-boss would remove them later.
      await boss?.deleteAllJobs(queue);
      await close();
    },
    close,
  };
}

/** Settings of graphile-worker: the fastest of those tried, 4 to 24 jobs at a time and 500 to 5,000 fetched. */
export const graphileSettings = { concurrency: 24, localQueueSize: 500 };

/** The part of graphile-worker that is used here. */
interface GraphileWorker {
  readonly Logger: new (factory: () => () => void) => object;
  makeWorkerUtils(options: object): Promise<{ migrate(): Promise<void>; release(): Promise<void> }>;
  run(options: object): Promise<GraphileRunner>;
}

/** A running worker of graphile-worker. */
export interface GraphileRunner {
  readonly events: { on(event: "job:complete", listener: () => void): void };
  stop(): Promise<void>;
}

/** Second argument of a graphile-worker task. */
export interface GraphileHelpers {
  readonly job: { readonly id: string };
  query(text: string, values: unknown[]): Promise<unknown>;
  withPgClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>;
}

const graphile = (): Promise<GraphileWorker> => import(baselinePackage("graphile-worker"));

/** Makes its tables. */
export async function migrateGraphile(databaseUrl: string): Promise<void> {
  const { Logger, makeWorkerUtils } = await graphile();
  const utils = await makeWorkerUtils({ connectionString: databaseUrl, logger: new Logger(() => () => undefined) });
  await utils.migrate();
  await utils.release();
}

/** Adds many jobs with one statement. */
export async function addGraphileJobs(client: pg.ClientBase | pg.Pool, payloads: readonly string[]): Promise<void> {
  await client.query({
    name: "bench.add_jobs",
    text: `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
      SELECT json_populate_record(NULL::graphile_worker.job_spec, json_build_object('identifier', $2::text, 'payload', payload))
      FROM unnest($1::json[]) AS payload))`,
    values: [payloads, queue],
  });
}

/** Starts a worker that fetches many jobs at a time and completes them in batches. */
export async function startedGraphile<Payload>(
  databaseUrl: string,
  task: (payload: Payload, helpers: GraphileHelpers) => unknown,
  { concurrency, maxPoolSize }: { readonly concurrency: number; readonly maxPoolSize: number },
): Promise<GraphileRunner> {
  const { Logger, run } = await graphile();
  return await run({
    noHandleSignals: true,
    taskList: { [queue]: task },
    logger: new Logger(() => () => undefined),
    preset: {
      worker: {
        connectionString: databaseUrl,
        maxPoolSize,
        concurrentJobs: concurrency,
        localQueue: { size: graphileSettings.localQueueSize },
        completeJobBatchDelay: 0,
      },
    },
  });
}

/** graphile-worker: `add_jobs` with many jobs at once, and a runner with a task that does nothing for each drain. */
export const graphileWorker: System = {
  async openStoring(databaseUrl) {
    await migrateGraphile(databaseUrl);
    const pool = new pg.Pool({ connectionString: databaseUrl });
    pool.on("error", (error) => console.error(error));
    return {
      async store(text, count) {
        const payload = JSON.stringify({ text });
        for (let left = count; left > 0; left -= batchSize) {
          await addGraphileJobs(
            pool,
            Array.from({ length: Math.min(left, batchSize) }, () => payload),
          );
        }
      },
      close: () => pool.end(),
    };
  },
  async openDraining(databaseUrl) {
    const client = await connected(databaseUrl);
    let runner: GraphileRunner | undefined;
    const stop = async (): Promise<void> => {
      await runner?.stop();
      runner = undefined;
    };
    return {
      async drain(count) {
        let completed = 0;
        const { concurrency } = graphileSettings;
        const all = new Promise<void>((resolve, reject) => {
          startedGraphile(databaseUrl, () => undefined, { concurrency, maxPoolSize: 10 }).then((started) => {
            runner = started;
            started.events.on("job:complete", () => {
              completed += 1;
              if (completed === count) resolve();
            });
          }, reject);
        });
        await all;
        // The event comes when a job is done; its row is deleted with those of others.
        await isEmpty(client, "graphile_worker._private_jobs");
      },
      rest: stop,
      async close() {
        await stop();
        await client.end();
      },
    };
  },
};

async function isEmpty(client: pg.Client, table: string): Promise<void> {
  while ((await client.query(`SELECT FROM ${table} LIMIT 1`)).rows.length > 0);
}
