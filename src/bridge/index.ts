/**
 * From NATS to SQL: runs the SQL functions that are bound to subjects of NATS.
 *
 *     NATS ──▶ receiver ──▶ subscriptions ──▶ queue (one per subscription) ──▶ executor ──▶ Postgres
 *                               │  ▲                         │
 *                   takeover buffer │                        └──▶ dead letters
 *                               saved messages (a table)
 *
 * `Bridge` connects the parts. All processes receive; one of them leads (`leadership/`) and runs what it receives, the
 * others keep it for a takeover. While it leads, a message goes from the receiver into the queues of its subscriptions
 * (`queue/`), whose batches the executor runs (`executor/`) in transactions behind the fence: they commit only under the
 * leader's epoch. What there is no memory for, and what a process leaves when it ends, goes to the table of saved messages
 * (`saved-messages.ts`) and is run from there, in order. Requests take another way (`responders/`), in every process.
 * `bindings.ts` follows which functions are bound; `role/` whether Postgres is a primary, and tells NATS.
 *
 * What holds: a committed effect happens at least once for each message that a living process has received, in order for
 * each subscription; twice only around a takeover, a lost connection or a lost commit's answer. A function cannot hold up
 * those of other roles, in memory, in sessions or in the table.
 */
export { Bridge, type BridgeStats } from "./bridge.js";
export {
  type DatabaseIdentity,
  differenceOf,
  identitySql,
  isSameDatabase,
  sameDatabaseRemedy,
} from "./executor/index.js";
export type { ResponderStats } from "./responders/index.js";
export type { PostgresRole } from "./role/index.js";
export type { StreamCounts } from "./streams/index.js";
export type { SubscriptionCounts } from "./subscriptions.js";
