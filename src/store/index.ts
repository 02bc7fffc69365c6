/**
 * Postgres as phone book, offline queue and ack ledger: migrations, leases, catalog, message store, cursors.
 *
 * Two things hold it together. Names are leased: an advisory lock says who may go on, an epoch in the catalog says whose
 * writes count, and every write of messages and cursors is fenced by it. And every write may be repeated: rows are unique
 * by their number, cursors only move forward, so that a commit whose answer was lost is simply sent again.
 */
export type { Channel, Channels, Position } from "./channels.js";
export { type Clock, systemClock } from "./clock.js";
export { compareMigratedSchema } from "./compare-schema.js";
export type { CommittedCursors, CursorCommit, CursorCommits, DeadLetter } from "./cursor-commits.js";
export { CursorCommitter, type CursorCommitterEvents } from "./cursor-committer.js";
export type { WriterName } from "./fence.js";
export type { Lease, LeaseState } from "./lease.js";
export type { TakeNameOptions } from "./leases.js";
export { type Logger, silentLogger } from "./logger.js";
export { type MigrationReport, migrate } from "./migrate.js";
export type { CatalogChange } from "./notifications.js";
export type { Pending, PendingMessages } from "./pending.js";
export type { Listener, PhoneBook, Registration, ServedTopic } from "./phone-book.js";
export type { Route, Routes, Sender } from "./routes.js";
export type { DatabaseLocation } from "./shared-database.js";
export { openStore, type Store, type StoreEvents, type StoreOptions } from "./store.js";
export type {
  DrainedPage,
  DrainLimits,
  HeaderPair,
  MessageToStore,
  StoredCodec,
  StoredMessage,
  StoredMessages,
} from "./stored-messages.js";
export type { Transaction } from "./transaction.js";
export type { Transactional, TransactionalOutcome } from "./transactional.js";
