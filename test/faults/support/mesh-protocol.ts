/**
 * Protocol between a fault test and the peers of its mesh: requests over IPC, and a journal on disk.
 *
 * The journal outlives a killed process: each line is written before anything else happens. Times are microseconds of the
 * machine's monotonic clock, which all processes share.
 */
import type { PeerOptions, PeerStatus, Receipt } from "../../../src/jobs-and-peers/peer/index.js";
import type { Memory, RemoteFailure } from "../../scenarios/support/remote-protocol.js";

/** Settings of a mesh process. */
export interface MeshPeerOptions {
  readonly peer: PeerOptions;
  /** Number of the process among those with its name, from 1; part of its messages. */
  readonly run: number;
  /** The file of its journal. */
  readonly journal: string;
  /** Constants of the protocol that are others in this process. */
  readonly constants?: Readonly<Record<string, number>> | undefined;
  /** Action of its handler in addition to the journal. Default: none. */
  readonly handler?: HandlerKind | undefined;
  /** Duration of each handler, in milliseconds. Default 0. */
  readonly handlerMs?: number | undefined;
  /** Length of the answer that the handler `answer` waits for. Default 0. */
  readonly answerBytes?: number | undefined;
}

/**
 * `nothing`: returns. `effect`: writes a row to the table `effects` in the message's transaction. `answer`: the same, and
 * it is Postgres that takes the handler's time, for an answer of `answerBytes`. `poison`: kills its own process when the
 * message is marked as poison, after half of the time that a handler takes.
 */
export type HandlerKind = "nothing" | "effect" | "answer" | "poison";

/** Messages to one topic, at a pace. */
export interface StreamOptions {
  readonly topic: string;
  readonly perSecond: number;
  /** Maximum number of unconfirmed messages. */
  readonly window: number;
  /** The length of each payload, at least that of its header. Default: the header only. */
  readonly payloadBytes?: number | undefined;
  /** The number of the message that is marked as poison. Default: none. */
  readonly poisonAt?: number | undefined;
}

/** Requests to a mesh process, and their results. */
export interface MeshCalls {
  run(): string;
  stop(): void;
  /** Begins one stream for each topic. Resolves when the first message of each was confirmed. */
  beginStreams(streams: readonly StreamOptions[]): void;
  /** Sends that many more on each stream, at once. */
  hurry(count: number): void;
  /** Ends the streams and resolves with the last number of each topic, when each message has its outcome. */
  endStreams(): Record<string, number>;
  /** Sets the duration of each further handler, in milliseconds. */
  slowDown(handlerMs: number): void;
  /** Bytes after a collection; needs --expose-gc. */
  memory(): Memory;
}

/** A line of a journal. `at` and `sentAt` in microseconds. */
export type JournalLine =
  /** A handler was started. */
  | {
      readonly kind: "begun";
      readonly at: number;
      readonly sender: string;
      readonly run: number;
      readonly number: number;
      readonly sentAt: number;
      readonly attempt: number;
    }
  /** A send was confirmed. */
  | {
      readonly kind: "confirmed";
      readonly at: number;
      readonly topic: string;
      readonly number: number;
      readonly sentAt: number;
      readonly outcome: Receipt["outcome"];
    }
  /** A send was rejected. */
  | {
      readonly kind: "rejected";
      readonly at: number;
      readonly topic: string;
      readonly number: number;
      readonly sentAt: number;
      readonly failure: RemoteFailure;
    }
  | { readonly kind: "status"; readonly at: number; readonly status: PeerStatus };

/** The table that handlers of the kind `effect` write to. */
export const effectsTable = `CREATE TABLE effects (
  id bigserial PRIMARY KEY, listener text NOT NULL, sender text NOT NULL, run integer NOT NULL, number integer NOT NULL
)`;

/** Now, in microseconds of the clock that all processes share. */
export function microseconds(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}
