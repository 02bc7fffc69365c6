/**
 * Periodic counts for the metrics of messages that are only in the database: dead letters, and messages of the outbox
 * even if no process relays them.
 */
import { tables } from "../../generated/ts/rows/peer.js";
import { monitorConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import { type Logger, Repeated } from "../runtime/index.js";
import type { StoredCounters } from "./monitor/index.js";

const { storedCountMs, maxStoredCount, maxStoredRead, recentMs } = monitorConstants;

const countSql = `
  SELECT 'waiting' AS what, k.kind, count(u.id)::integer AS messages,
         extract(epoch FROM clock_timestamp() - min(u.enqueued_at))::float8 AS "ageSeconds"
    FROM (VALUES ('nats'), ('peer')) AS k (kind) LEFT JOIN LATERAL hawser.outbox_undone(k.kind, NULL, $1, $3) AS u ON true
   GROUP BY k.kind
  UNION ALL
  SELECT 'dead', o.origin, count(d.origin)::integer, NULL
    FROM (VALUES ('peer'), ('subscription'), ('outbox')) AS o (origin)
    LEFT JOIN LATERAL (
      SELECT l.origin FROM ${tables.deadLetter} AS l WHERE l.origin = o.origin AND l.created_at > now() - $2 * interval '1 ms' LIMIT $1
    ) AS d ON true
   GROUP BY o.origin`;

interface CountRow {
  readonly what: "waiting" | "dead";
  readonly kind: string;
  readonly messages: number;
  readonly ageSeconds: number | null;
}

/** Counts periodically, starting with the first run. */
export class StoredCounts extends Repeated {
  readonly #session: PostgresSession;
  readonly #logger: Logger;
  #counters: StoredCounters | undefined;

  /** @param session database session, which others may share */
  constructor(session: PostgresSession, logger: Logger) {
    super(storedCountMs, () => this.#count());
    this.#session = session;
    this.#logger = logger;
  }

  /** Last count; undefined before the first one and after a failure. */
  get counters(): StoredCounters | undefined {
    return this.#counters;
  }

  async #count(): Promise<void> {
    try {
      const rows = await this.#session.query<CountRow>(countSql, [maxStoredCount, recentMs, maxStoredRead]);
      const countedAt = performance.now();
      this.#counters = {
        waiting: rows
          .filter(({ what }) => what === "waiting")
          .map(({ kind, messages, ageSeconds }) => ({
            ...{ kind, messages },
            oldestAt: ageSeconds === null ? undefined : countedAt - ageSeconds * 1_000,
          })),
        deadLetters: rows
          .filter(({ what }) => what === "dead")
          .map(({ kind, messages }) => ({ origin: kind, messages })),
      };
    } catch (err) {
      this.#counters = undefined;
      if (!this.isStopped) this.#logger.debug({ err }, "failed to count the messages in the database");
    }
  }
}
