/**
 * The suites `jobs`, `offline` and `backlog`: jobs, or messages for a worker that is away, and then the worker starts.
 *
 * river is measured by a program that HAWSER_BENCH_RIVER names, as it is written in Go. It is started with the URL of the
 * database as its only argument, prepares its tables, and takes orders, one on each line of its standard input; it answers
 * each with a line, the seconds that it took, and ends with its input:
 *
 *     store BYTES COUNT   store COUNT jobs with a text of BYTES bytes, until all are committed
 *     drain COUNT         start a worker, which may fetch each ms, and handle COUNT jobs until they are completed in the
 *                         database; stop it, and remove the completed jobs, which is not in the time
 *
 * An order that cannot be carried out in full ends it, with a status that is not 0.
 */
import { baselineOf, LineProgram, missingNote, nodeFor, packages } from "../baselines.js";
import { orderOf } from "../measure.js";
import { execute } from "../postgres.js";
import { formatBytes, formatValue } from "../report.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import { batchSize, graphileSettings } from "./job-queues.js";
import type { SystemRequests } from "./process.js";
import { pgmqBatch } from "./sql.js";
import type { Load, SystemName } from "./system.js";

const offlineFull = { messages: 100_000, warmUp: 5_000, rounds: 5, payloadSizes: [100, 1024] };
const offlineQuick = { messages: 500, warmUp: 100, rounds: 1, payloadSizes: [100] };

const ours = "Hawser";
const ourJobs = "Hawser jobs";
const workedBoss = "pg-boss work";

const jobsPage: SuitePage = {
  title: "Jobs without a transaction",
  text: `100,000 jobs of 100 B and 1 KiB are enqueued, then a worker starts. **store** is the time until all of them are committed;
**drain** is from the start of the worker (in a process that runs already) until all are handled, by a handler that does
nothing, and that is committed; **total** is the sum. Servers, phases and baselines are those of the next section, and:

- **${ourJobs}**: \`enqueueBatch\` of ${formatValue(batchSize)}, two side by side; then a \`Worker\` with default settings.
- **${workedBoss}**: \`insert\` in the same way; then \`work\` with a \`batchSize\` of ${formatValue(batchSize)}, \`burstWhenBatchFull\`, and two loops.

pg-boss by itself and pgmq take and complete ${formatValue(batchSize)} and ${formatValue(pgmqBatch)} jobs as one: they succeed or fail together. A worker of
Hawser, graphile-worker or river handles, retries and ends each job by itself.`,
  charts: [
    { title: "Jobs stored and handled", results: ["total"], scale: "logarithmic" },
    { title: "Drain of jobs", results: ["drain"], scale: "logarithmic" },
  ],
};

/** The suite of jobs. */
export const jobs: Suite = {
  name: "jobs",
  summary: "seconds to enqueue and drain 100,000 jobs, beside pg-boss, graphile-worker, river and pgmq",
  seconds: 360,
  page: jobsPage,
  targets: [
    { name: "drain", payloadBytes: 100, baseline: "pg-boss", atMost: 1 / 2 },
    { name: "drain", payloadBytes: 100, baseline: workedBoss, atMost: 1 / 4 },
    ...["graphile-worker", "river"].map((baseline) => ({
      ...{ name: "drain", payloadBytes: 100, baseline, atMost: 1 / 1.5 },
    })),
    ...["pg-boss", "graphile-worker", "river"].map((baseline) => ({
      ...{ name: "store", payloadBytes: 100, baseline, atMost: 1 / 1.5 },
    })),
  ],
  run: (context) =>
    withServers(context, (servers) =>
      measureStored(context, servers, [ourJobs, "pg-boss", workedBoss, "graphile-worker"]),
    ),
};

