import type { OutgoingMessage, Position, SendOutcome } from "../../../src/jobs-and-peers/channel/index.js";
import type { Delivery } from "../../../src/jobs-and-peers/wire/index.js";
import type { PeerProcess } from "./process.js";

/** A message of the simulation and what became of it. Its payload object is its identity everywhere. */
export interface MessageRecord {
  readonly id: number;
  readonly key: number;
  readonly delivery: Delivery;
  readonly topicId: number;
  readonly payload: Uint8Array;
  /** Handlers of this message send one on while this is above 0, and wait for its confirmation. */
  readonly hops: number;
  /** Its handler ends the process, each time. */
  readonly poison: boolean;
  /** Messages of one key are handled in order. */
  readonly messageKey: string | undefined;
  outcome: SendOutcome | undefined;
  /** Confirmed, but Postgres itself lost or somebody deleted the row: nobody can deliver it. */
  excused: boolean;
  started: number;
  finished: number;
  /** Its handler has ended in this process. */
  finishedBy: { readonly process: unknown; readonly at: number } | undefined;
  /** What has since happened to that process, after which the message may not be handled again. */
  doneBefore: string | undefined;
  /** Committed writes of its transactional handler, and its dead letters. */
  effects: number;
  readonly onSettled: ((outcome: SendOutcome) => void) | undefined;
}

/** Handler of a message that runs. */
export interface Start {
  readonly record: MessageRecord;
  readonly process: PeerProcess;
  readonly position: Position | undefined;
  /** Channel that the message came over. */
  readonly key: number;
  readonly messageKey: string | undefined;
  /** The process has the message: the channel is its own, or the row. */
  readonly isHeld: () => boolean;
  /** The channel as the process has opened it; undefined for the handler of a row. */
  readonly opened: object | undefined;
}

/** A message on its way out, with its record. */
export interface SimulatedMessage extends OutgoingMessage {
  readonly record: MessageRecord;
}
