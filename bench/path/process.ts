/**
 * The program of the process that sends and of the one that listens, each of which counts its own calls, CPU and garbage.
 */
import { randomFillSync } from "node:crypto";
import { Session } from "node:inspector/promises";
import { setTimeout as delay } from "node:timers/promises";
import { GCProfiler, setFlagsFromString } from "node:v8";
import { newPeer, sendUntilDelivered } from "../peers.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import { cpuSecondsSince, measuredFolder, measuredModule, serveRequests } from "../worker.js";

const measured = await measuredModule<typeof import("../../src/jobs-and-peers/queue/enqueue/index.js")>(
  "src/jobs-and-peers/queue/enqueue/index.ts",
);

const listeningPeer = "bench-path-listening";
const jobTopic = "bench-path-jobs";
/** Time between two jobs, so that each is taken alone. */
const jobEveryMs = 10;
const modules = /^(?:src|generated)\//;

/** Calls of each function by file, name and offset, such as `src/jobs-and-peers/channel/fifo.js push 1204`. */
export type Calls = Readonly<Record<string, number>>;

/** Resources that a process has used since the request `watch`. */
export interface Used {
  readonly cpuSeconds: number;
  /** Allocated on the heap of V8. */
  readonly garbageBytes: number;
}

const session = new Session();
let peer: ReturnType<typeof newPeer> | undefined;
let client: Awaited<ReturnType<typeof connected>> | undefined;
let watched:
  | { readonly cpu: NodeJS.CpuUsage; readonly heapBytes: number; readonly collections: GCProfiler }
  | undefined;

const requests = {
  async listen({ databaseUrl }: { databaseUrl: string }): Promise<void> {
    peer = newPeer(listeningPeer, databaseUrl);
    await peer.handle(peer.topic, () => undefined);
    await peer.start();
  },
  async connect({ databaseUrl }: { databaseUrl: string }): Promise<void> {
    peer = newPeer("bench-path-sending", databaseUrl);
    await peer.start();
    await sendUntilDelivered(peer, listeningPeer);
  },
  /** Sends at least once, so many messages at a time. @returns how long it took, in ms */
  async send(load: { payloadBytes: number; messages: number; atATime: number }): Promise<number> {
    const payload = randomFillSync(new Uint8Array(load.payloadBytes));
    const began = performance.now();
    for (let left = load.messages; left > 0; left -= load.atATime) {
      const sends = Array.from({ length: Math.min(left, load.atATime) }, () => peer!.send(listeningPeer, payload));
      for (const { outcome } of await Promise.all(sends)) {
        if (outcome !== "delivered") throw new BenchFailure(`a message was ${outcome}, not delivered`);
      }
    }
    return performance.now() - began;
  },
  async handleJobs(): Promise<void> {
    await peer!.handle(jobTopic, { transactional: true }, () => undefined);
  },
  /** Enqueues jobs, one after another, and waits until all have ended. @returns how long it took, in ms */
  async enqueue({ databaseUrl, jobs }: { databaseUrl: string; jobs: number }): Promise<number> {
    client ??= await connected(databaseUrl);
    const began = performance.now();
    for (let left = jobs; left > 0; left--) {
      await measured.enqueue(client, jobTopic, { left });
      await delay(jobEveryMs);
    }
    const waiting = "SELECT FROM hawser_data.queue LIMIT 1";
    while ((await client.query(waiting)).rowCount !== 0) await delay(jobEveryMs);
    return performance.now() - began;
  },
  /** Begins to watch what the process uses. */
  watch(): void {
    const collections = new GCProfiler();
    collections.start();
    watched = { cpu: process.cpuUsage(), heapBytes: process.memoryUsage().heapUsed, collections };
  },
  used(): Used {
    const { cpu, heapBytes, collections } = watched!;
    const cpuSeconds = cpuSecondsSince(cpu);
    let garbageBytes = process.memoryUsage().heapUsed - heapBytes;
    // Each collection has taken some of what was allocated.
    for (const { beforeGC, afterGC } of collections.stop()!.statistics) {
      garbageBytes += beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize;
    }
    return { cpuSeconds, garbageBytes };
  },
  /** Begins to count calls, before code is hot: V8 does not count those of optimized and inlined functions. */
  async count(): Promise<void> {
    setFlagsFromString("--no-opt");
    session.connect();
    await session.post("Profiler.enable");
    await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  },
  /** Calls of Hawser's functions since the last time. */
  async calls(): Promise<Calls> {
    const { result } = await session.post("Profiler.takePreciseCoverage");
    const calls: Record<string, number> = {};
    const folder = measuredFolder();
    for (const { url, functions } of result) {
      const file = url.startsWith(folder) ? url.slice(folder.length) : "";
      if (!modules.test(file)) continue;
      for (const { functionName, ranges } of functions) {
        const [{ count, startOffset } = undefined!] = ranges;
        // The first function of a file is its module.
        if (count > 0 && startOffset > 0) calls[`${file} ${functionName} ${startOffset}`] = count;
      }
    }
    return calls;
  },
  idle: async (ms: number): Promise<void> => delay(ms),
};

/** Requests of both processes. */
export type PathRequests = typeof requests;

serveRequests(requests, async () => {
  session.disconnect();
  await client?.end();
  await peer?.stop();
});
