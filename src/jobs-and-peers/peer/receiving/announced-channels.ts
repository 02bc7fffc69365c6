/**
 * Lookups of channels that were announced to a listener and are not open yet.
 *
 * Any login that can connect to the database can announce ids without limit, so the cost of announcements is bounded.
 * Only one query runs at a time and looks up many ids. After a query that opened no channel there is a pause. With
 * more than `announcedChannels` ids, the ids are discarded and the listener looks up all its channels that have
 * messages.
 */
import { outboxConstants } from "../../../../generated/ts/settings/outbox.js";
import { type Clock, delay, shared, systemClock } from "../../../foundation/runtime/index.js";

/**
 * Maximum number of announced channels that a listener has not opened and that wait for a lookup. Beyond that, the
 * listener reads all its channels with messages instead, because any login that may connect can announce any number
 * of ids.
 */
export const announcedChannels = 1_000;

/** Queries of {@link AnnouncedChannels}. Their promises never reject. */
export interface ChannelQueries {
  /** Opens the given channels that the listener owns. @returns true if a channel was opened */
  open(channelIds: readonly number[]): Promise<boolean>;
  findAll(): Promise<void>;
}

export class AnnouncedChannels {
  /** At most one more than `announcedChannels`, which stands for all others. */
  readonly #ids = new Set<number>();
  readonly #stopping = new AbortController();

  readonly #queries: ChannelQueries;
  readonly #clock: Clock;

  constructor(queries: ChannelQueries, clock: Clock = systemClock) {
    this.#queries = queries;
    this.#clock = clock;
  }

  add(channelId: number): void {
    if (this.#stopping.signal.aborted) return;
    if (this.#ids.size <= announcedChannels) this.#ids.add(channelId);
    void this.#lookUp();
  }

  /** Discards all ids, because the listener has just looked up all its channels. */
  clear(): void {
    this.#ids.clear();
  }

  stop(): void {
    this.#stopping.abort();
    this.clear();
  }

  readonly #lookUp = shared(async () => {
    const ids = [...this.#ids];
    this.clear();
    if (ids.length === 0) return;
    if (ids.length > announcedChannels) await this.#queries.findAll();
    else if (await this.#queries.open(ids)) return;
    // The length is random, because thousands of processes may receive the same flood of announcements.
    await delay((Math.random() * outboxConstants.slowPollMs) / 2, this.#stopping.signal, this.#clock);
  });
}
