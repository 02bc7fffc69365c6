/**
 * Protocol between a test and its peer processes over IPC, as JSON.
 */
import type { PeerOptions, PeerStatus, Receipt, SendOptions } from "../../../src/jobs-and-peers/peer/index.js";
import type { Received } from "../../peer/support/world.js";
import type { RemoteFailure } from "./remote-protocol.js";

/** Outcome of a send. */
type Outcome = "delivered" | "stored" | "sent" | "dropped";

/** Options of a peer process. */
export interface PeerProgramOptions {
  readonly peer: PeerOptions;
  /**
   * Work of the handler after it has reported the message: nothing, a reply, or a row in the ledger. "hold": the
   * handler never ends; "holdFirst": that of the first message. Default: nothing.
   */
  readonly handler?: "report" | "reply" | "ledger" | "hold" | "holdFirst" | undefined;
  /** Duration of the handler, in milliseconds. Default: 0. */
  readonly handlerMs?: number | undefined;
  /** URL of the ledger, which stays reachable. */
  readonly ledgerUrl?: string | undefined;
}

/** Calls of a process, with their results. */
export interface Calls {
  /** Resolves with the address that it is bound to. */
  run(): string;
  stop(): void;
  sendTo(topic: string, text: string, options?: Pick<SendOptions, "delivery" | "key">): Receipt<Outcome>;
  handle(topic: string): void;
  stopHandling(topic: string): void;
  listenersOf(topic: string, refresh?: boolean): { readonly address: string; readonly name: string }[];
  /** Begins to send numbered messages, and goes on until `endStream`; tells what was confirmed. */
  beginStream(stream: StreamOptions): void;
  /** Sends that many of the stream's next messages without regard to its pace. */
  hurryStream(count: number): void;
  /** Ends it and resolves with the last number, when everything is confirmed. */
  endStream(): number;
}

/** A stream of numbered messages. */
export interface StreamOptions {
  readonly topic: string;
  /** Stands before each number in the text, with a space. */
  readonly prefix: string;
  /** Limit of unconfirmed messages. */
  readonly window: number;
  /** Limit of messages per second. */
  readonly perSecond: number;
}

/** Reports that a process sends without a call. */
export type Report =
  /** `at`: microseconds of a clock that all processes share. */
  | { readonly kind: "message"; readonly message: Received; readonly id: string | undefined; readonly at: number }
  | { readonly kind: "status"; readonly status: PeerStatus }
  /** A message of the stream was confirmed. */
  | { readonly kind: "confirmed"; readonly number: number; readonly outcome: Outcome }
  | { readonly kind: "unconfirmed"; readonly number: number; readonly failure: RemoteFailure };
