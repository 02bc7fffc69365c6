/**
 * The program of a process that stores: one system each.
 */
import { serveRequests } from "../serve-requests.js";
import { storeByGraphileWorker } from "./graphile-worker.js";
import { storeByHawser } from "./hawser.js";
import { storeByPgBoss } from "./pg-boss.js";
import type { Load, Opening, Storing, SystemName } from "./queue-user.js";

const systems: Readonly<Record<SystemName, (databaseUrl: string) => Promise<Storing>>> = {
  hawser: storeByHawser,
  "pg-boss": storeByPgBoss,
  "graphile-worker": storeByGraphileWorker,
};

let storing: Storing | undefined;

const requests = {
  /** Connects. */
  async open({ system, databaseUrl }: Opening): Promise<void> {
    storing = await systems[system](databaseUrl);
  },
  /** Stores a load. @returns seconds */
  async store({ payloadBytes, messages }: Load): Promise<number> {
    const text = "x".repeat(payloadBytes);
    const began = performance.now();
    await storing!.store(text, messages);
    return (performance.now() - began) / 1000;
  },
};

/** What a storing process can be asked. */
export type StoringRequests = typeof requests;

serveRequests(requests, async () => await storing?.close());
