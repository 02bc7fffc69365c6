/**
 * Interface to the leader's row and fence, through which processes communicate. `PostgresLeadershipTable` has the
 * statements.
 */

/** Time of the server's clock at some moment between sending a query and receiving its answer. */
export interface ClockSample {
  /** Time of the server in milliseconds since 1970, rounded down to microseconds. */
  readonly serverTime: number;
  /** Local time at which the query was sent (`performance.now()`, ms). */
  readonly sentAt: number;
  /** Local time at which the answer arrived (`performance.now()`, ms). */
  readonly heardAt: number;
}

/** Progress of the leader, in milliseconds of the server's clock. */
export interface Progress {
  /**
   * Messages that the leader received before this time are done, except those of {@link behind}; undefined if unknown.
   */
  readonly progressAt: number | undefined;
  /** Time before which its messages are done, for each subscription that makes no progress, by id. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** Time since which the leader has received everything; undefined if unknown. */
  readonly completeSince: number | undefined;
  /** Time until which the leader received everything; undefined while it does. */
  readonly completeUntil: number | undefined;
}

/** Row of the leader. */
export interface LeadershipRow extends Progress {
  readonly epoch: bigint;
  /** Random id of the leader's process; undefined if the leader has stopped gracefully, or there was none. */
  readonly owner: string | undefined;
  /** Heartbeat counter. Above 0, the progress is that of this leader; otherwise still that of the previous one. */
  readonly beat: bigint;
}

/** A read of the leader's row. */
export interface LeadershipReading {
  readonly row: LeadershipRow;
  readonly clock: ClockSample;
  /** True if the server is a standby, where no process is the leader. The row is the primary's, with some lag. */
  readonly isStandby?: boolean;
}

/** Result of raising the fence, while this process is the owner. */
export interface Raised {
  readonly clock: ClockSample;
  /** False if batches of older epochs blocked the fence for too long. */
  readonly isRaised: boolean;
}

/** Sessions that hold the fence for an older epoch. */
export interface FenceHolders {
  /** True if this login may not end these sessions. */
  readonly isRefused: boolean;
  /** Number of sessions that were ended. */
  readonly ended: number;
  /** Sessions of roles other than the executor, which Hawser must not end. */
  readonly foreign: readonly { readonly pid: number; readonly role: string }[];
}

/**
 * Access of one process to the row and the fence. Each call is one transaction: it resolves after the commit, and
 * rejects with the driver's error.
 */
export interface LeadershipTable {
  /** Reads the row. */
  read(): Promise<LeadershipReading>;
  /**
   * Writes a heartbeat.
   *
   * @returns undefined if another process is the leader, Postgres is a standby, or the fence has another epoch
   */
  heartbeat(epoch: bigint, progress: Progress): Promise<ClockSample | undefined>;
  /**
   * Takes the row if it has not changed since it was read. After that, no batch of an older epoch can start.
   *
   * @returns the new epoch; undefined if the row has changed
   */
  take(seen: LeadershipRow): Promise<bigint | undefined>;
  /**
   * Raises the fence to the epoch, after waiting for batches of older epochs, which may still commit. Also counts as a
   * heartbeat. The progress of the previous leader stays in the row.
   *
   * @returns undefined if another process has taken the row
   */
  raise(epoch: bigint): Promise<Raised | undefined>;
  /** Ends the sessions that block the fence, if the epoch is the newest. */
  endHolders(epoch: bigint): Promise<FenceHolders>;
  /** Releases leadership and notifies the other processes. Unknown progress leaves the stored progress unchanged. */
  release(epoch: bigint, progress: Progress): Promise<void>;
}
