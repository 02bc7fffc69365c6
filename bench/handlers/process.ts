/**
 * The program of a process that enqueues jobs, or of one whose worker handles them: of one library.
 */
import type pg from "pg";
import type { Latencies } from "../paced.js";
import { connected } from "../postgres.js";
import { serveRequests } from "../worker.js";
import { Effects, type JobNumbers, type WarmPace } from "./effects.js";
import { type Enqueuing, type Library, type LibraryName, type Running, textOf, type Working } from "./system.js";

// Each library is imported on demand, as pg-boss and graphile-worker need a newer Node.
const libraries: Readonly<Record<LibraryName, () => Promise<Library>>> = {
  Hawser: async () => (await import("./hawser.js")).hawser,
  "Hawser with history": async () => (await import("./hawser.js")).hawserWithHistory,
  "pg-boss": async () => (await import("./job-queues.js")).pgBoss,
  "graphile-worker": async () => (await import("./job-queues.js")).graphileWorker,
  BullMQ: async () => (await import("./job-queues.js")).bullMq,
};

/** Sessions that enqueue at a steady pace. */
const sessions = 8;

/** Jobs of one transaction of a backlog. */
const jobsOfTransaction = 1_000;

/** Library and database of a process. */
interface Opening {
  readonly library: LibraryName;
  readonly databaseUrl: string;
}

const clients: pg.Client[] = [];
let enqueuing: Enqueuing | undefined;
let effects: Effects | undefined;
let working: Working | undefined;

const requests = {
  async openEnqueuing({ library, databaseUrl }: Opening): Promise<void> {
    for (let number = 0; number < sessions; number++) clients.push(await connected(databaseUrl));
    effects = await Effects.open(databaseUrl);
    enqueuing = await (await libraries[library]()).openEnqueuing(databaseUrl);
  },
  async openWorking({ library, databaseUrl, number }: Opening & { readonly number: number }): Promise<void> {
    working = await (await libraries[library]()).openWorking(databaseUrl, number);
  },

  /** Commits jobs for workers that do not run, of so many processes. */
  async enqueue({ first, count, processes }: JobNumbers & Pick<Running, "processes">): Promise<void> {
    const jobs = enqueuing!.to(processes);
    for (let from = first; from < first + count; from += jobsOfTransaction) {
      const length = Math.min(first + count - from, jobsOfTransaction);
      await jobs.many(
        clients[0]!,
        Array.from({ length }, (_, index) => textOf(from + index)),
      );
    }
    await enqueuing!.announce?.(count);
  },
  /** Enqueues jobs for a worker that runs, at a steady pace, each in a transaction of its own. */
  measureLatencies({ first, ...pace }: WarmPace & Pick<JobNumbers, "first">): Promise<Latencies> {
    const jobs = enqueuing!.to(1);
    return effects!.latencies(pace, first, sessions, (job, session) => jobs.one(clients[session]!, textOf(job)));
  },
  async clear(): Promise<void> {
    await enqueuing!.clear?.();
  },

  /** Starts the worker. */
  async start(running: Running): Promise<void> {
    await working!.start(running);
  },
  async rest(): Promise<void> {
    await working!.rest();
  },
};

/** Requests that a process of this suite answers. */
export type HandlingRequests = typeof requests;

serveRequests(requests, async () => {
  await working?.rest();
  await enqueuing?.close();
  await effects?.close();
  await Promise.all(clients.map((client) => client.end()));
});
