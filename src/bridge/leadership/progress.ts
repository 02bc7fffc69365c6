/**
 * The progress of the leader, as a process that does not lead knows it, by its own clock.
 *
 * The leader writes times of the server's clock, the only one that both can read, and those that wait map them to their own. At
 * which moment of a query the server read its clock is not known: so times become bounds, on the safe side.
 *
 * This is right only while both have read the same clock. After a failover it is another server's, and a clock may be set:
 * then what the leader says counts again from its second heartbeat on. The first may have been on its way, or made of what it
 * knew before.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { ClockSample, LeadershipRow } from "./table.js";

const drift = bridgeConstants.maxClockDriftPpm / 1e6;

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

/** Time of this process before which the server's clock surely showed less than `serverTime`. */
export function surelyBefore(sample: ClockSample, serverTime: number): number {
  const elapsed = serverTime - sample.serverTime - resolutionMs;
  return sample.sentAt + elapsed / (elapsed < 0 ? 1 - drift : 1 + drift);
}

/** Time of this process from which on the server's clock surely showed at least `serverTime`. */
function surelyFrom(sample: ClockSample, serverTime: number): number {
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

/** Progress of the leader, by the clock of this process. */
export interface LeaderProgress {
  /** Messages that the leader received before this time are done, except those of the subscriptions in {@link behind}. */
  readonly doneBefore: number;
  /** Such a time for each subscription that stands still. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** The leader has received everything since this time. */
  readonly completeSince: number;
}

/** Time before which all messages that the leader received are done: of one subscription, or of all if none is given. */
export function doneBefore({ doneBefore: ofMost, behind }: LeaderProgress, subscription?: bigint): number {
  if (subscription === undefined) return Math.min(ofMost, ...behind.values());
  return Math.min(ofMost, behind.get(subscription) ?? ofMost);
}

export class KnownProgress {
  #seen: LeadershipRow | undefined;
  #clock: ClockSample | undefined;
  #heartbeats = 0;

  /**
   * Takes over what was read from the row.
   *
   * @returns undefined: not known
   */
  see(row: LeadershipRow, clock: ClockSample): LeaderProgress | undefined {
    if (this.#clock !== undefined && wasSet(this.#clock, clock)) this.forget();
    if (this.#seen?.epoch === row.epoch && this.#seen.beat !== row.beat) this.#heartbeats += 1;
    this.#seen = row;
    this.#clock = clock;
    if (this.#heartbeats < bridgeConstants.leaderTrustedHeartbeats || row.progressAt === undefined) return undefined;
    const { completeSince } = row;
    return {
      doneBefore: this.bound(clock, row.progressAt),
      behind: new Map([...row.behind].map(([id, at]) => [id, this.bound(clock, at)])),
      completeSince: completeSince === undefined ? Number.NEGATIVE_INFINITY : surelyFrom(clock, completeSince),
    };
  }

  /** Forgets what was read: the session was lost. */
  forget(): void {
    this.#seen = undefined;
    this.#clock = undefined;
    this.#heartbeats = 0;
  }

  protected bound(clock: ClockSample, progressAt: number): number {
    return surelyBefore(clock, progressAt);
  }
}
