/**
 * The two processes between which messages go, and one load at a time from the one to the other.
 */
import { BenchFailure } from "../bench-failure.js";
import type { BenchServers } from "../bench-servers.js";
import { Worker } from "../worker.js";
import type { ReceiverRequests } from "./receiver-process.js";
import type { Load, SenderRequests } from "./sender-process.js";
import type { WayName } from "./ways.js";

/** How long the receiver waits for the rest when the sender is done. */
const arrivalTimeoutMs = 10_000;

/** How a load went. */
export interface LoadDone {
  /** From the first send until everything has arrived and every promise of a message was kept. */
  readonly seconds: number;
  /** Of an at-least-once load, how many messages were confirmed because they were stored, not delivered. */
  readonly stored: number;
}

/** Sender and receiver, connected by some ways. */
export class ProcessPair {
  readonly #sender: Worker<SenderRequests>;
  readonly #receiver: Worker<ReceiverRequests>;

  private constructor(sender: Worker<SenderRequests>, receiver: Worker<ReceiverRequests>) {
    this.#sender = sender;
    this.#receiver = receiver;
  }

  /** Starts the processes. Nothing is left behind when it fails. */
  static async start(servers: BenchServers, ways: readonly WayName[]): Promise<ProcessPair> {
    const receiver = Worker.start<ReceiverRequests>("receiving", new URL("./receiver-process.ts", import.meta.url));
    const sender = Worker.start<SenderRequests>("sending", new URL("./sender-process.ts", import.meta.url));
    const pair = new ProcessPair(sender, receiver);
    try {
      const { tcpPort } = await receiver.request("open", { ...servers, ways });
      await sender.request("open", { ...servers, ways, tcpPort });
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
    const { beganMs, doneMs = beganMs, stored = 0 } = await this.#sender.request("send", load);
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

  /** Ends both processes. */
  async stop(): Promise<void> {
    // The sender first: it has something to tell the receiver.
    await this.#sender.stop();
    await this.#receiver.stop();
  }
}
