/**
 * Postgres as directory, offline queue and cursor store: migrations, leases, directory, stored messages, cursors.
 *
 * Two rules hold throughout. Names are leased: the row of a name records the owning session, and every write of
 * messages and cursors is fenced by the epoch in that row. And every write can be repeated: rows are unique by their
 * number and cursors only move forward, so that a commit whose answer was lost is simply sent again.
 */

export { danglesSql, functionNameSql, mayBindSql, runSchema, tokenTypeSql, wrapperJoinSql } from "./bindings.js";
export { type LeaderOverview, listStreamSubscriptions, readLeader } from "./bridge-overview.js";
export type { Channel, ChannelOwner, Position } from "./channels.js";
export { openDatabase, withCommandDatabase } from "./command-database.js";
export type { CommittedCursors, CursorCommit, DeadLetter } from "./cursor-commits.js";
export { CursorCommitter } from "./cursor-committer.js";
export { type Database, statementLimits, statementTimeoutMs } from "./database.js";
export { type DeadLetterCause, type DeadLetterCauses, deadLetterCauses } from "./dead-letter-causes.js";
export { readDeadLetterRetention, setDeadLetterRetention } from "./dead-letter-retention.js";
export {
  type DeadLetterEntry,
  type DeadLetterFilter,
  type DeadLetterOutcome,
  type DeadLetterSelection,
  type DeadLetters,
  deadLetters,
  type WholeDeadLetter,
} from "./dead-letters.js";
export type { Listener, Registration, Route, Sender, ServedTopic } from "./directory.js";
export {
  type FindStep,
  type FoundMessage,
  findByNumber,
  findMessage,
  findSteps,
  foundPlaces,
  messageIdsOf,
  type OutboxMessage,
  type QueuedMessageFound,
} from "./find-message.js";
export { forgetPeer } from "./forget-peer.js";
export { natsFunctionsSchema } from "./functions-schema.js";
export { type Grant, grantedRoles, grants, grantsIn, tryTransaction } from "./grants.js";
export { installationLockKey, installationOwner, takeInstallationLock, turnLimitMs } from "./installation-lock.js";
export { type Lease, type LeaseState, leasePollMs } from "./leases.js";
export type { Listing } from "./listing.js";
export {
  type BacklogState,
  backlogSql,
  listPeers,
  listPending,
  listTopics,
  otherTopicsOf,
  type PeerOverview,
  type PendingOverview,
  type TopicOverview,
} from "./mesh-overview.js";
export { type MeshSecrets, meshSecrets } from "./mesh-secrets.js";
export {
  applyMissing,
  inUse,
  isCurrent,
  type MissingSteps,
  migrate,
  missingSteps,
  plannedTransactions,
  repairState,
  wholeIfNew,
} from "./migrate.js";
export {
  checksumOf,
  functionsChecksum,
  generatedSchemaSql,
  grantsSql,
  type Migration,
  migrations,
  type ProgramSchema,
  programSchema,
} from "./migrations.js";
export { explainRefusal, explainServeRefusal } from "./missing-privileges.js";
export { type DefinedNatsServer, defineNatsServer, restoreNatsServer } from "./nats-server.js";
export {
  type CatalogChange,
  catalogChannel,
  dueChannel,
  messageChannel,
  type NotifyQueue,
  notifyQueueLimit,
  notifyQueueSql,
} from "./notifications.js";
export {
  cancelScheduled,
  listScheduled,
  type OutboxOverview,
  outboxOverview,
  replayOutbox,
  type ScheduledMessage,
} from "./outbox-overview.js";
export {
  type Cell,
  columnsIn,
  type OverviewTable,
  outboxTable,
  peersTable,
  pendingTable,
  scheduledTable,
  schedulesTable,
  streamsTable,
  type Tone,
  topicsTable,
} from "./overview-tables.js";
export type { AbsentListener, PendingMessages } from "./pending.js";
export { Preparation } from "./preparation.js";
export type { Looked, QueueRow, TakenRow } from "./queue.js";
export { type HandedOverChannel, type ListenerState, type OwnedChannel, reassign } from "./reassign.js";
export { listSchedules, removeSchedule, type ScheduleOverview } from "./schedule-overview.js";
export {
  inspectSchema,
  newSchemaSql,
  ownSchemaNames,
  ownSchemas,
  schemaInspectionSql,
  tableSchema,
  trustedRoles,
} from "./schema.js";
export { behindSequences, raiseSequences } from "./sequences.js";
export { openStore, type Store, type StoreOptions } from "./store.js";
export { isRefusedForGood, isTransientFailure, scriptFailure, storeFailure } from "./store-failure.js";
export {
  type Backlog,
  countBacklog,
  countStored,
  type PeerStoredCounters,
  type StoredCounters,
  type StoredTopic,
} from "./stored-counts.js";
export type { MessageToStore } from "./stored-messages.js";
export { drainBytes, drainRows, insertBytes, insertRows } from "./stored-messages.js";
export {
  describeDifferences,
  type StateDifference,
  sameDifferences,
  stateDifferences,
  stateRepairBlock,
  stateRepairsSql,
} from "./table-state.js";
export type { Transaction } from "./transaction.js";
export type { HandledMessage } from "./transactional.js";
