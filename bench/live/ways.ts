/**
 * The ways in which messages go from one process to another: two of ours, and the baselines. Each has a half in either
 * process, with the same interfaces, so that all are measured by the same code.
 */
import type { BenchServers } from "../servers.js";
import { systemMs } from "../worker.js";

/** Delivery modes of Hawser. */
export type Delivery = "at-most-once" | "at-least-once";

/** Publishing to a stream: nothing receives the messages, they count when the server has acknowledged them. */
export const streamWays = ["jetstream", "jetstream batches", "jetstream fast ingest"] as const;
export type StreamWay = (typeof streamWays)[number];

/** The nats-server that has it first: the minor version of 2. */
export const sinceNats: Readonly<Record<StreamWay, number>> = {
  jetstream: 2,
  "jetstream batches": 12,
  "jetstream fast ingest": 14,
};

/** All of them, as in the results. */
export type WayName = Delivery | StreamWay | "tcp" | "nats-core";

/** Servers, names and ways of a pair of processes; both get the same. */
export interface Opening extends BenchServers {
  /** Tells the names and subjects of one pair of processes from those of others on the same servers. */
  readonly pair: string;
  /** The ways that will be used. */
  readonly ways: readonly WayName[];
}

/** The sending half of a way, connected. */
export interface SendingHalf {
  /** Sends `count` times the payload, as fast as the other side takes it. */
  send(payload: Uint8Array, count: number): Promise<Sent>;
  close(): Promise<void>;
}

/** Outcome of a load as the sender knows it. */
export interface Sent {
  /** Time of the last settled promise, on the system's clock; undefined for ways without promises. */
  readonly doneMs?: number;
  /** Messages that were confirmed as stored rather than delivered. */
  readonly stored?: number;
  /** Messages in a stream that has no consumer. */
  readonly kept?: number;
}

/** The receiving half of a way: it counts every message. */
export interface ReceivingHalf {
  close(): Promise<void>;
}

/** Messages and bytes that have arrived in a run. */
export interface Arrived {
  readonly messages: number;
  readonly bytes: number;
  /** Arrival time of the last expected message, on the system's clock; undefined if it did not arrive. */
  readonly completeMs: number | undefined;
}

/** Counts messages as they arrive. One way is measured at a time, so that one tally serves all. */
export class Tally {
  #messages = 0;
  #bytes = 0;
  /** Infinite before the first run, when any number of messages may arrive. */
  #expected = Number.POSITIVE_INFINITY;
  #completeMs: number | undefined;
  #tell: (() => void) | undefined;

  /** Counts one message. */
  count(payloadBytes: number): void {
    this.#messages += 1;
    this.#bytes += payloadBytes;
    if (this.#messages === this.#expected) {
      this.#completeMs = systemMs();
      this.#tell?.();
    }
  }

  /** Begins a run. @throws Error if more messages than expected came in the last one */
  expect(messages: number): void {
    if (this.#messages > this.#expected) {
      throw new Error(`${this.#messages} messages have arrived where ${this.#expected} were sent`);
    }
    this.#messages = 0;
    this.#bytes = 0;
    this.#expected = messages;
    this.#completeMs = undefined;
  }

  /** Resolves when all have arrived, or with what there is after `timeoutMs`. */
  async arrived(timeoutMs: number): Promise<Arrived> {
    if (this.#completeMs === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#tell = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#tell = undefined;
    }
    return { messages: this.#messages, bytes: this.#bytes, completeMs: this.#completeMs };
  }
}
