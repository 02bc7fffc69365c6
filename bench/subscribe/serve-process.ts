/**
 * The program of the bridge: what `hawser serve` runs, in a process of its own, and what it uses.
 */
import { Serve } from "../../src/serve/index.js";
import { serveRequests } from "../serve-requests.js";

/** What the process has used while it was watched. */
export interface Usage {
  readonly cpuSeconds: number;
  readonly seconds: number;
  /** The most that was seen, in bytes. */
  readonly rss: number;
}

const lookEveryMs = 50;

/** For a load of 100,000 messages of 1 KiB, all of them waiting. */
const bufferBytes = 256 << 20;

let serve: Serve | undefined;
let watched: { began: number; cpu: NodeJS.CpuUsage; rss: number; timer: NodeJS.Timeout } | undefined;

const requests = {
  /** Starts running the functions of a database. */
  async open(databaseUrl: string): Promise<void> {
    serve = await Serve.start({ databaseUrl, gatewayListen: "127.0.0.1:0", bufferBytes });
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
    const { user, system } = process.cpuUsage(cpu);
    return { cpuSeconds: (user + system) / 1e6, seconds: (performance.now() - began) / 1000, rss };
  },
};

/** What the process answers. */
export type ServeRequests = typeof requests;

serveRequests(requests, async () => serve?.stop());
