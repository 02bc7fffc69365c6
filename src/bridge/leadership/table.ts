/**
 * What processes say to each other through the row of the leader and its fence. `PostgresLeadershipTable` has the statements.
 */

/** Reading of the server's clock at some moment between sending a query and receiving its answer. */
export interface ClockSample {
  /** Time of the server in milliseconds since 1970, rounded down to microseconds. */
  readonly serverTime: number;
  /** By the clock of this process, `performance.now()`, as all other times that are not the server's. */
  readonly sentAt: number;
  readonly heardAt: number;
}

/** Progress of the leader, in milliseconds of the server's clock. */
export interface Progress {
  /** Messages that the leader received before are done, except those of {@link behind}; undefined: not known. */
  readonly progressAt: number | undefined;
  /** Such a time for each subscription that stands still, by its number. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** It has received everything since then: of what came before nothing is said. undefined: not known. */
  readonly completeSince: number | undefined;
  /** It receives nothing since then; undefined: it receives. */
  readonly completeUntil: number | undefined;
}

/** The leader, as the table has it. */
export interface LeadershipRow extends Progress {
  readonly epoch: bigint;
  /** The random id of the process; undefined: it has ended in good order, or there was none. */
  readonly owner: string | undefined;
  /** Grows with each heartbeat. Above 0: the progress is its own, and not that of the process before. */
  readonly beat: bigint;
}

/** The row of the leader, and when it was read. */
export interface LeadershipReading {
  readonly row: LeadershipRow;
  readonly clock: ClockSample;
  /** The server is a standby, on which none leads; the row is the primary's, as it was a moment ago. */
  readonly isStandby?: boolean;
}

/** An answer to a process that is still the owner. */
export interface Raised {
  readonly clock: ClockSample;
  /** False: batches of older epochs kept the fence waiting for too long. */
  readonly isRaised: boolean;
}

/** Sessions that hold the fence for an older epoch. */
export interface FenceHolders {
  /** True if this login may not end these sessions. */
  readonly isRefused: boolean;
  /** Number of sessions that were ended. */
  readonly ended: number;
  /** Those of others than the executor, which are not ours to end: pid and role. */
  readonly foreign: readonly { readonly pid: number; readonly role: string }[];
}

/** The row and the fence, for one process. Each call is one transaction, committed when it resolves, and rejects with the driver's error. */
export interface LeadershipTable {
  /** Reads the row. */
  read(): Promise<LeadershipReading>;
  /** Says that the leader lives. @returns undefined if another process leads, or none as on a standby, or the fence is at another epoch */
  heartbeat(epoch: bigint, progress: Progress): Promise<ClockSample | undefined>;
  /**
   * Takes leadership if the row is still as it was seen. From then on no batch of an older epoch begins.
   *
   * @returns the new epoch; undefined if the row has changed
   */
  take(seen: LeadershipRow): Promise<bigint | undefined>;
  /**
   * Raises the fence to the epoch. Waits for batches of older ones, which can be committed until then. It is a heartbeat, too; the
   * progress of the leader before stays in the row.
   *
   * @returns undefined if another process has taken leadership
   */
  raise(epoch: bigint): Promise<Raised | undefined>;
  /** Ends the sessions that keep the fence waiting, as long as the epoch is the newest. */
  endHolders(epoch: bigint): Promise<FenceHolders>;
  /** Gives leadership back and tells the others. Where progress is not known, what was known of it stays. */
  release(epoch: bigint, progress: Progress): Promise<void>;
}
