/**
 * The program of a process that stores messages for a worker that is away, or of one that is the worker: of one system.
 */
import { serveRequests } from "../worker.js";
import type { Draining, Load, Opening, Storing, System, SystemName } from "./system.js";

// Imported on demand: pg-boss and graphile-worker need a newer Node, and memory of unused systems would count.
const systems: Readonly<Record<SystemName, () => Promise<System>>> = {
  Hawser: () => import("./hawser.js"),
  "Hawser jobs": () => import("./hawser-jobs.js"),
  "pg-boss": async () => (await import("./job-queues.js")).pgBoss,
  "pg-boss work": async () => (await import("./job-queues.js")).workedPgBoss,
  "graphile-worker": async () => (await import("./job-queues.js")).graphileWorker,
  pgmq: async () => (await import("./sql.js")).pgmq,
  sql: async () => (await import("./sql.js")).sqlLoop,
};

let storing: Storing | undefined;
let draining: Draining | undefined;

const requests = {
  async openStoring({ system, databaseUrl }: Opening): Promise<void> {
    storing = await (await systems[system]()).openStoring(databaseUrl);
  },
  async openDraining({ system, databaseUrl }: Opening): Promise<void> {
    draining = await (await systems[system]()).openDraining(databaseUrl);
  },
  /** @returns seconds */
  async store({ payloadBytes, messages }: Load): Promise<number> {
    const text = "x".repeat(payloadBytes);
    const began = performance.now();
    await storing!.store(text, messages);
    return (performance.now() - began) / 1000;
  },
  /** Starts, and handles what is stored. @returns seconds */
  async drain(messages: number): Promise<number> {
    const began = performance.now();
    await draining!.drain(messages);
    const seconds = (performance.now() - began) / 1000;
    await draining!.rest();
    return seconds;
  },
};

/** Requests that a process of this suite answers. */
export type SystemRequests = typeof requests;

serveRequests(requests, async () => {
  await storing?.close();
  await draining?.close();
});