const offlinePage: SuitePage = {
  title: "Store and drain 100,000 messages",
  text: `The listener is away, 100,000 messages are stored, then it starts. **store** is the time until all of them are
committed; **drain** is from the start of the listener (in a process that runs already) until all are handled, by a
handler that does nothing, and that is committed; **total** is the sum. All use the same Postgres; before each phase there
is a \`VACUUM ANALYZE\`, which autovacuum would do in the meantime. What can be set is set to the fastest of several values
that were tried.

- **Hawser**: \`peer.send\`, 8,192 sends under way, every receipt looked at; then a peer that handles their topic, with default
  settings. Messages of a sender are handled in order.
- **pg-boss ${packages["pg-boss"]}**: \`insert\` of ${formatValue(batchSize)} jobs at a time; then \`fetch\` of as many and \`complete\` of all of
  them, both in two loops side by side. Its own \`work\` does the same, but waits half a second or more between two fetches.
  Maintenance and cron are off.
- **graphile-worker ${packages["graphile-worker"]}**: \`add_jobs\` of ${formatValue(batchSize)} at a time; then \`run\` with ${graphileSettings.concurrency} jobs at a time,
  a \`localQueue\` of ${formatValue(graphileSettings.localQueueSize)}, and completions in batches.
- **river**, a program in Go: \`InsertManyFast\` of 5,000 at a time, two side by side; then a client with 2,000 workers that
  may fetch every millisecond. Maintenance is off.
- **pgmq**, its SQL alone, by node-postgres on one connection: \`send_batch\` of ${formatValue(pgmqBatch)}; then \`read\` of as many and \`delete\` of
  all of them, one after the other. It has no workers, no retries and no dead letters: that is left to its caller.

pg-boss and graphile-worker run on Node 24 where the others run on an older one than they ask for. The job queues store
jobs, which have priorities and delays and which many workers share. Hawser stores sends here, in order and packed, for one
listener; its own jobs are compared in \`jobs\` and \`handlers\`.`,
  charts: [
    { title: "Store and drain 100,000 messages", results: ["total"], scale: "logarithmic" },
    { title: "Store", results: ["store"] },
    { title: "Drain", results: ["drain"], scale: "logarithmic" },
  ],
};

/** The suite of the systems that do this. */
export const offline: Suite = {
  name: "offline",
  summary: "seconds to store and drain 100,000 messages, beside pg-boss, graphile-worker, river and pgmq",
  seconds: 300,
  page: offlinePage,
  targets: [
    { name: "total", payloadBytes: 100, baseline: "pgmq", atMost: 1 / 2 },
    ...["pg-boss", "graphile-worker", "river"].map((baseline) => ({
      name: "total",
      payloadBytes: 100,
      baseline,
      atMost: 1 / 5,
    })),
  ],
  run: (context) =>
    withServers(context, (servers) => measureStored(context, servers, [ours, "pg-boss", "graphile-worker"])),
};

const backlogFull = { sizes: [10_000, 100_000, 1_000_000], rounds: 3 };
const backlogQuick = { sizes: [200, 2_000], rounds: 1 };
const backlogBytes = 100;
const backlogSystems = [ours, "sql"] as const;

const backlogPage: SuitePage = {
  title: "A great backlog",
  text: `So many messages of 100 bytes are in the store, of one sender; then the listener starts. The time is from its start
until all are handled, by a handler that does nothing, their rows deleted, and that is committed.

- \`sql\` is what one would write by hand: one connection that reads 1,024 rows in their order, handles them, and deletes
  them in a second statement, over and over. It needs neither a lease nor a check who may delete.`,
  charts: [{ title: "Draining a backlog", results: ["drain"] }],
};

/** The suite of how the drain depends on how much waits. */
export const backlog: Suite = {
  name: "backlog",
  summary: "messages/s drained with 10,000 to 1,000,000 waiting, beside a loop of two SQL statements",
  seconds: 120,
  page: backlogPage,
  targets: [],
  run: (context) => withServers(context, (servers) => measureBacklog(context, servers)),
};

/** A system that is ready. Both methods resolve with seconds. */
interface Running {
  store(load: Load): Promise<number>;
  drain(messages: number): Promise<number>;
  stop(): Promise<void>;
}

interface Took {
  readonly store: number;
  readonly drain: number;
}

/** @param measured the system that is compared with the others, and they */
async function measureStored(
  context: SuiteContext,
  servers: BenchServers,
  measured: readonly [SystemName, ...SystemName[]],
): Promise<Omit<SuiteOutcome, "servers">> {
  const { messages, warmUp, rounds, payloadSizes } = context.quick ? offlineQuick : offlineFull;
  const river = baselineOf("HAWSER_BENCH_RIVER");
  const withPgmq = baselineOf("HAWSER_BENCH_PGMQ_SQL") !== undefined;
  const [first] = measured;
  const modules: SystemName[] = [...measured, ...(withPgmq ? ["pgmq" as const] : [])];
  const programs = new Map(river === undefined ? [] : [["river", river]]);
  return await withSystems(context, servers, modules, programs, async (run, systems) => {
    for (const system of systems) await run(system, { payloadBytes: 100, messages: warmUp });
    const results: Measured[] = [];
    for (const [index, payloadBytes] of payloadSizes.entries()) {
      const took = new Map<string, Took[]>(systems.map((system) => [system, []]));
      const endBy = performance.now() + (context.endBy - performance.now()) / (payloadSizes.length - index);
      const count = context.rounds(rounds);
      // The first round always runs; further rounds stop at `endBy`, as they take too long on a slow machine.
      for (let round = 0; round < count && (round === 0 || performance.now() < endBy); round++) {
        context.say(`Measuring ${formatBytes(payloadBytes)}, round ${round + 1} of ${count}`);
        for (const system of orderOf(systems, round)) {
          took.get(system)!.push(await run(system, { payloadBytes, messages }));
        }
      }
      const baselines = systems.filter((system) => system !== first);
      const result = (name: string, secondsOf: (took: Took) => number): Measured => ({
        name,
        payloadBytes,
        unit: "s",
        better: "lower",
        samples: took.get(first)!.map(secondsOf),
        baselines: baselines.map((system) => ({ name: system, samples: took.get(system)!.map(secondsOf) })),
      });
      results.push(
        result("store", ({ store }) => store),
        result("drain", ({ drain }) => drain),
        result("total", ({ store, drain }) => store + drain),
      );
    }
    const notes = [`each time ${formatValue(messages)} messages`];
    if (!withPgmq) notes.push(missingNote("pgmq", "HAWSER_BENCH_PGMQ_SQL"));
    if (river === undefined) notes.push(missingNote("river", "HAWSER_BENCH_RIVER"));
    return { results, notes };
  });
}

