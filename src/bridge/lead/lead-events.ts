/**
 * What a process is told about the lead, and what it is asked.
 */

import type { LeaderProgress } from "./known-progress.js";

/** What is told. None of it may throw. */
export interface LeadEvents {
  /**
   * This process leads from now on: it runs what it has kept, and then what it receives.
   *
   * @param afterCleanEnd the leader before has ended in good order
   */
  onLeading(epoch: bigint, options: { readonly afterCleanEnd: boolean }): void;
  /** It leads no more: batches of its epoch are refused. */
  onDeposed(reason: string): void;
  /** Another process leads. Told once for each of them. */
  onWaiting(epoch: bigint): void;
  /**
   * While another process leads, after each look: what that one has done. undefined: not known.
   */
  onProgress(progress: LeaderProgress | undefined): void;
  /** Postgres did not answer as it should. It is tried again. */
  onProblem(cause: unknown): void;
}

/** When messages were received that are not done yet. */
export interface Unfinished {
  /** The oldest, except those of {@link behind}; undefined: all are done. */
  readonly oldestAt: number | undefined;
  /** The oldest of each subscription that stands still, by its number. */
  readonly behind: ReadonlyMap<bigint, number>;
}

/** What the process has received and done, by the clock. */
export interface LeadMessages {
  /** What is not done yet. */
  unfinished(): Unfinished;
  /** Since when everything is kept that the leader may not have done. */
  completeSince(): number;
  /** Since when everything was received. */
  receivedSince(): number;
  /** Until when everything was received; undefined: it is being received. */
  receivedUntil(): number | undefined;
  /** It receives now: who does not, does not lead. */
  isReceiving(): boolean;
}
