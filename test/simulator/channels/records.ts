import type { OutgoingMessage, SendOutcome } from "../../../src/jobs-and-peers/channel/index.js";
import type { Delivery } from "../../../src/jobs-and-peers/wire/index.js";

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
  /** Its handler has ended in this process, and channel. */
  finishedBy: { readonly process: unknown; readonly key: number; readonly at: number } | undefined;
  /** What has since happened to that process, after which the message may not be handled again. */
  doneBefore: string | undefined;
  /** Committed writes of its transactional handler, and its dead letters. */
  effects: number;
  readonly onSettled: ((outcome: SendOutcome) => void) | undefined;
}

/** A message on its way out, with its record. */
export interface SimulatedMessage extends OutgoingMessage {
  readonly record: MessageRecord;
}
