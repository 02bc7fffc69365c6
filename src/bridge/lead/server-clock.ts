/**
 * One process tells another when something was, by the clock of Postgres, which is the only one that both can read. Nobody
 * knows when exactly within a query the server looked at its clock: so times are mapped to bounds, to the safe side.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

/** What the server's clock showed at some moment between sending a query and hearing its answer. */
export interface ClockSample {
  /** In milliseconds since 1970, rounded down to microseconds. */
  readonly serverTime: number;
  /** By the clock of this process, `performance.now()`, as all other times that are not the server's. */
  readonly sentAt: number;
  readonly heardAt: number;
}

const drift = bridgeConstants.maxClockDriftPpm / 1e6;

/** Rounding of the server's time, and of the arithmetic, in milliseconds. */
const resolutionMs = 0.002;

/** The server's clock shows at least this at a time of ours. */
export function serverTimeAtLeast({ serverTime, heardAt }: ClockSample, localTime: number): number {
  const elapsed = localTime - heardAt;
  return serverTime + elapsed - drift * Math.abs(elapsed) - resolutionMs;
}

/** The server's clock shows at most this at a time of ours. */
export function serverTimeAtMost({ serverTime, sentAt }: ClockSample, localTime: number): number {
  const elapsed = localTime - sentAt;
  return serverTime + elapsed + drift * Math.abs(elapsed) + resolutionMs;
}

/** A time of ours before which the server's clock surely showed less than `serverTime`. */
export function surelyBefore(sample: ClockSample, serverTime: number): number {
  const elapsed = serverTime - sample.serverTime - resolutionMs;
  return sample.sentAt + elapsed / (elapsed < 0 ? 1 - drift : 1 + drift);
}

/** A time of ours from which on the server's clock surely showed at least `serverTime`. */
export function surelyFrom(sample: ClockSample, serverTime: number): number {
  const elapsed = serverTime - sample.serverTime + resolutionMs;
  return sample.heardAt + elapsed / (elapsed < 0 ? 1 + drift : 1 - drift);
}

/** Between the two samples the server's clock has not simply gone on: somebody has set it, or it is another server's. */
export function wasSet(before: ClockSample, after: ClockSample): boolean {
  return (
    after.serverTime < serverTimeAtLeast(before, after.sentAt) - resolutionMs ||
    after.serverTime > serverTimeAtMost(before, after.heardAt) + resolutionMs
  );
}
