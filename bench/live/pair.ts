/**
 * The two processes between which messages go, and one load at a time from the one to the other.
 */
import type { BenchServers } from "../servers.js";
import { BenchFailure, type SuiteContext } from "../suite.js";
import { Worker } from "../worker.js";
import type { Load, PairRequests } from "./process.js";
import type { WayName } from "./ways.js";

/** Time that the receiver waits for the remaining messages after the last send. */
const arrivalTimeoutMs = 10_000;

/** Result of one load. */
export interface LoadDone {
  /** Time from the first send until all messages have arrived and all promises have settled. */
  readonly seconds: number;
  /** At-least-once messages that were confirmed as stored rather than delivered. */
  readonly stored: number;
}

/** Sender and receiver, connected by some ways. */
export class ProcessPair {
  readonly #sender: Worker<PairRequests>;
  readonly #receiver: Worker<PairRequests>;

  private constructor(sender: Worker<PairRequests>, receiver: Worker<PairRequests>) {
    this.#sender = sender;
    this.#receiver = receiver;
  }

  /** Starts the processes, or one that is sender and receiver. Nothing is left behind when it fails. */
  static async start(
    context: SuiteContext,
    servers: BenchServers,
    ways: readonly WayName[],
    processes: 1 | 2 = 2,
  ): Promise<ProcessPair> {
    const start = (name: string) =>
      Worker.start<PairRequests>(name, new URL("./process.ts", import.meta.url), {
        source: context.source,
      });
    const receiver = start("receiving");
    const sender = processes === 1 ? receiver : start("sending");
    const pair = new ProcessPair(sender, receiver);
    const opening = { ...servers, ways, pair: String(processes) };
    try {
      const tcpPort = await receiver.request("receive", opening);
      await sender.request("connect", { ...opening, tcpPort });
      return pair;
    } catch (error) {
      await pair.stop();
      throw error;
    }
  }

  /** Sends a load. @throws BenchFailure with the numbers if not every message arrives */
  async send(load: Load): Promise<LoadDone> {
    const { way, payloadBytes, messages } = load;
    await this.#receiver.request("expect", messages);
    const { beganMs, doneMs = beganMs, stored = 0, kept } = await this.#sender.request("send", load);
    if (kept !== undefined) {
      if (kept !== messages) throw new BenchFailure(`${way}: ${kept} of ${messages} messages are in the stream`);
      return { seconds: (doneMs - beganMs) / 1000, stored };
    }
    const arrived = await this.#receiver.request("arrived", arrivalTimeoutMs);
    const bytes = messages * payloadBytes;
    if (arrived.completeMs === undefined || arrived.bytes !== bytes) {
      throw new BenchFailure(
        `${way}, ${payloadBytes} B: ${arrived.messages} of ${messages} messages (${arrived.bytes} of ${bytes} bytes) ` +
          `have arrived ${arrivalTimeoutMs / 1000} s after the last was sent`,
      );
    }
    return { seconds: (Math.max(arrived.completeMs, doneMs) - beganMs) / 1000, stored };
  }

  /** @throws BenchFailure if more has arrived than was sent; {@link send} says so too, of the load before it */
  async checkSurplus(): Promise<void> {
    await this.#receiver.request("expect", 0);
  }

  /** Ends both processes, the sender first: it has something to tell the receiver. */
  async stop(): Promise<void> {
    await this.#sender.stop();
    await this.#receiver.stop();
  }
}
