/**
 * Lookups of channels that were announced to a listener and are not open yet.
 *
 * Any login that can connect to the database can announce ids without limit, so the cost of announcements is bounded.
 * Only one query runs at a time and looks up many ids. After a query that opened no channel there is a pause. With
 * more than `announcedChannels` ids, the ids are discarded and the listener looks up all its channels that have
 * messages.
 */
import { outboxConstants } from "../../../generated/ts/settings/outbox.js";
import { type Clock, systemClock } from "../../runtime/index.js";

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
  readonly #ids = new Set<number>();
  /** True if more ids were announced than the set may hold: the next query looks up all channels. */
  #isOverfull = false;
  #query: Promise<void> | undefined;
  /** Ends the current pause; undefined if there is none. */
  #endPause: (() => void) | undefined;
  #isStopped = false;

  readonly #queries: ChannelQueries;
  readonly #clock: Clock;

  constructor(queries: ChannelQueries, clock: Clock = systemClock) {
    this.#queries = queries;
    this.#clock = clock;
  }

  /** Promise of the running query; undefined if none is running. */
  get runningQuery(): Promise<void> | undefined {
    return this.#query;
  }

  add(channelId: number): void {
    if (this.#isStopped) return;
    if (!this.#isOverfull) {
      this.#ids.add(channelId);
      if (this.#ids.size > announcedChannels) {
        this.#ids.clear();
        this.#isOverfull = true;
      }
    }
    this.#lookUp();
  }

  /** Discards all ids, because the listener has just looked up all its channels. */
  clear(): void {
    this.#ids.clear();
    this.#isOverfull = false;
  }

  stop(): void {
    this.#isStopped = true;
    this.clear();
    this.#endPause?.();
  }

  #lookUp(): void {
    if (this.#query !== undefined || this.#endPause !== undefined) return;
    if (this.#ids.size === 0 && !this.#isOverfull) return;
    this.#query = this.#runQuery().then((isOpened) => {
      this.#query = undefined;
      if (isOpened) this.#lookUp();
      else this.#pause();
    });
  }

  async #runQuery(): Promise<boolean> {
    const ids = [...this.#ids];
    const findsAll = this.#isOverfull;
    this.clear();
    if (!findsAll) return this.#queries.open(ids);
    await this.#queries.findAll();
    return false;
  }

  /**
   * Pauses the queries. The length of the pause is random, because thousands of processes may receive the same flood of
   * announcements.
   */
  #pause(): void {
    if (this.#isStopped) return;
    const cancel = this.#clock.setTimeout(
      () => {
        this.#endPause = undefined;
        this.#lookUp();
      },
      (Math.random() * outboxConstants.slowPollMs) / 2,
    );
    this.#endPause = () => {
      this.#endPause = undefined;
      cancel();
    };
  }
}
