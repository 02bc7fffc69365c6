/**
 * Peers: processes that exchange messages directly over TCP. Postgres stores their directory, the messages for absent
 * listeners, and the cursors.
 */

export { type ErrorCode, HawserError, Reject, RetryAfter, type RetryAfterOptions } from "../errors/index.js";
export type { Logger, Subscription } from "../runtime/index.js";
export { version } from "../runtime/index.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma, type SqlClient } from "../sql-clients/index.js";
export { decode, encode, type SchemaTopic } from "../typed/index.js";
export type { Content, MessageHeaders, Payload } from "./core/content.js";
export type {
  Batch,
  EnqueueOptions,
  Message,
  Receipt,
  RequestOptions,
  ScheduleOptions,
  SendOptions,
  TransactionalBatch,
  TransactionalMessage,
  UniqueKey,
} from "./core/message.js";
export type { BatchOptions, HandleOptions, PeerOptions } from "./core/options.js";
export type { PeerStatus } from "./core/status.js";
export type { AnyTopics, NatsSubject, TopicMap } from "./core/topic-types.js";
export { type CancelOutcome, cancel, enqueue, enqueueBatch } from "./enqueue.js";
export { type Job, type JobState, job, type WaitOptions, waitFor } from "./job.js";
export { monitor } from "./monitor.js";
export { type AnyPeer, Peer } from "./peer.js";
export { schedule, unschedule } from "./schedule.js";
export type { Answer } from "./sending/outgoing-request.js";
export {
  keepResults,
  limitTopic,
  pauseTopic,
  resumeTopic,
  type TopicLimits,
  type TopicPause,
} from "./topic-settings.js";
