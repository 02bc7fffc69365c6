/**
 * A listener and a sender in processes of their own, between which a load goes.
 */
import { BenchFailure, type SuiteContext } from "../suite.js";
import { Worker } from "../worker.js";
import type { GrowthRequests, Load, Opening } from "./process.js";

/** Time that the listener waits for the remaining messages after the last send. */
const arrivalTimeoutMs = 20_000;

/** Cost of one message in µs: elapsed time, and CPU time of both processes. */
export interface MessageCost {
  readonly time: number;
  readonly cpu: number;
}

/** A sender and a listener. */
export class Pair {
  readonly #listening: Worker<GrowthRequests>;
  readonly #sending: Worker<GrowthRequests>;

  readonly #opening: Opening;

  private constructor(opening: Opening, listening: Worker<GrowthRequests>, sending: Worker<GrowthRequests>) {
    this.#opening = opening;
    this.#listening = listening;
    this.#sending = sending;
  }

  /** Starts them; all topics are live then. */
  static async start(databaseUrl: string, topics: readonly string[], { source, signal }: SuiteContext): Promise<Pair> {
    const start = (name: string) =>
      Worker.start<GrowthRequests>(name, new URL("./process.ts", import.meta.url), { source, signal });
    const opening = { databaseUrl, name: "bench-listener", topics };
    const pair = new Pair(opening, start("listening"), start("sending"));
    try {
      await pair.#listening.request("listen", opening);
      await pair.#sending.request("connect", { ...opening, name: "bench-sender" });
      return pair;
    } catch (error) {
      await pair.stop();
      throw error;
    }
  }

  /** Sends a load. @throws BenchFailure if not all of it arrives */
  async send(load: Load): Promise<MessageCost> {
    const { messages } = load;
    await this.#listening.request("expect", messages);
    const sent = await this.#sending.request("send", load);
    const arrived = await this.#listening.request("arrived", arrivalTimeoutMs);
    if (arrived.completeMs === undefined)
      throw new BenchFailure(`${arrived.messages} of ${messages} messages have arrived`);
    return {
      time: ((Math.max(arrived.completeMs, sent.doneMs) - sent.beganMs) * 1000) / messages,
      cpu: ((arrived.cpuSeconds + sent.cpuSeconds) * 1e6) / messages,
    };
  }

  /** Waits while nothing is sent. @returns CPU time of both processes, in ms per second */
  async rest(ms: number): Promise<number> {
    const both = await Promise.all([this.#listening.request("rest", ms), this.#sending.request("rest", ms)]);
    return (both.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0) * 1e6) / ms;
  }

  /** The listener goes. */
  async leaveSenderAlone(): Promise<void> {
    await this.#listening.request("pause", undefined);
  }

  /** Sends a load while the listener is away. @returns the time for each message, in µs */
  async store(load: Load): Promise<number> {
    const { beganMs, doneMs, stored } = await this.#sending.request("send", load);
    if (stored !== load.messages) throw new BenchFailure(`${stored} of ${load.messages} messages were stored`);
    return ((doneMs - beganMs) * 1000) / load.messages;
  }

  /** The listener comes back, and handles what was stored for it. @returns how long its start took, in ms */
  async restart(stored: number): Promise<number> {
    await this.#listening.request("expect", stored);
    const listenMs = await this.#listening.request("listen", this.#opening);
    const { completeMs, messages } = await this.#listening.request("arrived", arrivalTimeoutMs);
    if (completeMs === undefined) throw new BenchFailure(`${messages} of ${stored} stored messages have arrived`);
    // Not counted: what it takes until the channel is live again.
    await this.#listening.request("expect", Number.MAX_SAFE_INTEGER);
    await this.#sending.request("live", undefined);
    return listenMs;
  }

  /** Ends both processes, the sender first: it has something to tell the listener. */
  async stop(): Promise<void> {
    await this.#sending.stop();
    await this.#listening.stop();
  }
}
