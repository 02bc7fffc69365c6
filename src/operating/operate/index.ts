/** Lists, dead letters, the search and reassignment, for `hawser`, its page, `hawser doctor` and peers; see README.md. */
export { type Act, type ActFilter, listActs } from "./audit.js";
export { type LeaderOverview, listStreamSubscriptions, readLeader } from "./bridge-overview.js";
export { openDatabase, withCommandDatabase } from "./command-database.js";
export { type DeadLetterCause, type DeadLetterCauses, deadLetterCauses, newsMs } from "./dead-letter-causes.js";
export {
  type DeadLetterEdit,
  type DeadLetterEntry,
  type DeadLetterFilter,
  type DeadLetterOutcome,
  type DeadLetterSelection,
  type DeadLetters,
  deadLetterIdOf,
  deadLetters,
  type WholeDeadLetter,
} from "./dead-letters.js";
export {
  type EndedMessage,
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
export { type FirstJobs, firstJobs, type JobMessage, jobMessage } from "./first-jobs.js";
export { forgetPeer } from "./forget-peer.js";
export { natsFunctionsSchema } from "./functions-schema.js";
export { type ImportedQueue, type ImportSource, importJobs, importSources } from "./import-jobs.js";
export type { Listing } from "./listing.js";
export {
  type BacklogState,
  backlogSql,
  type ListenerOverview,
  listPeers,
  listPending,
  listPresence,
  listTopics,
  needsHelp,
  otherTopicsOf,
  type PeerOverview,
  type PeerPresence,
  type PendingFilter,
  type PendingOverview,
  type TopicFilter,
  type TopicOverview,
} from "./mesh-overview.js";
export { meshSecrets } from "./mesh-secrets.js";
export { type DefinedNatsServer, defineNatsServer, restoreNatsServer } from "./nats-server.js";
export {
  type Cancelled,
  cancelMessages,
  countLater,
  type EnqueuedKind,
  type EnqueuedOverview,
  type HeldBy,
  jobsOverview,
  listScheduled,
  natsOverview,
  type OutboxOverview,
  outboxOverview,
  replayOutbox,
  type ScheduledMessage,
} from "./outbox-overview.js";
export { type AbsentListener, type PendingMessages, pending } from "./pending.js";
export { type ListenedChannel, type ListenerState, type ReleasedChannel, reassign } from "./reassign.js";
export { readRetention, setRetention } from "./retention.js";
export {
  listSchedules,
  removeSchedule,
  runSchedule,
  type ScheduleOverview,
  type StuckSchedule,
  stuckSchedules,
} from "./schedule-overview.js";
export {
  type Backlog,
  countShared,
  countStored,
  type PeerStoredCounters,
  type SharedCounters,
  type StoredCounters,
  type StoredTopic,
  storedCounts,
} from "./stored-counts.js";
export {
  type HandlerDurations,
  type PresentRates,
  presentPoints,
  readSeries,
  type Series,
  type SeriesKind,
  type SeriesReading,
  type SeriesRequest,
  type SeriesSpan,
  takeSample,
  type Values,
} from "./time-series.js";
export {
  keepResults,
  limitsText,
  limitTopic,
  pauseTopic,
  resumeTopic,
  type TopicLimits,
} from "./topic-settings.js";
export { type AskedJob, type Condition, why } from "./why.js";
export { type WorkerStatus, workerStatus } from "./worker-status.js";
