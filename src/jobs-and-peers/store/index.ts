/**
 * Postgres as directory, offline queue and cursor store: leases, directory, stored messages, cursors.
 *
 * Two rules hold throughout. Names are leased: the row of a name records the owning session, and every write of
 * messages and cursors is fenced by the epoch in that row. And every write can be repeated: rows are unique by their
 * number and cursors only move forward, so that a commit whose answer was lost is simply sent again.
 */

export { batched } from "./batched.js";
export {
  type Channel,
  channels,
  cursorJoin,
  isWaitingSql,
  type Position,
} from "./channels.js";
export { columnsOf } from "./columns.js";
export { type CommittedCursors, type CursorCommit, cursorCommits, type LanesLeft } from "./cursor-commits.js";
export { CursorCommitter, type CursorCommitterEvents } from "./cursor-committer.js";
export { Database, lockTimeoutMs, type Statement, statementLimits, statementTimeoutMs } from "./database.js";
export {
  directory,
  type Listener,
  type Registration,
  type Route,
  routes,
  type Sender,
  type ServedTopic,
  senderKey,
} from "./directory.js";
export {
  type Lease,
  type LeaseState,
  Leases,
  leasePollMs,
  nameHeldSql,
  type TakeNameOptions,
  unlessRunning,
} from "./leases.js";
export { escaped, type LeftMessage, leftArguments, leftMessage } from "./leaving.js";
export {
  announce,
  type CatalogChange,
  catalogChannel,
  dueChannel,
  messageChannel,
  type NotifyQueue,
  notifyQueueLimit,
  notifyQueueSql,
  parseAnnouncement,
  parseCatalogChange,
  secretsChannel,
} from "./notifications.js";
export { type OverflowMessage, overflow } from "./overflow.js";
export { type CompletedJob, keptAtOnce, type Looked, Queue, queueApplicationName, resultsText } from "./queue.js";
export { keyOf, QueuedMessage, type QueuePlace, rowOf } from "./queued-message.js";
export { reportedDurations, reportedLimitsMs } from "./reported-durations.js";
export type { HeaderPair } from "./row-faults.js";
export { isRefusedForGood, isStoreFailure, isTransientFailure, scriptFailure, storeFailure } from "./store-failure.js";
export {
  backlogCountRows,
  drainBytes,
  drainRows,
  insertBytes,
  insertRows,
  type MessageToStore,
  storedMessages,
} from "./stored-messages.js";
export { beginStatement, type Transaction, type UserQuery, type WriterName } from "./transaction.js";
