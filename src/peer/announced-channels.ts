/**
 * Channels that were announced to a listener and that it has not opened: they are looked up.
 *
 * Any login that may connect to the database can announce keys without end, so what an announcement costs is bounded: there is
 * one query at a time, and if it opened no channel, the next one comes after a pause. Many keys share a query. Beyond
 * `announcedChannels` of them they are forgotten, and the listener looks for all its channels with messages instead.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type Clock, systemClock } from "../runtime/index.js";

/** The queries of {@link AnnouncedChannels}. They do not reject. */
export interface ChannelQueries {
  /** Opens those of the channels that the listener owns. @returns whether one was opened */
  open(connectionKeys: readonly number[]): Promise<boolean>;
  /** Opens all channels of the listener that have messages. */
  findAll(): Promise<void>;
}

export class AnnouncedChannels {
  readonly #keys = new Set<number>();
  /** More keys were announced than are kept. */
  #isOverfull = false;
  #query: Promise<void> | undefined;
  /** Ends the pause; undefined: there is none. */
  #endPause: (() => void) | undefined;
  #isStopped = false;

  readonly #queries: ChannelQueries;
  readonly #clock: Clock;

  constructor(queries: ChannelQueries, clock: Clock = systemClock) {
    this.#queries = queries;
    this.#clock = clock;
  }

  /** Resolves when the query that is under way has ended; undefined: none is. */
  get lookedUp(): Promise<void> | undefined {
    return this.#query;
  }

  /** A channel was announced. */
  add(connectionKey: number): void {
    if (this.#isStopped) return;
    if (!this.#isOverfull) {
      this.#keys.add(connectionKey);
      if (this.#keys.size > storeConstants.announcedChannels) {
        this.#keys.clear();
        this.#isOverfull = true;
      }
    }
    this.#lookUp();
  }

  /** Forgets what waits: the listener looks for all its channels by itself. */
  clear(): void {
    this.#keys.clear();
    this.#isOverfull = false;
  }

  stop(): void {
    this.#isStopped = true;
    this.clear();
    this.#endPause?.();
  }

  #lookUp(): void {
    if (this.#query !== undefined || this.#endPause !== undefined) return;
    if (this.#keys.size === 0 && !this.#isOverfull) return;
    this.#query = this.#ask().then((isOpened) => {
      this.#query = undefined;
      if (isOpened) this.#lookUp();
      else this.#pause();
    });
  }

  async #ask(): Promise<boolean> {
    const keys = [...this.#keys];
    const findsAll = this.#isOverfull;
    this.clear();
    if (!findsAll) return this.#queries.open(keys);
    await this.#queries.findAll();
    return false;
  }

  /** At a random moment, since thousands of processes may get the same flood. */
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
