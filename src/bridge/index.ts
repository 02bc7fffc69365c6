/**
 * From NATS to SQL: runs the SQL functions that are bound to NATS subjects.
 *
 *     NATS ──▶ receiver ──▶ subscriptions ──▶ queue (one per subscription) ──▶ executor ──▶ Postgres
 *                               │  ▲                         │
 *                   takeover buffer │                        └──▶ dead letters
 *                               saved messages (a table)
 *
 * `Bridge` builds the parts. All processes receive every message. One of them is the leader (`leadership/`) and runs
 * what it receives; the others keep messages for a takeover (`succession.ts`). In the leader, the receiver puts each message into the
 * queues of its subscriptions (`queue/`), and the executor (`executor/`) runs their batches in fenced transactions,
 * which commit only under the leader's epoch. Messages that exceed the memory limit, and messages left over at
 * shutdown, go to the table of saved messages (`saved-messages.ts`) and are run from there, in order. Requests take a
 * separate path (`responders/`), in every process. The leader also reads JetStream streams (`streams/`); their messages
 * go through queues and executor, too. `bindings.ts` reads which functions are bound; `role/` watches whether Postgres
 * is a primary and publishes its role to NATS.
 *
 * Guarantees: each message that a living process has received takes effect at least once, in order within a
 * subscription, unless it becomes a dead letter, or exceeds the limits of memory and table. docs/nats-to-sql.md lists
 * when it can take effect twice, such as around a takeover. The functions of one role cannot exhaust the memory,
 * sessions or saved bytes of other roles.
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
