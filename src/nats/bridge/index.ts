/**
 * From NATS to SQL: runs the SQL functions that are bound to NATS subjects. See README.md.
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
