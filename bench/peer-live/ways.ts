/**
 * The ways in which messages go from one process to the other: two of ours, and the baselines. Each has a half in either
 * process, with the same interfaces, so that all are measured by the same code.
 */

/** Their names, as in the results. */
export type WayName = "at-most-once" | "at-least-once" | "tcp" | "nats-core";

/** What both processes are told at the start. */
export interface Servers {
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** The sending half of one or more ways, connected. */
export interface SendingHalf {
  /**
   * Sends `count` times the payload, as fast as the other side takes it, and resolves when nothing is left to be done
   * here. Which way is meant, where there are several, `way` says.
   */
  send(way: WayName, payload: Uint8Array, count: number): Promise<Sent>;
  close(): Promise<void>;
}

/** What a sender knows of its messages in the end. */
export interface Sent {
  /** When the last one was confirmed, on the system's clock, for a way that confirms each message. */
  readonly confirmedMs?: number;
  /** How many were confirmed because they were stored, not delivered. */
  readonly stored?: number;
}

/** The receiving half of one or more ways: it counts every message of any of them. */
export interface ReceivingHalf {
  close(): Promise<void>;
}
