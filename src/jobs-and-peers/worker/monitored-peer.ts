/** Access of `monitor` to the numbers of a peer, which are not part of the public interface of the peer. */

import { type Logger, within } from "../../foundation/runtime/index.js";
import type { PeerStoredCounters, SharedCounters } from "../../operating/operate/index.js";
import type { TopicHandlers } from "../handlers/topic-handlers.js";
import type { Lease } from "../store/index.js";
import type { PeerCounters } from "./counters.js";
import type { Run } from "./lifecycle.js";

/** Shortest time between two counts of what waits in the database. */
export const storedCountMs = 15_000;
/** Time for which a page of metrics waits for a count. */
const storedCountWaitMs = 2_000;

/** Run of a peer or worker as `monitor` sees it. */
interface MonitoredRun {
  /** Undefined for a worker. */
  readonly lease?: Pick<Lease, "state" | "remainingMs"> | undefined;
  readonly store: { readonly isUp: boolean };
  /** Time at which its TLS certificate ends, in ms since 1970; undefined without TLS. */
  readonly certificateEndsAt?: number | undefined;
  /** A worker has handlers and messages of the queue alone. */
  readonly numbers: {
    readonly running: number;
    readonly queued: number;
    readonly connections?: number;
    readonly listeners?: number;
  };
  /** Counts what the database has. @throws HawserError `store_failed` (as a rejection) */
  countStored(): Promise<CountedOfPeer>;
}

/** Peer or worker as `monitor` sees it. */
export interface MonitoredPeer {
  readonly name: string;
  readonly logger: Logger;
  readonly counters: PeerCounters;
  readonly handlers: TopicHandlers;
  readonly stored: StoredOfPeer;
  readonly run: Pick<Run<MonitoredRun>, "running">;
  /** True if the last run ended because another process took the name. */
  isNameLost(): boolean;
  health(): { readonly ready: boolean; readonly problems: readonly string[] };
}

/** Messages that the database has for a peer, and the numbers of the whole database, if this one counts them. */
export interface CountedOfPeer extends PeerStoredCounters {
  readonly shared: SharedCounters | undefined;
}

/** Monitored peers by the `Peer` object that the user has. */
export const monitoredPeers = new WeakMap<object, MonitoredPeer>();

/** Messages that the database has for a peer, counted on demand, and at most once in `storedCountMs`. */
export class StoredOfPeer {
  #counters: CountedOfPeer | undefined;
  #countedAt = Number.NEGATIVE_INFINITY;
  #counting: Promise<void> | undefined;
  readonly #now: () => number;

  /** @param now milliseconds of a monotonic clock */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Last count; undefined before the first one and after a failure. */
  get counters(): CountedOfPeer | undefined {
    return this.#counters;
  }

  /**
   * Counts again if the last count is old. Waits at most `storedCountWaitMs`; a count that takes longer goes on. Never
   * rejects.
   *
   * @param count undefined while the peer is not running
   */
  async refresh(count: (() => Promise<CountedOfPeer>) | undefined, logger: Logger): Promise<void> {
    if (count === undefined) {
      this.#counters = undefined;
      this.#countedAt = Number.NEGATIVE_INFINITY;
      return;
    }
    if (this.#counting === undefined && this.#now() - this.#countedAt >= storedCountMs) {
      this.#countedAt = this.#now();
      this.#counting = this.#count(count, logger).finally(() => {
        this.#counting = undefined;
      });
    }
    if (this.#counting !== undefined) await within(storedCountWaitMs, this.#counting);
  }

  async #count(count: () => Promise<CountedOfPeer>, logger: Logger): Promise<void> {
    try {
      this.#counters = await count();
    } catch (err) {
      this.#counters = undefined;
      logger.debug({ err }, "failed to count the messages in the database");
    }
  }
}
