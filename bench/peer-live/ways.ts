/**
 * The ways in which messages go from one process to the other: two of ours, and the baselines. Each has a half in either
 * process, with the same interfaces, so that all are measured by the same code.
 */
import type { BenchServers } from "../bench-servers.js";

/** Their names, as in the results. */
export type WayName = "at-most-once" | "at-least-once" | "tcp" | "nats-core";

/** What both processes are told: the servers, and the ways that will be used. */
export interface Opening extends BenchServers {
  readonly ways: readonly WayName[];
}

/** The sending half of a way, connected. */
export interface SendingHalf {
  /** Sends `count` times the payload, as fast as the other side takes it. */
  send(payload: Uint8Array, count: number): Promise<Sent>;
  close(): Promise<void>;
}

/** What a sender knows of its messages in the end. */
export interface Sent {
  /** When the last promise of a message was kept, on the system's clock, where there are such promises. */
  readonly doneMs?: number;
  /** How many were confirmed because they were stored, not delivered. */
  readonly stored?: number;
}

/** The receiving half of a way: it counts every message. */
export interface ReceivingHalf {
  close(): Promise<void>;
}
