/**
 * Streams into SQL, exactly once.
 *
 *     stream ──▶ source (a durable pull consumer) ──▶ reader ──▶ queues ──▶ executor ──▶ Postgres: effects and position
 *                                                       ▲                                   │
 *                                                       └────── acknowledged, behind it ◀───┘
 *
 * The position is a row (`stream-table.ts`), and is written in the transaction in which the function runs
 * (`executor/advance.ts`). So a message is done or it is not, whatever dies in between. What NATS knows of a consumer's
 * progress is only what operators see: it is acknowledged after the commit, and where it stands elsewhere than the row
 * says, the consumer is made anew. The rules are a pure state machine (`reader.ts`), which a simulator runs through crashes,
 * failovers and restored copies of both sides. `streams.ts` carries out its steps; `stream-source.ts` is its NATS.
 *
 * Batches, halving, dead letters and retries are those of all subscriptions (`queue/`).
 */
export { type StreamCounts, Streams } from "./streams.js";
