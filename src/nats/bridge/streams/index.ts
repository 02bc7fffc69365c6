/**
 * Subscriptions to JetStream streams: each message takes effect in Postgres exactly once.
 *
 *     stream ──▶ source (a durable pull consumer) ──▶ reader ──▶ queues ──▶ executor ──▶ Postgres: effects and position
 *                                                       ▲                                   │
 *                                                       └────── acknowledged, behind it ◀───┘
 *
 * The position is a row (`stream-table.ts`) that is written in the same transaction as the effects of the function
 * (`executor/advance.ts`). So a message is either done or not, whatever fails in between. The acknowledgements in NATS
 * only inform operators: they are sent after the commit, and a consumer whose state differs from the row is created
 * again. The rules are a pure state machine (`reader.ts`), which a simulator runs through crashes, failovers and
 * restored backups of both sides. `streams.ts` runs its steps; `stream-source.ts` is its access to NATS.
 *
 * Batches, bisection, dead letters and retries work as for all subscriptions (`queue/`).
 */
export { type StreamCounts, Streams } from "./streams.js";
