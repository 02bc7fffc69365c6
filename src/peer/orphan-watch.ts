/**
 * Takes over the channels of listeners that have been away for `takeoverMs`: where messages wait that this peer could handle as
 * well. Several peers may watch; the first
 * one has the channel, and the others find that it has an owner.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { type Clock, systemClock } from "../runtime/index.js";
import type { AbsentListener } from "../store/index.js";
import type { PeerContext } from "./context.js";

/** The least time between two inspections. */
const minIntervalMs = 250;
/** How many inspections fall into the time that a listener must be away. */
const inspections = 4;

/** What the watch needs of a running peer. */
export type OrphanWatchContext = Pick<PeerContext, "sender" | "lease" | "logger"> & {
  readonly store: Pick<PeerContext["store"], "absentListeners" | "channelsServedBy" | "reassign" | "on">;
};

/** Which listeners are watched, and how long each must be away. */
export interface Watched {
  readonly afterMs: number;
  readonly isWatched: (listener: AbsentListener) => boolean;
}

export class OrphanWatch {
  readonly #absences: Absences;
  readonly #intervalMs: number;
  /** When a listener that is long away is inspected next: nothing was there to be taken over. */
  readonly #notBefore = new Map<string, number>();
  #cancelNext: () => void = () => undefined;
  #endSessionWatch: () => void = () => undefined;
  #stopped = false;

  readonly #context: OrphanWatchContext;
  readonly #isWatched: Watched["isWatched"];
  readonly #serves: () => readonly string[];
  readonly #clock: Clock;

  /** @param serves the topics that the peer serves now */
  constructor(
    context: OrphanWatchContext,
    { afterMs, isWatched }: Watched,
    serves: () => readonly string[],
    clock: Clock = systemClock,
  ) {
    this.#context = context;
    this.#isWatched = isWatched;
    this.#serves = serves;
    this.#clock = clock;
    this.#intervalMs = Math.min(Math.max(afterMs / inspections, minIntervalMs), storeConstants.pollMs);
    this.#absences = new Absences(afterMs, 2 * this.#intervalMs + minIntervalMs);
  }

  start(): void {
    // Postgres that goes takes all leases with it: no listener is away because of that.
    this.#endSessionWatch = this.#context.store.on("session", () => this.#absences.forget());
    this.#inspectLater();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelNext();
    this.#endSessionWatch();
  }

  #inspectLater(): void {
    if (!this.#stopped) this.#cancelNext = this.#clock.setTimeout(() => void this.#inspect(), this.#intervalMs);
  }

  async #inspect(): Promise<void> {
    const { store, lease, logger } = this.#context;
    try {
      if (lease.state !== "held" || !lease.isWritable) {
        this.#absences.forget();
        return;
      }
      const began = this.#clock.now();
      const absent = (await store.absentListeners()).filter(this.#isWatched);
      for (const name of this.#notBefore.keys()) {
        if (!absent.some((listener) => listener.name === name)) this.#notBefore.delete(name);
      }
      for (const name of this.#absences.inspected(absent, began, this.#clock.now())) {
        if (this.#stopped || !lease.isWritable) return;
        await this.#takeOver(name);
      }
    } catch (err) {
      this.#absences.forget();
      logger.debug({ err }, "could not read which listeners are away; trying again");
    } finally {
      this.#inspectLater();
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
      if (!(error instanceof HawserError) || error.code !== "name_in_use") throw error;
    }
  }
}

/**
 * Since when listeners have been away without a break, as far as regular inspections can tell. Pure: times come from
 * outside.
 */
export class Absences {
  readonly #since = new Map<string, { readonly epoch: number | null; readonly at: number }>();
  #inspectedAt = Number.NEGATIVE_INFINITY;

  readonly #afterMs: number;
  readonly #maxGapMs: number;

  /**
   * @param afterMs how long a listener must be away
   * @param maxGapMs inspections that are further apart than this say nothing of what was between them
   */
  constructor(afterMs: number, maxGapMs: number) {
    this.#afterMs = afterMs;
    this.#maxGapMs = maxGapMs;
  }

  /**
   * Takes what an inspection found.
   *
   * @param began when the inspection began, in ms
   * @param ended when it was over
   * @returns the names of those that have been away long enough
   */
  inspected(absent: readonly AbsentListener[], began: number, ended: number): string[] {
    if (began - this.#inspectedAt > this.#maxGapMs) this.#since.clear();
    this.#inspectedAt = ended;
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
    this.#inspectedAt = Number.NEGATIVE_INFINITY;
  }
}
