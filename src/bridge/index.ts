/**
 * Runs the SQL functions that NATS reaches.
 */
export { Bridge, type BridgeOptions, type BridgeStats } from "./bridge.js";
export {
  type DatabaseIdentity,
  differenceOf,
  identitySql,
  isSameDatabase,
  sameDatabaseRemedy,
} from "./executor/database-identity.js";
