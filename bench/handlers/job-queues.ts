/**
 * The job queues of TypeScript, as their documentation recommends them for throughput.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { requireBaseline } from "../baselines.js";
import {
  type BossJob,
  bossSessionOf,
  type GraphileHelpers,
  type GraphileRunner,
  type PgBoss,
  queue,
  startedBoss,
  startedGraphile,
  stopBoss,
} from "../offline/job-queues.js";
import { ways } from "../outbox/ways.js";
import { BenchFailure } from "../suite.js";
import { concurrency, effectOf, insertEffect, inTransaction, type Jobs, type Library } from "./system.js";

/** Jobs that each of the loops of pg-boss by hand fetches at a time. */
export const bossBatch = 50;

/** Poll interval of pg-boss for jobs without a notification: the minimum that pg-boss accepts. */
const pollingIntervalSeconds = 0.5;

/** Time limit for pg-boss to count the waiting jobs. */
const announceTimeoutMs = 10_000;

interface Argument {
  readonly text: string;
}

/**
 * pg-boss: `work` with `transactional` and a job at a time, which fetches on without a pause while its count of what waits
 * says so; by hand, `work` with batches, whose handler takes one job after the other, each in a transaction of its own in which it
 * completes the job. New jobs are told by NOTIFY.
 */
export const pgBoss: Library = {
  async openEnqueuing(databaseUrl) {
    const boss = await startedBoss(databaseUrl, { max: 1, monitorIntervalSeconds: 1 });
    await boss.createQueue(queue, { notify: true });
    const jobs: Jobs = {
      one: (client, text) => boss.send(queue, { text }, bossSessionOf(client)),
      many: (client, texts) =>
        boss.insert(
          queue,
          texts.map((text) => ({ data: { text } })),
          bossSessionOf(client),
        ),
    };
    return {
      to: () => jobs,
      announce: (count) => countReady(boss, count),
      clear: () => boss.deleteAllJobs(queue),
      close: () => stopBoss(boss),
    };
  },

  async openWorking(databaseUrl) {
    let boss: PgBoss | undefined;
    // Used by the variants that complete jobs themselves.
    let pool: pg.Pool | undefined;
    const polling = { localConcurrency: concurrency, pollingIntervalSeconds };
    return {
      async start({ way }) {
        const running = (boss = await startedBoss(databaseUrl, { max: concurrency + 1, useListenNotify: true }));
        if (way === "pg-boss") {
          const options = { ...polling, transactional: true, burstWhenReadyExceeds: 1 };
          await running.work(queue, options, async ([job], transaction) => {
            await transaction.executeSql(insertEffect, effectOf((job as BossJob<Argument>).data.text));
          });
        } else {
          const own = (pool = new pg.Pool({ connectionString: databaseUrl, max: concurrency }));
          own.on("error", (error) => console.error(error));
          const options = { ...polling, batchSize: bossBatch, burstWhenBatchFull: true };
          await running.work(queue, options, async (jobs) => {
            for (const job of jobs as BossJob<Argument>[]) await handleBossJob(running, own, job);
          });
        }
      },
      async rest() {
        if (boss !== undefined) await stopBoss(boss);
        await pool?.end();
        boss = pool = undefined;
      },
    };
  },
};

/** Completes the job that was fetched, and no other attempt of it, in the transaction of its effect. */
async function handleBossJob(boss: PgBoss, pool: pg.Pool, job: BossJob<Argument>): Promise<void> {
  const client = await pool.connect();
  try {
    await inTransaction(client, async () => {
      await client.query(insertEffect, effectOf(job.data.text));
      const { affected } = await boss.complete(queue, job, undefined, bossSessionOf(client));
      if (affected !== 1) throw new Error(`job ${job.id} is not this worker's any more`);
    });
  } finally {
    client.release();
  }
}

/** Has pg-boss count what waits, as its supervisor does once a minute: workers that start read that. */
async function countReady(boss: PgBoss, jobs: number): Promise<void> {
  const giveUpAt = performance.now() + announceTimeoutMs;
  while (((await boss.getQueue(queue))?.readyCount ?? 0) < jobs) {
    if (performance.now() > giveUpAt) throw new BenchFailure(`pg-boss does not count the ${jobs} jobs that wait`);
    await boss.supervise(queue);
    await delay(100);
  }
}

