/**
 * The program of a process that runs what `hawser serve` runs, and says what it uses.
 */
import type { HawserServer } from "../src/nats/serve/index.js";
import { cpuSecondsSince, measuredModule, serveRequests } from "./worker.js";

const measured = await measuredModule<typeof import("../src/nats/serve/index.js")>("src/nats/serve/index.ts");

/** Resource usage of the process while it was watched. */
export interface Usage {
  readonly cpuSeconds: number;
  readonly seconds: number;
  /** The most that was seen, in bytes. */
  readonly rss: number;
}

const lookEveryMs = 50;

let serve: HawserServer | undefined;
let watched: { began: number; cpu: NodeJS.CpuUsage; rss: number; timer: NodeJS.Timeout } | undefined;

const requests = {
  /** Starts answering the functions of a database, and running those that are subscribed. */
  async open(options: { readonly databaseUrl: string; readonly bufferBytes?: number }): Promise<void> {
    const { databaseUrl, bufferBytes } = options;
    serve = await measured.serve({ databaseUrl, listen: "127.0.0.1:0", bufferBytes });
  },
  /** Begins to watch what it uses. */
  watch(): void {
    clearInterval(watched?.timer);
    const look = (): void => {
      watched!.rss = Math.max(watched!.rss, process.memoryUsage.rss());
    };
    watched = { began: performance.now(), cpu: process.cpuUsage(), rss: 0, timer: setInterval(look, lookEveryMs) };
    look();
  },
  /** Since the last `watch`. */
  usage(): Usage {
    const { began, cpu, rss, timer } = watched!;
    clearInterval(timer);
    return { cpuSeconds: cpuSecondsSince(cpu), seconds: (performance.now() - began) / 1000, rss };
  },
};

/** Requests that the process answers. */
export type ServeRequests = typeof requests;

serveRequests(requests, async () => serve?.stop());
