/**
 * Postgres as directory, offline queue and ack ledger: migrations, leases, catalog, message store, cursors.
 *
 * Two things hold it together. Names are leased: an advisory lock says who may go on, an epoch in the catalog says whose
 * writes count, and every write of messages and cursors is fenced by it. And every write may be repeated: rows are unique
 * by their number, cursors only move forward, so that a commit whose answer was lost is simply sent again.
 */

export { danglesSql, functionNameSql, runSchema, tokenTypeSql, wrapperJoinSql } from "./bindings.js";
export type { Channel, ChannelOwner, ChannelOwners, Channels, Position } from "./channels.js";
export { withCommandDatabase } from "./command-database.js";
export type { CommittedCursors, CursorCommit, CursorCommits, DeadLetter } from "./cursor-commits.js";
export { CursorCommitter, type CursorCommitterEvents } from "./cursor-committer.js";
export type { DeadLetterFilter } from "./dead-letters.js";
export {
  type DeadLetterEntry,
  type DeadLetterSelection,
  type DeadLetters,
  type DiscardReport,
  deadLetters,
  type RefusedDeadLetter,
  type RetriedDeadLetter,
  type RetryReport,
  type WholeDeadLetter,
} from "./dead-letters.js";
export type { Directory, Listener, Registration, Route, Routes, Sender, ServedTopic } from "./directory.js";
export { type Grant, grantedRoles, grants, grantsIn, grantsSql, tryTransaction } from "./grants.js";
export { type Lease, type LeaseState, leaseHeldSql, type TakeNameOptions } from "./leases.js";
export {
  listPeers,
  listPending,
  listTopics,
  type PeerOverview,
  type PendingFilter,
  type PendingOverview,
  type TopicOverview,
} from "./mesh-overview.js";
export { type MeshSecretEntry, type MeshSecrets, meshSecrets } from "./mesh-secrets.js";
export { applyMissing, type MigrationReport, migrate, migrationSql, missingSteps } from "./migrate.js";
export { checksumOf, generatedSchemaSql, type Migration, migrations } from "./migrations.js";
export { explainRefusal, explainServeRefusal } from "./missing-rights.js";
export { type DefinedNatsServer, defineNatsServer, restoreNatsServer } from "./nats-server.js";
export type { CatalogChange } from "./notifications.js";
export { type Announce, announcements } from "./notifications.js";
export type { AbsentListener, Orphans, Pending, PendingMessages } from "./pending.js";
export {
  type HandedOverChannel,
  type ListenerState,
  type OwnedChannel,
  type Reassign,
  type ReassignOptions,
  reassign,
} from "./reassign.js";
export { inspectSchema, newSchemaSql, schemaInspectionSql, trustedRoles } from "./schema.js";
export type { DatabaseLocation } from "./shared-database.js";
export { openStore, type Store, type StoreEvents, type StoreOptions } from "./store.js";
export { isRefusedForGood, scriptFailure, storeFailure } from "./store-failure.js";
export type {
  DrainedPage,
  DrainLimits,
  HeaderPair,
  MessageToStore,
  StoredCodec,
  StoredMessage,
  StoredMessages,
} from "./stored-messages.js";
export type { Transaction, WriterName } from "./transaction.js";
export type { Transactional, TransactionalOutcome } from "./transactional.js";
export { installationTurn, takeTurn } from "./turn.js";
