/** Link that received a message, and the start of its handler, as calls of handlers see them. */
import type { HandlerResult } from "../channel/index.js";
import type { Limited, Waiter } from "./limits/concurrency-limit.js";
import type { Completion } from "./transactions/transactional.js";

/** Message that is in its handler. */
export interface HandledTurn extends Limited {
  /**
   * Number of its starts, with this one. It is greater than the handler allows if the message has ended the process or
   * its handler's session as often as that.
   */
  readonly attempts: number;
}

/** Worker of the queue, or listening end of a channel. */
export interface HandledLink extends Waiter {
  readonly isClosed: boolean;
  /** Completion that a transaction writes for the message; undefined for an at-most-once message. */
  completionOf(turn: HandledTurn): Completion | undefined;
  /**
   * Tells the store that a handler begins, if the store must know before.
   *
   * @returns undefined if it need not; otherwise a promise, which never rejects, of the result of a message that must not begin
   */
  begin(turn: HandledTurn): Promise<HandlerResult | undefined> | undefined;
  /** Result of a message of a topic that has no handler. The promise never rejects. */
  unserved(turn: HandledTurn, topic: string): HandlerResult | Promise<HandlerResult>;
  /** Called after a transaction was refused, because the message or its channel belongs to another listener. */
  onNotOwned(): void;
  /** Frees the slot of a message that waits in a batch: batches run outside of `concurrency`. */
  onJoined(turn: HandledTurn): void;
}
