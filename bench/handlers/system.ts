/**
 * Interface of a system under test whose handlers write a row for each job.
 */
import type pg from "pg";
import type { Way } from "../outbox/ways.js";

/** The libraries whose enqueuing and working processes are ours. */
export const libraryNames = ["Hawser", "Hawser with history", "pg-boss", "graphile-worker", "BullMQ"] as const;
export type LibraryName = (typeof libraryNames)[number];

/** The ways of handling, each with its library. Ours is the first one. */
export const libraryOf = {
  Hawser: "Hawser",
  "Hawser with history": "Hawser with history",
  "pg-boss": "pg-boss",
  "pg-boss by hand": "pg-boss",
  "graphile-worker": "graphile-worker",
  "graphile-worker by hand": "graphile-worker",
  BullMQ: "BullMQ",
} as const satisfies Record<string, LibraryName>;
export type WayName = keyof typeof libraryOf;

/** Handlers of one process that run at a time. */
export const concurrency = 16;

/** Numbers of processes that share the jobs. */
export const processCounts = [1, 2];

/** Length of a job's argument, which begins with the job's number. */
export const payloadBytes = 100;
const numberDigits = 10;

/** The argument of a job. */
export function textOf(job: number): string {
  return String(job).padStart(numberDigits, "0").padEnd(payloadBytes, "x");
}

/** The effect of a job, and its only one: the statement of its handler. */
export const insertEffect = "INSERT INTO bench_effects (job) VALUES ($1)";

/** Parameters of {@link insertEffect} for the job with this argument. */
export function effectOf(text: string): [job: number] {
  return [Number(text.slice(0, numberDigits))];
}

/** The module of a library. */
export interface Library {
  /** Prepares the tables, and the side that enqueues. */
  openEnqueuing(databaseUrl: string): Promise<Enqueuing>;
  /** Prepares a process whose worker does not run yet. The other side has been opened. @param number of the process, from 1 on */
  openWorking(databaseUrl: string, number: number): Promise<Working>;
}

/** Writes jobs with these arguments, in the transaction that the client is in, or in one of their own. */
export type Jobs = Pick<Way, "one" | "many">;

/** The side that enqueues. */
export interface Enqueuing {
  /** Jobs for the workers of so many processes. */
  to(processes: number): Jobs;
  /** Makes the backlog known to workers that start, where they would otherwise learn of it later. */
  announce?(jobs: number): Promise<void>;
  /** Removes what jobs that are done have left. */
  clear?(): Promise<void>;
  close(): Promise<void>;
}

/** A process that handles. */
export interface Working {
  /** Starts a worker with {@link concurrency} handlers at a time. */
  start(running: Running): Promise<void>;
  /** Stops it. */
  rest(): Promise<void>;
}

/** Variant and number of processes of a run. */
export interface Running {
  readonly way: WayName;
  /** The processes that share the jobs. */
  readonly processes: number;
}

/** Runs `work` in a transaction of its own. */
export async function inTransaction(client: pg.ClientBase, work: () => Promise<void>): Promise<void> {
  await client.query("BEGIN");
  try {
    await work();
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}