async function measureBacklog(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { sizes, rounds } = context.quick ? backlogQuick : backlogFull;
  return await withSystems(context, servers, backlogSystems, new Map(), async (run, systems) => {
    const rate = async (system: string, messages: number): Promise<number> =>
      messages / (await run(system, { payloadBytes: backlogBytes, messages })).drain;
    for (const system of systems) await rate(system, sizes[0]!);
    const rates = new Map(sizes.map((size) => [size, new Map<string, number[]>(systems.map((name) => [name, []]))]));
    const count = context.rounds(rounds);
    for (let round = 0; round < count; round++) {
      for (const size of orderOf(sizes, round)) {
        context.say(`Measuring ${formatValue(size)} messages, round ${round + 1} of ${count}`);
        for (const system of orderOf(systems, round))
          rates
            .get(size)!
            .get(system)!
            .push(await rate(system, size));
      }
    }
    const results = sizes.map((size) => ({
      name: "drain",
      payloadBytes: backlogBytes,
      variant: `${formatValue(size)} messages`,
      unit: "messages/s",
      better: "higher" as const,
      samples: rates.get(size)!.get(ours)!,
      baselines: [{ name: "sql", samples: rates.get(size)!.get("sql")! }],
    }));
    return { results, notes: [] };
  });
}

/** Starts the systems, and gives a function that stores and drains a load by one of them. */
async function withSystems<T>(
  context: SuiteContext,
  { databaseUrl }: BenchServers,
  modules: readonly SystemName[],
  programs: ReadonlyMap<string, string>,
  measure: (run: (system: string, load: Load) => Promise<Took>, systems: readonly string[]) => Promise<T>,
): Promise<T> {
  context.say("Starting the processes of each system");
  const running = new Map<string, Running>();
  try {
    for (const system of modules) running.set(system, await openModule(system, databaseUrl, context));
    for (const [name, program] of programs) running.set(name, openProgram(name, program, databaseUrl));
    const vacuum = async (): Promise<void> => {
      context.signal.throwIfAborted();
      await execute(databaseUrl, "VACUUM ANALYZE");
    };
    const run = async (system: string, load: Load): Promise<Took> => {
      const { store, drain } = running.get(system)!;
      await vacuum();
      const stored = await store(load);
      await vacuum();
      return { store: stored, drain: await drain(load.messages) };
    };
    return await measure(run, [...running.keys()]);
  } finally {
    await Promise.all([...running.values()].map((system) => system.stop()));
  }
}

/** Two processes: one that stores, and one that handles. */
export async function openModule(system: SystemName, databaseUrl: string, context: SuiteContext): Promise<Running> {
  const { source, signal } = context;
  const options = { source, signal, node: nodeFor(system) };
  const program = new URL("./process.ts", import.meta.url);
  const storing = Worker.start<SystemRequests>(`storing ${system}`, program, options);
  const draining = Worker.start<SystemRequests>(`draining ${system}`, program, options);
  const stop = async (): Promise<void> => {
    await Promise.all([storing.stop(), draining.stop()]);
  };
  try {
    // In sequence, as the first worker creates the tables.
    await storing.request("openStoring", { system, databaseUrl });
    await draining.request("openDraining", { system, databaseUrl });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    store: (load) => storing.request("store", load),
    drain: (messages) => draining.request("drain", messages),
    stop,
  };
}

function openProgram(name: string, path: string, databaseUrl: string): Running {
  const program = LineProgram.start(name, path, [databaseUrl]);
  return {
    store: ({ payloadBytes, messages }) => program.order(`store ${payloadBytes} ${messages}`),
    drain: (messages) => program.order(`drain ${messages}`),
    stop: () => program.stop(),
  };
}
