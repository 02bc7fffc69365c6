/** Sessions with Postgres: where they go, how they are opened, and which server answers. */
export { checkConnectionUri, DatabaseAddress, hostOf } from "./database-address.js";
export {
  localSettingsSql,
  mayBeReachedLater,
  noHostOfUse,
  type OpenSession,
  openSession,
  postgresBackoff,
  type SessionLimits,
  SessionPool,
  sessionSettingsSql,
  userPathSql,
} from "./open-session.js";
export { serverIdentity } from "./server-identity.js";
export { isTransactionPooled, poolerWords, refuseTransactionPooler } from "./transaction-pooler.js";
