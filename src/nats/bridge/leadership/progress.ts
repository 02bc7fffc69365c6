/**
 * Progress of the leader in times of a waiting process's clock.
 *
 * The leader writes times of the server's clock, the only one that all processes can read; waiting processes convert
 * them to their own. The moment within a query at which the server read its clock is unknown, so the results are bounds
 * on the safe side.
 *
 * The conversion is valid only while both processes have read the same clock. A failover leads to another clock, and a
 * clock may be set. After that, the progress is unknown until the leader's second heartbeat: the first may have been
 * computed before the change.
 */
import type { ClockSample, LeadershipRow } from "./table.js";

/** Number of heartbeats of a leader that must be read before its progress counts. */
export const leaderTrustedHeartbeats = 2;
/** Maximum drift between the clocks of a process and the server, in millionths: the most that NTP corrects. */
const maxClockDriftPpm = 500;

const drift = maxClockDriftPpm / 1e6;

/** Rounding error of the server's time and of the arithmetic, in milliseconds. */
const resolutionMs = 0.002;

/** Lower bound of the server's clock at a time of this process. */
export function serverTimeAtLeast({ serverTime, heardAt }: ClockSample, localTime: number): number {
  const elapsed = localTime - heardAt;
  return serverTime + elapsed - drift * Math.abs(elapsed) - resolutionMs;
}

/** Upper bound of the server's clock at a time of this process. */
export function serverTimeAtMost({ serverTime, sentAt }: ClockSample, localTime: number): number {
  const elapsed = localTime - sentAt;
  return serverTime + elapsed + drift * Math.abs(elapsed) + resolutionMs;
}

/** Local time before which the server's clock certainly showed less than `serverTime`. */
export function localTimeBefore(sample: ClockSample, serverTime: number): number {
  const elapsed = serverTime - sample.serverTime - resolutionMs;
  return sample.sentAt + elapsed / (elapsed < 0 ? 1 - drift : 1 + drift);
}

/** Local time from which on the server's clock certainly showed at least `serverTime`. */
function localTimeFrom(sample: ClockSample, serverTime: number): number {
  const elapsed = serverTime - sample.serverTime + resolutionMs;
  return sample.heardAt + elapsed / (elapsed < 0 ? 1 + drift : 1 - drift);
}

/** True if the server's clock was set between the two samples, or is another server's. */
export function wasSet(before: ClockSample, after: ClockSample): boolean {
  return (
    after.serverTime < serverTimeAtLeast(before, after.sentAt) - resolutionMs ||
    after.serverTime > serverTimeAtMost(before, after.heardAt) + resolutionMs
  );
}

/** Progress of the leader, in times of the local clock. */
export interface LeaderProgress {
  /**
   * Messages that the leader received before this time are done, except those of the subscriptions in {@link behind}.
   */
  readonly doneBefore: number;
  /** Time before which its messages are done, for each subscription that makes no progress, by id. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** Time since which the leader has received everything. */
  readonly completeSince: number;
}

/** Time before which messages that the leader received are done: those of the subscription, or of all if undefined. */
export function doneBefore({ doneBefore: ofMost, behind }: LeaderProgress, subscription?: bigint): number {
  if (subscription === undefined) return Math.min(ofMost, ...behind.values());
  return Math.min(ofMost, behind.get(subscription) ?? ofMost);
}

/** Progress of the leader as a waiting process knows it, from its reads of the row. */
export class KnownProgress {
  #seen: LeadershipRow | undefined;
  #clock: ClockSample | undefined;
  #heartbeats = 0;

  /**
   * Updates the progress from a read of the row.
   *
   * @returns undefined if the progress is unknown
   */
  update(row: LeadershipRow, clock: ClockSample): LeaderProgress | undefined {
    if (this.#clock !== undefined && wasSet(this.#clock, clock)) this.reset();
    if (this.#seen?.epoch === row.epoch && this.#seen.beat !== row.beat) this.#heartbeats += 1;
    this.#seen = row;
    this.#clock = clock;
    return this.#heartbeats < leaderTrustedHeartbeats ? undefined : this.supposed(row, clock);
  }

  /**
   * Progress that the row tells, if it was computed from the same clock; undefined if it tells none. It may be wrong, so
   * no message counts as done because of it.
   */
  supposed(row: LeadershipRow, clock: ClockSample): LeaderProgress | undefined {
    if (row.progressAt === undefined) return undefined;
    const { completeSince } = row;
    return {
      doneBefore: this.bound(clock, row.progressAt),
      behind: new Map([...row.behind].map(([id, at]) => [id, this.bound(clock, at)])),
      completeSince: completeSince === undefined ? Number.NEGATIVE_INFINITY : localTimeFrom(clock, completeSince),
    };
  }

  /** Resets the progress, because the session was lost. */
  reset(): void {
    this.#seen = undefined;
    this.#clock = undefined;
    this.#heartbeats = 0;
  }

  protected bound(clock: ClockSample, progressAt: number): number {
    return localTimeBefore(clock, progressAt);
  }
}
