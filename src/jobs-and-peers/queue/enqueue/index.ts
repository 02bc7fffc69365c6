/**
 * Statements of users in their own transactions, with any SQL client: messages for peers and for NATS, schedules, the state of
 * a message, and settings of topics. No peer is needed. Peers share the rules of payloads, headers and topics.
 */
export {
  type AnyJson,
  checkContent,
  checkedOnce,
  checkHeaders,
  checkMarks,
  checkPayload,
  expiresHeader,
  type HeadersInput,
  headerPairsOf,
  type Payload,
  type Sendable,
  withContext,
  withHeader,
} from "./content.js";
export { checkedId, checkServable, checkTopic } from "./destination.js";
export {
  type CancelledJob,
  type CancelOutcome,
  cancel,
  cancelFlow,
  enqueue,
  enqueueBatch,
  enqueueFrom,
  enqueueReply,
} from "./enqueue.js";
export type { EnqueueOptions, ScheduleOptions, UniqueKey } from "./enqueue-options.js";
export { type AwaitedJob, type Job, type JobState, job, type WaitOptions, waitFor } from "./job.js";
export { cancelJobs, countJobs, type JobSelection, type JobsPage, jobs, type ListedJob } from "./jobs.js";
export { schedule, unschedule } from "./schedule.js";
export {
  keepResults,
  limitTopic,
  pauseTopic,
  resumeTopic,
  type TopicLimits,
  type TopicPause,
} from "./topic-settings.js";
export type { AnyTopics, Destination, NatsSubject, PayloadFor, TopicMap } from "./topic-types.js";
