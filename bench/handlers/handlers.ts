/**
 * The suite `handlers`: jobs whose handlers write in the transaction that completes them.
 *
 * river is measured by a program that HAWSER_BENCH_RIVER names, as it is written in Go: the one of the suite `offline`. One of
 * them enqueues, and there is one for each process that handles. Each is started with the URL of the database as its only
 * argument, prepares its tables, and takes these orders too, one on each line of its standard input; it answers each with a
 * line, the seconds that it took, and ends with its input:
 *
 *     enqueue FIRST COUNT   insert COUNT jobs, with the numbers FIRST, FIRST + 1, …, until all are committed; one job by
 *                           InsertTx. The argument of each is a text of 100 bytes that begins with the number in 10 digits
 *     work CONCURRENCY      start a worker with so many handlers at a time. Each of them begins a transaction, in it inserts
 *                           the number into the column `job` of the table `bench_effects`, which is there, and calls
 *                           JobCompleteTx, and commits. It may fetch each ms. The answer comes when it has started
 *     rest                  stop the worker, and remove the completed jobs
 *
 * An order that cannot be carried out ends it, with a status that is not 0.
 */
import { baselineOf, LineProgram, missingNote, nodeFor, packages } from "../baselines.js";
import { orderOf } from "../measure.js";
import { graphileSettings } from "../offline/job-queues.js";
import type { Latencies } from "../paced.js";
import { execute } from "../postgres.js";
import { formatValue } from "../report.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Baseline, Measured, Suite, SuiteContext, SuiteOutcome, SuitePage, Target } from "../suite.js";
import { Worker } from "../worker.js";
import { Effects, type JobNumbers, type WarmPace } from "./effects.js";
import { bossBatch } from "./job-queues.js";
import type { HandlingRequests } from "./process.js";
import {
  concurrency,
  type LibraryName,
  libraryNames,
  libraryOf,
  payloadBytes,
  processCounts,
  type WayName,
} from "./system.js";

const full = {
  rounds: 5,
  counts: [2_000, 20_000],
  warmUp: 2_000,
  pace: { messages: 1_000, perSecond: 200, warmUp: 200 },
};
const quick = { rounds: 1, counts: [20, 40], warmUp: 20, pace: { messages: 20, perSecond: 200, warmUp: 4 } };

/** Names of results. */
const handled = "handled";
const commitToEffect = "commit to effect";

const river = "river";
const byHand = "graphile-worker by hand";
const inTwo = "graphile-worker";
const bull = "BullMQ";
const withHistory = "Hawser with history";

/** The contenders that complete jobs in another transaction than that of the handler. */
const completingLater: readonly string[] = [inTwo, bull];

/** Selects the jobs that are not done. */
const leftOf: Readonly<Record<LibraryName | typeof river, string>> = {
  Hawser: "SELECT FROM hawser_data.queue",
  [withHistory]: "SELECT FROM hawser_data.queue",
  "pg-boss": "SELECT FROM pgboss.job WHERE name = 'bench' AND state < 'completed'",
  "graphile-worker": "SELECT FROM graphile_worker._private_jobs",
  BullMQ: "SELECT FROM bullmq.job",
  river: "SELECT FROM river_job WHERE state <> 'completed'",
};

/** The target: jobs per second, as a multiple of each baseline's. A history costs at most a tenth. */
const fasterThan = { "pg-boss": 2, "pg-boss by hand": 2, [river]: 2, [byHand]: 1.3, [inTwo]: 0.85 };

const variantOf = (count: number, processes: number): string =>
  `${formatValue(count)} jobs, ${processes} ${processes === 1 ? "process" : "processes"}`;

/** A target of each variant of {@link handled}. */
function ofHandled(target: Pick<Target, "baseline" | "atLeast" | "atMost">): Target[] {
  return full.counts.flatMap((count) =>
    processCounts.map((processes) => ({
      ...{ name: handled, payloadBytes, variant: variantOf(count, processes) },
      ...target,
    })),
  );
}

