/**
 * Periodic counts for the metrics of messages that are only in the database: dead letters, messages of the outbox even if
 * no process relays them, and what waits for listeners.
 */
import { views } from "../../../generated/ts/rows/nats.js";
import type { PostgresSession } from "../../foundation/postgres/index.js";
import { type Logger, Repeated } from "../../foundation/runtime/index.js";
import { type NotifyQueue, notifyQueueSql } from "../../jobs-and-peers/store/index.js";
import { countShared, countStored, type SharedCounters, type StoredCounters } from "../../operating/operate/index.js";

/** Pause between two counts of what waits in the database. */
const storedCountMs = 15_000;

/** Pause after a count of the backlog, as a multiple of its duration. */
const backlogRest = 20;

const nothingShared: SharedCounters = { backlog: [], schedules: [] };

const leadSql = `SELECT l.epoch || ' ' || l.beat AS beat FROM ${views.bridgeLead} AS l WHERE l.owner IS NOT NULL`;

/** Counts of `hawser serve`. The shared ones are empty in processes that leave them to another one. */
export interface ServeStoredCounters extends StoredCounters, SharedCounters {
  readonly notifyQueue: NotifyQueue;
}

/** Counts periodically, starting with the first run. */
export class StoredCounts extends Repeated {
  readonly #session: PostgresSession;
  readonly #isLeading: () => boolean;
  readonly #logger: Logger;
  #counters: ServeStoredCounters | undefined;
  /** Heartbeat of the leader at the last count; undefined if no process led. */
  #beat: string | undefined;
  #lastShared = nothingShared;
  #restsUntil = 0;

  /**
   * @param session database session, which others may share
   * @param isLeading true while this process leads the subscriptions
   */
  constructor(session: PostgresSession, isLeading: () => boolean, logger: Logger) {
    super(storedCountMs, () => this.#count());
    this.#session = session;
    this.#isLeading = isLeading;
    this.#logger = logger;
  }

  /** Last count; undefined before the first one and after a failure. */
  get counters(): ServeStoredCounters | undefined {
    return this.#counters;
  }

  async #count(): Promise<void> {
    try {
      const [notifyQueue] = await this.#session.query<NotifyQueue>(notifyQueueSql);
      const stored = await countStored(this.#session.query);
      this.#counters = { ...stored, notifyQueue: notifyQueue!, ...(await this.#shared()) };
    } catch (err) {
      this.#counters = undefined;
      if (!this.isStopped) this.#logger.debug({ err }, "failed to count the messages in the database");
    }
  }

  async #shared(): Promise<SharedCounters> {
    if (!(await this.#isOwnTurn())) return nothingShared;
    const startedAt = performance.now();
    if (startedAt >= this.#restsUntil) {
      this.#lastShared = await countShared(this.#session.query);
      this.#restsUntil = performance.now() + backlogRest * (performance.now() - startedAt);
    }
    return this.#lastShared;
  }

  /**
   * True if this process leads, or if no process does, such as without NATS: the leader's heartbeat is as it was at the
   * last count. So mostly one process counts the backlog.
   */
  async #isOwnTurn(): Promise<boolean> {
    if (this.#isLeading()) return true;
    const before = this.#beat;
    try {
      const [lead] = await this.#session.query<{ beat: string }>(leadSql);
      this.#beat = lead?.beat;
      return lead === undefined || lead.beat === before;
    } catch (err) {
      // Any login with USAGE on the schema can hold up a view, and must not silence alerts by that.
      this.#logger.debug({ err }, "failed to read which process leads; this one counts the backlog, too");
      return true;
    }
  }
}
