/**
 * What a process that does not lead knows of what the leader has done, in its own time.
 *
 * It maps what the leader wrote by the server's clock back to its own. That is right only where both have looked at the same
 * clock. After a failover the clock is another server's, and anybody may set a clock: then what the leader says counts again
 * from its second beat on. The first may have been on its way, or made of what it knew before.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { LeadRow } from "./lead-table.js";
import { type ClockSample, surelyBefore, surelyFrom, wasSet } from "./server-clock.js";

/** What the leader has done, in the time of this process. */
export interface LeaderProgress {
  /** What the leader received before this is done, except by those of {@link behind}. */
  readonly doneBefore: number;
  /** The same for each subscription that stands still. */
  readonly behind: ReadonlyMap<bigint, number>;
  /** It has received everything since this. */
  readonly completeSince: number;
}

/** What the leader received before this is done: of a subscription, or of all if none is given. */
export function doneBefore({ doneBefore: ofMost, behind }: LeaderProgress, subscription?: bigint): number {
  if (subscription === undefined) return Math.min(ofMost, ...behind.values());
  return Math.min(ofMost, behind.get(subscription) ?? ofMost);
}

/** See above. */
export class KnownProgress {
  #seen: LeadRow | undefined;
  #clock: ClockSample | undefined;
  #beats = 0;

  /**
   * A look at the row.
   *
   * @returns undefined: not known
   */
  see(row: LeadRow, clock: ClockSample): LeaderProgress | undefined {
    if (this.#clock !== undefined && wasSet(this.#clock, clock)) this.forget();
    if (this.#seen?.epoch === row.epoch && this.#seen.beat !== row.beat) this.#beats += 1;
    this.#seen = row;
    this.#clock = clock;
    if (this.#beats < bridgeConstants.leadTrustedBeats || row.progressAt === undefined) return undefined;
    const { completeSince } = row;
    return {
      doneBefore: this.bound(clock, row.progressAt),
      behind: new Map([...row.behind].map(([id, at]) => [id, this.bound(clock, at)])),
      completeSince: completeSince === undefined ? Number.NEGATIVE_INFINITY : surelyFrom(clock, completeSince),
    };
  }

  /** The session was lost. */
  forget(): void {
    this.#seen = undefined;
    this.#clock = undefined;
    this.#beats = 0;
  }

  protected bound(clock: ClockSample, progressAt: number): number {
    return surelyBefore(clock, progressAt);
  }
}
