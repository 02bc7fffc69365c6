/** Sessions with Postgres: addresses, pools of users, opening, ownership, and the identity of the server. */
export { BorrowedClients } from "./borrowed-clients.js";
export { functionClient, type SessionQuery } from "./connection.js";
export { type ClientSource, DatabaseAddress, sourceOf } from "./database-address.js";
export {
  filteredTable,
  isFiltered,
  isServerError,
  isTransient,
  lacksPrivilege,
  messageWithRemedy,
  OpenAttempts,
  outcomeOf,
  queryCanceled,
  spoilsConnection,
  sqlstateOf,
  unfilteredSql,
  untranslatable,
  type WriteOutcome,
  withFilterRemedy,
} from "./failure.js";
export {
  functionSessionFacts,
  functionSettingsSql,
  localSettingsSql,
  loginSettingsSql,
  mayServeLater,
  noSuitableHost,
  type OpenSession,
  openSession,
  postgresBackoff,
  type SessionLimits,
  sessionSettingsSql,
} from "./open-session.js";
export { ownTypes, queryOwn } from "./own-types.js";
export { type Life, type OwnedState, Owner, type Ownership, type OwnershipState } from "./ownership.js";
export {
  type Columns,
  mayFollow,
  PreparedRun,
  type PreparedStatement,
  parameter,
  queryBehind,
  removePrepared,
  runPrepared,
} from "./prepared-run.js";
export { relationOidSql } from "./relation-oid.js";
export { serverIdentity } from "./server-identity.js";
export { PostgresSession, type PostgresSessionOptions } from "./session.js";
export { type ClientPool, SessionPool } from "./session-pool.js";
export { isTransactionPooled, poolerWords, refuseTransactionPooler } from "./transaction-pooler.js";
export { CommitWatch } from "./unconfirmed-commit.js";
