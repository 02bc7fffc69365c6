/**
 * What processes say to each other through the tables of the lead and its fence. `PostgresLeadTable` has the statements.
 */
import type { ClockSample } from "./server-clock.js";

/** What the leader has done, in milliseconds of the server's clock. */
export interface Progress {
  /** What the leader received before is done, except by those of {@link behind}; undefined: not known. */
  readonly progressAt: number | undefined;
  /** The same for each subscription that stands still, by its number. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** It has received everything since then: of what came before nothing is said. undefined: not known. */
  readonly completeSince: number | undefined;
  /** It receives nothing since then; undefined: it receives. */
  readonly completeUntil: number | undefined;
}

/** Who leads, as the table has it. */
export interface LeadRow extends Progress {
  readonly epoch: bigint;
  /** The random id of the process; undefined: it has ended in good order, or there was none. */
  readonly owner: string | undefined;
  /** Above 0: the progress is its own, and not that of the process before. */
  readonly beat: bigint;
}

/** What a look at it has found. */
export interface LeadLook {
  readonly row: LeadRow;
  readonly clock: ClockSample;
  /** This server can only be read, so that nobody leads on it; the row is the primary's, as it was a moment ago. */
  readonly isStandby?: boolean;
}

/** A process that leads, or is about to. */
export interface Term {
  readonly epoch: bigint;
  readonly owner: string;
}

/** An answer to one of the terms, which still has the lead. */
export interface Confirmation {
  readonly clock: ClockSample;
  /** The epoch whose batches the fence lets through. */
  readonly fencedEpoch: bigint;
}

/** Sessions that hold the fence for an older epoch. */
export interface FenceHolders {
  /** Ending them is not permitted to this login. */
  readonly isRefused: boolean;
  /** How many were ended. */
  readonly ended: number;
  /** Those of others than the executor, which are not ours to end: pid and role. */
  readonly foreign: readonly { readonly pid: number; readonly role: string }[];
}

/** All of it is rejected with the driver's error. Each call is atomic, and is committed when it resolves. */
export interface LeadTable {
  /** Reads the row. */
  look(): Promise<LeadLook>;
  /** Says that the leader lives. @returns undefined if the lead is somebody else's, or nobody's as on a standby */
  beat(term: Term, progress: Progress): Promise<Confirmation | undefined>;
  /** The same of a process that is about to lead: what its predecessor has done stays there. */
  confirm(term: Term): Promise<Confirmation | undefined>;
  /**
   * Takes the lead if the row is still as it was seen. From then on no batch of an older epoch begins.
   *
   * @returns the new epoch; undefined if the row has changed
   */
  take(seen: LeadRow, owner: string): Promise<bigint | undefined>;
  /**
   * Raises the fence to the epoch. Waits for batches of older ones, which can be committed until then.
   *
   * @returns false if it was kept waiting for too long
   */
  fence(epoch: bigint): Promise<boolean>;
  /** Ends the sessions that keep the fence waiting, as long as the lead is the term's. */
  endHolders(term: Term): Promise<FenceHolders>;
  /** Gives the lead back and tells the others. Where progress is not known, what was known of it stays. */
  release(term: Term, progress: Progress): Promise<void>;
}