const page: SuitePage = {
  title: "Handlers in transactions",
  text: `A job's handler writes one row, \`INSERT INTO … VALUES ($1)\`, in a transaction of its own; ${concurrency} handlers run at a time
in each process. A job's argument has ${payloadBytes} bytes.

**${handled}**: so many jobs wait; then the workers start, in one process or in two that share the jobs. The time is from their start
(the processes run already) until another session sees all rows, and for \`${inTwo}\` and \`${bull}\` until their jobs are
gone, too. Before the start there is a \`VACUUM ANALYZE\`.

**${commitToEffect}**: ${full.pace.perSecond} jobs a second are enqueued, each in a transaction of its own, over eight sessions, while a worker runs in one process.
The first ${full.pace.warmUp} are not counted, as the worker has just started. The time is from when the client has heard of the commit until it sees the row, for which it looks each millisecond.

- **Hawser**: messages without a key, \`enqueue\`d for a topic; a peer with \`transactional: true\`, \`concurrency: ${concurrency}\` and
  \`poolSize: ${concurrency + 1}\`, of two processes with \`group: true\`. Each handler has its own transaction, which deletes the message's row: effects happen exactly once.
- **${withHistory}**: the same, for a topic that keeps what became of its jobs (\`keep_results\`).
- **pg-boss ${packages["pg-boss"]}**: \`work\` with \`transactional: true\` and \`localConcurrency: ${concurrency}\`. With a job in each transaction it fetches
  one at a time; \`burstWhenReadyExceeds: 1\` lets it do so without a pause, and it has counted what waits before it starts. \`notify\` tells it of
  new jobs. Exactly once.
- **pg-boss by hand**: \`work\` with \`batchSize: ${bossBatch}\`, \`burstWhenBatchFull\` and as many loops; the handler takes the jobs of its batch one after
  the other, and calls \`complete\` in the transaction of each. Exactly once.
- **river**: a program in Go that may fetch every millisecond, \`JobCompleteTx\` in the handler's transaction. Exactly once.
- **${inTwo} ${packages[inTwo]}**: a \`localQueue\` of ${formatValue(graphileSettings.localQueueSize)}. The \`INSERT\` is a transaction of its own, the jobs are completed in another one,
  many at a time: **not exactly once**. What is handled when a process is killed is handled again.
- **${byHand}**: the same, but the handler deletes the job's row in its own transaction. Exactly once; the table is
  private to graphile-worker.
- **${bull} ${packages.bullmq}** on Postgres: a \`Worker\` with \`concurrency: ${concurrency}\`, and \`removeOnComplete\`. The \`INSERT\` is a transaction of
  its own; another one completes the job, and fetches the next: **not exactly once**. What is handled when a process is
  killed is handled again; a job to which that happens twice has failed. Jobs are enqueued by \`add\` and \`addBulk\`, which take no part in a transaction of the user.

The job queues of TypeScript run on Node 24 where Hawser runs on an older one than pg-boss and graphile-worker ask for.
pg-boss and river can also complete many jobs with one transaction, whose handlers then succeed or fail together. That is not compared here.`,
  charts: [
    { title: "Jobs handled", results: [handled] },
    { title: "Commit to effect", results: ["p50", "p99"].map((percentile) => `${commitToEffect}, ${percentile}`) },
  ],
};

