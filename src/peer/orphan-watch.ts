/**
 * Takes over the channels of listeners that have been away for `orphanAfterMs`: where messages wait that this peer could
 * handle as well. Several peers may watch; whoever is first has the channel, and the others find that it has an owner.
 */

import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { type Clock, systemClock } from "../runtime/index.js";
import type { AbsentListener } from "../store/index.js";
import type { PeerContext } from "./context.js";

/** How often it looks at the most. */
const minLookMs = 250;
/** How many looks fall into `orphanAfterMs`. */
const looks = 4;

/** What the watch needs of a running peer. */
export type OrphanWatchContext = Pick<PeerContext, "sender" | "lease" | "logger"> & {
  readonly store: Pick<PeerContext["store"], "absentListeners" | "channelsServedBy" | "reassign" | "on">;
};

export class OrphanWatch {
  readonly #absences: Absences;
  readonly #lookMs: number;
  /** When a listener that is long away is looked at next: nothing was there to be taken over. */
  readonly #notBefore = new Map<string, number>();
  #cancelLook: () => void = () => undefined;
  #endSessionWatch: () => void = () => undefined;
  #stopped = false;

  readonly #context: OrphanWatchContext;
  readonly #serves: () => readonly string[];
  readonly #clock: Clock;

  /** @param serves the topics that the peer serves now */
  constructor(
    context: OrphanWatchContext,
    orphanAfterMs: number,
    serves: () => readonly string[],
    clock: Clock = systemClock,
  ) {
    this.#context = context;
    this.#serves = serves;
    this.#clock = clock;
    this.#lookMs = Math.min(Math.max(orphanAfterMs / looks, minLookMs), storeConstants.pollMs);
    this.#absences = new Absences(orphanAfterMs, 2 * this.#lookMs + minLookMs);
  }

  start(): void {
    // Postgres that goes takes all leases with it: nobody is away because of that.
    this.#endSessionWatch = this.#context.store.on("session", () => this.#absences.forget());
    this.#lookLater();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelLook();
    this.#endSessionWatch();
  }

  #lookLater(): void {
    if (!this.#stopped) this.#cancelLook = this.#clock.setTimeout(() => void this.#look(), this.#lookMs);
  }

  async #look(): Promise<void> {
    const { store, lease, logger } = this.#context;
    try {
      if (lease.state !== "held" || !lease.isWritable) {
        this.#absences.forget();
        return;
      }
      const began = this.#clock.now();
      const absent = await store.absentListeners();
      for (const name of this.#notBefore.keys()) {
        if (!absent.some((listener) => listener.name === name)) this.#notBefore.delete(name);
      }
      for (const name of this.#absences.looked(absent, began, this.#clock.now())) {
        if (this.#stopped || !lease.isWritable) return;
        await this.#takeOver(name);
      }
    } catch (err) {
      this.#absences.forget();
      logger.debug({ err }, "could not look for listeners that are away; looking again");
    } finally {
      this.#lookLater();
    }
  }

  async #takeOver(from: string): Promise<void> {
    const { store, sender, logger } = this.#context;
    const now = this.#clock.now();
    if (now < (this.#notBefore.get(from) ?? now)) return;
    const connectionKeys = await store.channelsServedBy(from, this.#serves());
    if (connectionKeys.length === 0) {
      this.#notBefore.set(from, now + storeConstants.pollMs);
      return;
    }
    this.#notBefore.delete(from);
    try {
      const channels = await store.reassign({ from, to: sender.name, connectionKeys });
      const stored = channels.reduce((sum, channel) => sum + channel.stored, 0);
      if (channels.length > 0) {
        logger.warn({ from, channels: channels.length, stored }, `took over channels of "${from}", which is away`);
      }
    } catch (error) {
      // It is back at this very moment.
      if (!HawserError.is(error) || error.code !== "name_in_use") throw error;
    }
  }
}

/** Since when listeners have been away without a break, as far as regular looks can tell. Pure: times come from outside. */
export class Absences {
  readonly #since = new Map<string, { readonly epoch: number | null; readonly at: number }>();
  #lookedAt = Number.NEGATIVE_INFINITY;

  readonly #afterMs: number;
  readonly #maxGapMs: number;

  /**
   * @param afterMs how long a listener must be away
   * @param maxGapMs looks that are further apart than this say nothing of what was between them
   */
  constructor(afterMs: number, maxGapMs: number) {
    this.#afterMs = afterMs;
    this.#maxGapMs = maxGapMs;
  }

  /**
   * Takes what a look found.
   *
   * @param began when the look began, in ms
   * @param ended when it was over
   * @returns the names of those that have been away long enough
   */
  looked(absent: readonly AbsentListener[], began: number, ended: number): string[] {
    if (began - this.#lookedAt > this.#maxGapMs) this.#since.clear();
    this.#lookedAt = ended;
    const before = new Map(this.#since);
    this.#since.clear();
    for (const { name, epoch } of absent) {
      const known = before.get(name);
      // Another epoch: it was there in between.
      this.#since.set(name, known?.epoch === epoch ? known : { epoch, at: ended });
    }
    return absent
      .map(({ name }) => name)
      .filter((name) => began - (this.#since.get(name)?.at ?? began) >= this.#afterMs);
  }

  /** What was seen before says nothing any more. */
  forget(): void {
    this.#since.clear();
    this.#lookedAt = Number.NEGATIVE_INFINITY;
  }
}
