/** Counts for metrics of messages that are only in the database. */
import { tables } from "../../generated/ts/rows/peer.js";
import { metricsConstants } from "../../generated/ts/settings/metrics.js";
import type { SessionQuery } from "../postgres/index.js";

const { maxStoredCount, maxStoredRead, recentMs } = metricsConstants;

/** Messages in the database at the time of a count. */
export interface StoredCounters {
  readonly waiting: readonly {
    /** Destination. */
    readonly kind: "nats" | "peer";
    /** Messages of the outbox that have not been relayed, up to a limit. */
    readonly messages: number;
    /** Enqueue time of the oldest message, on the clock of `performance.now()`; undefined if there is none. */
    readonly oldestAt: number | undefined;
  }[];
  readonly deadLetters: readonly {
    readonly origin: "peer" | "subscription" | "outbox";
    /** Dead letters of the last `recentMs`, up to a limit. */
    readonly messages: number;
  }[];
}

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

/** Counts the messages of the outbox and the dead letters of the database. @throws the error of `query` */
export async function countStored(query: SessionQuery): Promise<StoredCounters> {
  const rows = await query<CountRow>(countSql, [maxStoredCount, recentMs, maxStoredRead]);
  const countedAt = performance.now();
  return {
    waiting: rows
      .filter(({ what }) => what === "waiting")
      .map(({ kind, messages, ageSeconds }) => ({
        ...{ kind: kind as "nats" | "peer", messages },
        oldestAt: ageSeconds === null ? undefined : countedAt - ageSeconds * 1_000,
      })),
    deadLetters: rows
      .filter(({ what }) => what === "dead")
      .map(({ kind, messages }) => ({ origin: kind as "peer" | "subscription" | "outbox", messages })),
  };
}