/** The suite. */
export const handlers: Suite = {
  name: "handlers",
  summary: "jobs/s of handlers that write in their transaction, beside pg-boss, river, graphile-worker and BullMQ",
  seconds: 600,
  page,
  targets: [
    ...Object.entries(fasterThan).flatMap(([baseline, atLeast]): Target[] => [
      ...ofHandled({ baseline, atLeast }),
      { name: `${commitToEffect}, p99`, payloadBytes, baseline, atMost: 1 },
    ]),
    ...ofHandled({ baseline: withHistory, atMost: 1 / 0.9 }),
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

/** A library, or river, whose processes run. */
interface Runtime {
  /** Commits jobs for workers that do not run. */
  enqueue(jobs: JobNumbers, processes: number): Promise<unknown>;
  /** Starts the worker in so many processes. */
  start(way: string, processes: number): Promise<unknown>;
  /** Stops them, and removes what is left of jobs that are done. */
  rest(): Promise<unknown>;
  /** Enqueues at a steady pace, while a worker runs. */
  latencies(pace: WarmPace, first: number): Promise<Latencies>;
  stop(): Promise<unknown>;
}

/** A way of handling jobs. */
interface Contender {
  readonly name: string;
  readonly runtime: Runtime;
  readonly left: string;
}

async function measure(context: SuiteContext, { databaseUrl }: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say, quick: isQuick, endBy } = context;
  const { counts, warmUp, pace, ...more } = isQuick ? quick : full;
  const rounds = context.rounds(more.rounds);
  const effects = await Effects.open(databaseUrl);
  const running: Runtime[] = [];
  try {
    say("Starting the processes of each library");
    const contenders = await startContenders(context, databaseUrl, effects, running);
    const run = runsOf(context, databaseUrl, effects);
    for (const contender of contenders) {
      say(`Warming up ${contender.name}`);
      for (const processes of processCounts) await run.backlog(contender, warmUp, processes);
    }
    const cases = counts.flatMap((count) => processCounts.map((processes) => ({ count, processes })));
    const rates = new Map(cases.map((each) => [each, samplesOf<number>(contenders)]));
    const latencies = samplesOf<Latencies>(contenders);
    // The first round always runs; further rounds stop at `endBy`, as they take too long on a slow machine.
    for (let round = 0; round < rounds && (round === 0 || performance.now() < endBy); round++) {
      say(`Measuring, round ${round + 1} of ${rounds}`);
      for (const each of orderOf(cases, round)) {
        for (const contender of orderOf(contenders, round)) {
          const seconds = await run.backlog(contender, each.count, each.processes);
          rates
            .get(each)!
            .get(contender.name)!
            .push(each.count / seconds);
        }
      }
      for (const contender of orderOf(contenders, round)) {
        latencies.get(contender.name)!.push(await run.latencies(contender, pace));
      }
    }
    const results = [
      ...cases.map(
        (each): Measured => ({
          name: handled,
          payloadBytes,
          variant: variantOf(each.count, each.processes),
          unit: "jobs/s",
          better: "higher",
          ...besides(rates.get(each)!, (rate) => rate),
        }),
      ),
      ...(["p50", "p99"] as const).map(
        (percentile): Measured => ({
          name: `${commitToEffect}, ${percentile}`,
          payloadBytes,
          unit: "µs",
          better: "lower",
          ...besides(latencies, (each) => each[percentile]),
        }),
      ),
    ];
    const notes = [`${inTwo} and ${bull} complete jobs in a second transaction: what they do is not exactly once`];
    if (baselineOf("HAWSER_BENCH_RIVER") === undefined) notes.push(missingNote(river, "HAWSER_BENCH_RIVER"));
    return { results, notes };
  } finally {
    await Promise.all(running.map((runtime) => runtime.stop()));
    await effects.close();
  }
}

function samplesOf<T>(contenders: readonly Contender[]): Map<string, T[]> {
  return new Map(contenders.map(({ name }) => [name, []]));
}

function besides<T>(
  samples: ReadonlyMap<string, readonly T[]>,
  ofSample: (sample: T) => number,
): { samples: number[]; baselines: Baseline[] } {
  const [first, ...others] = [...samples].map(([name, each]) => ({ name, samples: each.map(ofSample) }));
  return { samples: first!.samples, baselines: others };
}

/** Runs of each contender. Job numbers are unique across all runs. */
function runsOf({ signal }: SuiteContext, databaseUrl: string, effects: Effects) {
  let next = 0;
  const numbers = (count: number): JobNumbers => {
    signal.throwIfAborted();
    next += count;
    return { first: next - count, count };
  };
  const end = async ({ runtime, left }: Contender, jobs: JobNumbers): Promise<void> => {
    await effects.untilNone(left);
    await runtime.rest();
    await effects.clear(jobs);
  };
  return {
    /** Jobs that wait are handled. @returns seconds */
    async backlog(contender: Contender, count: number, processes: number): Promise<number> {
      const { name, runtime, left } = contender;
      const jobs = numbers(count);
      await runtime.enqueue(jobs, processes);
      await execute(databaseUrl, "VACUUM ANALYZE");
      const began = performance.now();
      const started = runtime.start(name, processes);
      await Promise.all([started, effects.reach(count)]);
      if (completingLater.includes(name)) await effects.untilNone(left);
      const seconds = (performance.now() - began) / 1000;
      await end(contender, jobs);
      return seconds;
    },
    async latencies(contender: Contender, pace: WarmPace): Promise<Latencies> {
      const { name, runtime } = contender;
      const jobs = numbers(1 + pace.warmUp + pace.messages);
      // The worker has begun to work when the first job is done.
      await runtime.enqueue({ ...jobs, count: 1 }, 1);
      await runtime.start(name, 1);
      await effects.reach(1);
      const latencies = await runtime.latencies(pace, jobs.first + 1);
      await end(contender, jobs);
      return latencies;
    },
  };
}

/** Starts all processes. @param running gets those that have been started, also if others fail to */
async function startContenders(
  context: SuiteContext,
  databaseUrl: string,
  effects: Effects,
  running: Runtime[],
): Promise<Contender[]> {
  const runtimes = new Map<LibraryName, Runtime>();
  for (const library of libraryNames) {
    const runtime = await startLibrary(context, databaseUrl, library);
    runtimes.set(library, runtime);
    running.push(runtime);
  }
  const contenders = (Object.keys(libraryOf) as WayName[]).map((name): Contender => {
    const library = libraryOf[name];
    return { name, runtime: runtimes.get(library)!, left: leftOf[library] };
  });
  const program = baselineOf("HAWSER_BENCH_RIVER");
  if (program === undefined) return contenders;
  const runtime = await startRiver(program, databaseUrl, effects);
  running.push(runtime);
  return [...contenders, { name: river, runtime, left: leftOf[river] }];
}

async function startLibrary(context: SuiteContext, databaseUrl: string, library: LibraryName): Promise<Runtime> {
  const { source, signal } = context;
  const options = { source, signal, node: nodeFor(library) };
  const start = (role: string): Worker<HandlingRequests> =>
    Worker.start<HandlingRequests>(`${library} ${role}`, new URL("./process.ts", import.meta.url), options);
  const enqueuing = start("enqueuing");
  const working = Array.from({ length: Math.max(...processCounts) }, (_, index) => start(`working ${index + 1}`));
  const stop = (): Promise<unknown> => Promise.all([enqueuing, ...working].map((worker) => worker.stop()));
  try {
    // In sequence, as the first worker creates the tables.
    await enqueuing.request("openEnqueuing", { library, databaseUrl });
    for (const [index, worker] of working.entries()) {
      await worker.request("openWorking", { library, databaseUrl, number: index + 1 });
    }
  } catch (error) {
    await stop();
    throw error;
  }
  let started: Worker<HandlingRequests>[] = [];
  return {
    enqueue: (jobs, processes) => enqueuing.request("enqueue", { ...jobs, processes }),
    start(way, processes) {
      started = working.slice(0, processes);
      return Promise.all(started.map((worker) => worker.request("start", { way: way as WayName, processes })));
    },
    async rest() {
      await Promise.all(started.map((worker) => worker.request("rest", undefined)));
      await enqueuing.request("clear", undefined);
    },
    latencies: (pace, first) => enqueuing.request("measureLatencies", { ...pace, first }),
    stop,
  };
}

async function startRiver(path: string, databaseUrl: string, effects: Effects): Promise<Runtime> {
  const start = (role: string): LineProgram => LineProgram.start(`${river} ${role}`, path, [databaseUrl]);
  const enqueuing = start("enqueuing");
  const enqueue = ({ first, count }: JobNumbers): Promise<number> => enqueuing.order(`enqueue ${first} ${count}`);
  // The answer implies that the program has created its tables.
  await enqueue({ first: 0, count: 0 });
  const working = Array.from({ length: Math.max(...processCounts) }, (_, index) => start(`working ${index + 1}`));
  let started: LineProgram[] = [];
  return {
    enqueue,
    start(_, processes) {
      started = working.slice(0, processes);
      return Promise.all(started.map((program) => program.order(`work ${concurrency}`)));
    },
    rest: () => Promise.all(started.map((program) => program.order("rest"))),
    // A single session: the program takes one order at a time.
    latencies: (pace, first) => effects.latencies(pace, first, 1, (job) => enqueue({ first: job, count: 1 })),
    stop: () => Promise.all([enqueuing, ...working].map((program) => program.stop())),
  };
}
