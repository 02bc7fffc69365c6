/**
 * Periodic counts for the metrics of messages that are only in the database: dead letters, and messages of the outbox
 * even if no process relays them.
 */
import type { PostgresSession } from "../postgres/index.js";
import { type Logger, Repeated } from "../runtime/index.js";
import { countStored, type NotifyQueue, notifyQueueSql, type StoredCounters, storedCountMs } from "../store/index.js";

/** Counts periodically, starting with the first run. */
export class StoredCounts extends Repeated {
  readonly #session: PostgresSession;
  readonly #logger: Logger;
  #counters: (StoredCounters & { readonly notifyQueue: NotifyQueue }) | undefined;

  /** @param session database session, which others may share */
  constructor(session: PostgresSession, logger: Logger) {
    super(storedCountMs, () => this.#count());
    this.#session = session;
    this.#logger = logger;
  }

  /** Last count; undefined before the first one and after a failure. */
  get counters(): (StoredCounters & { readonly notifyQueue: NotifyQueue }) | undefined {
    return this.#counters;
  }

  async #count(): Promise<void> {
    try {
      const [notifyQueue] = await this.#session.query<NotifyQueue>(notifyQueueSql);
      this.#counters = { ...(await countStored(this.#session.query)), notifyQueue: notifyQueue! };
    } catch (err) {
      this.#counters = undefined;
      if (!this.isStopped) this.#logger.debug({ err }, "failed to count the messages in the database");
    }
  }
}
