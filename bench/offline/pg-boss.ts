/**
 * pg-boss: `insert` of many jobs at once; then `fetch` of many and `complete` of all of them, over and over. `work` does
 * the same, but waits half a second or more between two fetches.
 */
import PgBoss from "pg-boss";
import { BenchFailure } from "../bench-failure.js";
import type { Draining, Storing } from "./queue-user.js";

const queue = "bench";

/** Of the sizes tried, 1,000 to 10,000, the fastest one. */
const batchSize = 5_000;

/** Loops side by side, for storing and for draining. */
const loops = 2;

async function started(databaseUrl: string): Promise<PgBoss> {
  // Its maintenance and cron, which are not measured, would only disturb.
  const boss = new PgBoss({ connectionString: databaseUrl, schedule: false, supervise: false });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

const stopped = (boss: PgBoss): Promise<void> => boss.stop({ graceful: false, wait: true });

const sideBySide = async (loop: () => Promise<void>): Promise<void> => {
  await Promise.all(Array.from({ length: loops }, loop));
};

/** A started instance with a queue. */
export async function storeByPgBoss(databaseUrl: string): Promise<Storing> {
  const boss = await started(databaseUrl);
  await boss.createQueue(queue);
  return {
    async store(text, count) {
      let left = count;
      await sideBySide(async () => {
        while (left > 0) {
          const now = Math.min(left, batchSize);
          left -= now;
          await boss.insert(Array.from({ length: now }, () => ({ name: queue, data: { text } })));
        }
      });
    },
    close: () => stopped(boss),
  };
}

/** An instance that is started for each drain. */
export async function drainByPgBoss(databaseUrl: string): Promise<Draining> {
  let boss: PgBoss | undefined;
  const rest = async (): Promise<void> => {
    // Completed jobs stay; pg-boss would archive them later.
    await boss?.clearStorage();
    if (boss !== undefined) await stopped(boss);
    boss = undefined;
  };
  return {
    async drain(count) {
      const running = (boss = await started(databaseUrl));
      let handled = 0;
      await sideBySide(async () => {
        for (;;) {
          const jobs = await running.fetch(queue, { batchSize });
          if (jobs.length === 0) return;
          await running.complete(
            queue,
            jobs.map(({ id }) => id),
          );
          handled += jobs.length;
        }
      });
      if (handled !== count) throw new BenchFailure(`pg-boss: ${handled} of ${count} jobs were handled`);
    },
    rest,
    close: rest,
  };
}
