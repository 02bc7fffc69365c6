/**
 * The program of the publishing process: messages for NATS, and what the baselines do with the same payloads instead, one
 * transaction of a prepared statement each.
 */
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { percentileUs } from "../measure.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import { serveRequests, systemMs } from "../worker.js";
import { numberDigits, pingChannel, subjects } from "./subjects.js";

/** Number and size of messages to publish. */
export interface Load {
  readonly messages: number;
  readonly payloadBytes: number;
  /** So many subjects get them in turn: that of rows with a number behind it, from 0 on. Default: that of rows alone. */
  readonly over?: number;
}

/** Path of a ping from the publisher to its row. */
export type PingWay = "message" | "prepared transaction";

/** Percentiles in µs. */
export interface Latencies {
  readonly p50: number;
  readonly p99: number;
}

/** Published before the event loop has its turn, in which they are written to the socket. */
const windowMessages = 256;

/** Sessions of the baselines. */
const mostConnections = 8;

let nats: NatsConnection | undefined;
let listener: pg.Client | undefined;
let pings: PingClock | undefined;
const callers: pg.Client[] = [];

const requests = {
  /** Connects with everything. */
  async open({ databaseUrl, natsUrl }: { databaseUrl: string; natsUrl: string }): Promise<void> {
    nats = await connect({ servers: natsUrl });
    for (let number = 0; number < mostConnections; number++) callers.push(await connected(databaseUrl));
    listener = await connected(databaseUrl);
    pings = new PingClock();
    listener.on("notification", ({ payload }) => pings!.heard(Number(payload)));
    await listener.query(`LISTEN ${pingChannel}`);
  },
  /** Publishes, as fast as the server takes it. @returns when it began, in ms of the system's clock */
  async publish({ messages, payloadBytes, over }: Load): Promise<number> {
    const beganMs = systemMs();
    for (let number = 1; number <= messages; number++) {
      const subject = over === undefined ? subjects.row : `${subjects.row}.${number % over}`;
      nats!.publish(subject, numberedPayload(number, payloadBytes));
      if (number % windowMessages === 0) await setImmediate();
    }
    await nats!.flush();
    return beganMs;
  },
  /** Publishes a mark. What was published before arrives before it. */
  async mark(text: string): Promise<void> {
    nats!.publish(subjects.mark, text);
    await nats!.flush();
  },
  /** Inserts, each connection one row after another. @returns when it began, and ended, in ms of the system's clock */
  async insert({ messages, payloadBytes, connections }: Load & { connections: number }): Promise<[number, number]> {
    const beganMs = systemMs();
    let number = 0;
    await Promise.all(
      callers.slice(0, connections).map(async (client) => {
        while (number < messages) {
          number += 1;
          await client.query({
            name: "bench.insert",
            text: "INSERT INTO bench_rows (payload) VALUES ($1)",
            values: [numberedPayload(number, payloadBytes)],
          });
        }
      }),
    );
    return [beganMs, systemMs()];
  },
  /** Sends at a steady pace, and measures each until another session than the one that commits has heard of the row. */
  async ping({ way, times, everyMs, payloadBytes }: Pings): Promise<Latencies> {
    let before: Promise<unknown> = Promise.resolve();
    const latencies = await pings!.measure(times, everyMs, (number) => {
      const payload = numberedPayload(number, payloadBytes);
      if (way === "message") nats!.publish(subjects.ping, payload);
      else {
        const call = { name: "bench.ping", text: "SELECT bench_ping($1)", values: [payload] };
        before = before.then(() => callers[0]!.query(call));
        // Told at the end.
        before.catch(() => undefined);
      }
    });
    await before;
    return latencies;
  },
};

interface Pings {
  readonly way: PingWay;
  readonly times: number;
  readonly everyMs: number;
  readonly payloadBytes: number;
}

/** Requests that the process answers. */
export type PublishingRequests = typeof requests;

/** Time limit for the last pings to arrive. */
const timeoutMs = 30_000;

/** Measures how long single messages take that are sent at a steady pace, whether the one before has come or not. */
class PingClock {
  #sentAt = new Float64Array(0);
  #took = new Float64Array(0);
  #left = 0;
  #complete: () => void = () => undefined;

  /**
   * Sends numbers from 1 on.
   *
   * @throws BenchFailure if some do not come
   */
  async measure(times: number, everyMs: number, send: (number: number) => void): Promise<Latencies> {
    this.#sentAt = new Float64Array(times);
    this.#took = new Float64Array(times);
    this.#left = times;
    const all = new Promise<void>((resolve) => {
      this.#complete = resolve;
    });
    const began = performance.now();
    for (let index = 0; index < times; index++) {
      await delay(Math.max(0, began + index * everyMs - performance.now()));
      this.#sentAt[index] = performance.now();
      send(index + 1);
    }
    const timeout = new AbortController();
    await Promise.race([all, delay(timeoutMs, undefined, { signal: timeout.signal }).catch(() => undefined)]);
    timeout.abort();
    if (this.#left > 0) throw new BenchFailure(`${this.#left} of ${times} messages have not become rows`);
    const ascending = this.#took.sort();
    return { p50: percentileUs(ascending, 0.5), p99: percentileUs(ascending, 0.99) };
  }

  /** Records the arrival of a ping. */
  heard(number: number): void {
    this.#took[number - 1] = performance.now() - this.#sentAt[number - 1]!;
    this.#left -= 1;
    if (this.#left === 0) this.#complete();
  }
}

/** A new buffer for each message: one that waits to be sent must not change. */
function numberedPayload(number: number, bytes: number): Buffer {
  const payload = Buffer.alloc(bytes, "x");
  payload.write(String(number).padStart(numberDigits, "0"), "latin1");
  return payload;
}

serveRequests(requests, async () => {
  await Promise.all([nats?.close(), listener?.end(), ...callers.map((client) => client.end())]);
});