/**
 * graphile-worker: `run` with a `localQueue`, and completions in batches, so in a transaction of their own; by hand, the handler
 * deletes the job's row in the transaction of its effect, which is no documented way.
 */
export const graphileWorker: Library = {
  async openEnqueuing(databaseUrl) {
    const jobs = await ways["graphile-worker"](databaseUrl);
    return { to: () => jobs, close: () => jobs.close() };
  },

  async openWorking(databaseUrl) {
    let runner: GraphileRunner | undefined;
    const inTwoTransactions = async ({ text }: Argument, { query }: GraphileHelpers): Promise<void> => {
      await query(insertEffect, effectOf(text));
    };
    const byHand = ({ text }: Argument, { job, withPgClient }: GraphileHelpers): Promise<void> =>
      withPgClient((client) =>
        inTransaction(client, async () => {
          await client.query(insertEffect, effectOf(text));
          const { rowCount } = await client.query("DELETE FROM graphile_worker._private_jobs WHERE id = $1", [job.id]);
          if (rowCount !== 1) throw new Error(`job ${job.id} is not there any more`);
        }),
      );
    return {
      async start({ way }) {
        const task = way === "graphile-worker" ? inTwoTransactions : byHand;
        // Beside the handlers, one connection fetches and one completes.
        runner = await startedGraphile(databaseUrl, task, { concurrency, maxPoolSize: concurrency + 2 });
      },
      async rest() {
        await runner?.stop();
        runner = undefined;
      },
    };
  },
};

/** The part of BullMQ that is used here. */
interface BullMq {
  readonly createPostgresBackend: object;
  readonly Queue: new (name: string, options: object, backend: object) => BullQueue;
  readonly Worker: new (
    name: string,
    processor: (job: { readonly data: Argument }) => Promise<void>,
    options: object,
    backend: object,
  ) => BullPart;
}

interface BullPart {
  on(event: "error", listener: (error: Error) => void): void;
  waitUntilReady(): Promise<unknown>;
  close(): Promise<void>;
}

interface BullQueue extends BullPart {
  add(name: string, data: Argument): Promise<unknown>;
  addBulk(jobs: readonly { readonly name: string; readonly data: Argument }[]): Promise<unknown>;
}

/** BullMQ on Postgres: a worker, which completes a job and fetches the next one with one statement after the handler. */
export const bullMq: Library = {
  async openEnqueuing(databaseUrl) {
    const { Queue, createPostgresBackend } = requireBaseline<BullMq>("bullmq");
    const connection = { connectionString: databaseUrl, migrate: true };
    const enqueuing = new Queue(
      queue,
      { connection, defaultJobOptions: { removeOnComplete: true } },
      createPostgresBackend,
    );
    enqueuing.on("error", (error) => console.error(error));
    await enqueuing.waitUntilReady();
    // It writes by a pool of its own.
    const jobs: Jobs = {
      one: (_, text) => enqueuing.add(queue, { text }),
      many: (_, texts) => enqueuing.addBulk(texts.map((text) => ({ name: queue, data: { text } }))),
    };
    return { to: () => jobs, close: () => enqueuing.close() };
  },

  async openWorking(databaseUrl) {
    const { Worker, createPostgresBackend } = requireBaseline<BullMq>("bullmq");
    let worker: BullPart | undefined;
    let pool: pg.Pool | undefined;
    return {
      async start() {
        const own = (pool = new pg.Pool({ connectionString: databaseUrl, max: concurrency }));
        own.on("error", (error) => console.error(error));
        const handle = async ({ data }: { readonly data: Argument }): Promise<void> => {
          await own.query(insertEffect, effectOf(data.text));
        };
        const connection = { connectionString: databaseUrl, max: concurrency };
        worker = new Worker(queue, handle, { connection, concurrency }, createPostgresBackend);
        worker.on("error", (error) => console.error(error));
        await worker.waitUntilReady();
      },
      async rest() {
        await worker?.close();
        await pool?.end();
        worker = pool = undefined;
      },
    };
  },
};
