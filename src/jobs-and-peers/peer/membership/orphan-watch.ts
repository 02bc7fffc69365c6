/**
 * Release of what is stored for listeners that have been absent for `takeoverMs`, if this peer can handle all of a channel: any listener of the
 * topics may take it from the queue then. Several peers may watch the same listener. For what is enqueued for such a listener, all of
 * them stand in until it is back.
 */

import { HawserError } from "../../../foundation/errors/index.js";
import { type Clock, Repeated, systemClock } from "../../../foundation/runtime/index.js";
import type { AbsentListener } from "../../../operating/operate/index.js";
import { polls } from "../../handlers/polls.js";
import type { PeerContext } from "../core/context.js";

/** Minimum interval between inspections in ms. */
const minIntervalMs = 250;
/** Maximum number of listeners to stand in for: each is a place to look at. The others follow when nothing is left of these. */
const mostStoodInFor = 100;
/** Number of inspections during the required time of absence. */
const inspections = 4;

/** Parts of {@link PeerContext} that the watch uses. */
export type OrphanWatchContext = Pick<PeerContext, "sender" | "lease" | "logger"> & {
  readonly store: Pick<PeerContext["store"], "absentListeners" | "channelsServedBy" | "reassign" | "on">;
};

/** Filter of listeners and their required time of absence. */
export interface Watched {
  readonly afterMs: number;
  readonly isWatched: (listener: AbsentListener) => boolean;
  /** Gets the names of the listeners that have been absent for long enough, with each look. */
  readonly standInFor: (names: readonly string[]) => void;
}

export class OrphanWatch {
  readonly #absences: Absences;
  readonly #intervalMs: number;
  readonly #inspections: Repeated;
  /** Next inspection by listener, for long-absent listeners whose last inspection found nothing to release. */
  readonly #notBefore = new Map<string, number>();
  #endSessionWatch: () => void = () => undefined;

  readonly #context: OrphanWatchContext;
  readonly #isWatched: Watched["isWatched"];
  readonly #standInFor: Watched["standInFor"];
  readonly #serves: () => readonly string[];
  readonly #clock: Clock;

  /** @param serves names of the topics that the peer currently serves */
  constructor(
    context: OrphanWatchContext,
    { afterMs, isWatched, standInFor }: Watched,
    serves: () => readonly string[],
    clock: Clock = systemClock,
  ) {
    this.#context = context;
    this.#isWatched = isWatched;
    this.#standInFor = standInFor;
    this.#serves = serves;
    this.#clock = clock;
    this.#intervalMs = Math.min(Math.max(afterMs / inspections, minIntervalMs), polls.everyMs);
    this.#inspections = new Repeated(this.#intervalMs, () => this.#inspect(), clock);
    this.#absences = new Absences(afterMs, 2 * this.#intervalMs + minIntervalMs);
  }

  start(): void {
    // A lost session with Postgres ends the leases of all peers, so absences before it prove nothing.
    this.#endSessionWatch = this.#context.store.on("session", () => this.#absences.reset());
    this.#inspections.runIn(this.#intervalMs);
  }

  stop(): void {
    this.#inspections.stop();
    this.#endSessionWatch();
  }

  async #inspect(): Promise<void> {
    const { store, lease, logger } = this.#context;
    try {
      if (lease.state !== "held" || !lease.isWritable) {
        this.#absences.reset();
        return;
      }
      const began = this.#clock.now();
      const absent = (await store.absentListeners(this.#serves())).filter(this.#isWatched);
      for (const name of this.#notBefore.keys()) {
        if (!absent.some((listener) => listener.name === name)) this.#notBefore.delete(name);
      }
      const names = this.#absences.inspected(absent, began, this.#clock.now());
      const queued = new Set(absent.filter(({ isEnqueuedFor }) => isEnqueuedFor).map(({ name }) => name));
      if (!this.#inspections.isStopped)
        this.#standInFor(names.filter((name) => queued.has(name)).slice(0, mostStoodInFor));
      for (const name of names) {
        if (this.#inspections.isStopped || !lease.isWritable) return;
        await this.#takeOver(name);
      }
    } catch (err) {
      this.#absences.reset();
      logger.debug({ err }, "could not look up absent listeners; retrying");
    }
  }

  async #takeOver(from: string): Promise<void> {
    const { store, logger } = this.#context;
    const now = this.#clock.now();
    if (now < (this.#notBefore.get(from) ?? now)) return;
    const serves = this.#serves();
    const channelIds = await store.channelsServedBy(from, serves);
    if (channelIds.length === 0) {
      this.#notBefore.set(from, now + polls.everyMs);
      return;
    }
    this.#notBefore.delete(from);
    try {
      const channels = await store.reassign({ from, channelIds });
      const stored = channels.reduce((sum, channel) => sum + channel.stored, 0);
      if (channels.length === 0) this.#notBefore.set(from, now + polls.everyMs);
      else {
        const counts = { from, channels: channels.length, stored };
        logger.warn(counts, `released the messages that were stored for "${from}", which is absent`);
      }
    } catch (error) {
      // The listener has just returned.
      if (!(error instanceof HawserError) || error.code !== "name_in_use") throw error;
    }
  }
}

/** Start times of continuous absences, as far as regular inspections can tell. Pure: times are arguments. */
export class Absences {
  readonly #since = new Map<string, { readonly epoch: number | null; readonly at: number }>();
  #inspectedAt = Number.NEGATIVE_INFINITY;

  readonly #afterMs: number;
  readonly #maxGapMs: number;

  /**
   * @param afterMs required time of absence in ms
   * @param maxGapMs maximum time between inspections in ms; a longer gap restarts all absences
   */
  constructor(afterMs: number, maxGapMs: number) {
    this.#afterMs = afterMs;
    this.#maxGapMs = maxGapMs;
  }

  /**
   * Records an inspection.
   *
   * @param began start of the inspection in ms
   * @param ended end of the inspection in ms
   * @returns names of listeners that have been absent long enough
   */
  inspected(absent: readonly AbsentListener[], began: number, ended: number): string[] {
    if (began - this.#inspectedAt > this.#maxGapMs) this.#since.clear();
    this.#inspectedAt = ended;
    const before = new Map(this.#since);
    this.#since.clear();
    for (const { name, epoch } of absent) {
      const known = before.get(name);
      // A changed epoch means that the listener was present in between.
      this.#since.set(name, known?.epoch === epoch ? known : { epoch, at: ended });
    }
    return absent
      .map(({ name }) => name)
      .filter((name) => began - (this.#since.get(name)?.at ?? began) >= this.#afterMs);
  }

  /** Restarts all absences. */
  reset(): void {
    this.#since.clear();
    this.#inspectedAt = Number.NEGATIVE_INFINITY;
  }
}
