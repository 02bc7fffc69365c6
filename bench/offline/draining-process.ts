/**
 * The program of a process that starts handling when messages wait: one system each.
 */
import { serveRequests } from "../serve-requests.js";
import { drainByGraphileWorker } from "./graphile-worker.js";
import { drainByHawser } from "./hawser.js";
import { drainByPgBoss } from "./pg-boss.js";
import type { Draining, Opening, SystemName } from "./queue-user.js";

const systems: Readonly<Record<SystemName, (databaseUrl: string) => Promise<Draining>>> = {
  hawser: drainByHawser,
  "pg-boss": drainByPgBoss,
  "graphile-worker": drainByGraphileWorker,
};

let draining: Draining | undefined;

const requests = {
  /** Prepares, without handling anything. */
  async open({ system, databaseUrl }: Opening): Promise<void> {
    draining = await systems[system](databaseUrl);
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

/** What a draining process can be asked. */
export type DrainingRequests = typeof requests;

serveRequests(requests, async () => await draining?.close());
