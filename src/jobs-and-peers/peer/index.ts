/**
 * Workers: processes that handle jobs. Peers: workers that also exchange messages directly over TCP; Postgres stores their
 * directory, the messages for absent listeners, and the cursors.
 */

export {
  type ErrorCode,
  HawserError,
  Reject,
  RetryAfter,
  type RetryAfterOptions,
} from "../../foundation/errors/index.js";
export type { SchemaTopic } from "../../foundation/payloads/index.js";
export type { Logger, Subscription } from "../../foundation/runtime/index.js";
export { version } from "../../foundation/runtime/index.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma, type SqlClient } from "../../foundation/sql-clients/index.js";
export type { Content, MessageHeaders } from "../handlers/content.js";
export type {
  Batch,
  Message,
  Receipt,
  SendOptions,
  TransactionalBatch,
  TransactionalMessage,
} from "../handlers/message.js";
export type { PeerStatus } from "../handlers/status.js";
export {
  type AnyTopics,
  type AwaitedJob,
  type CancelledJob,
  type CancelOutcome,
  cancel,
  cancelFlow,
  cancelJobs,
  countJobs,
  type EnqueueOptions,
  enqueue,
  enqueueBatch,
  type Job,
  type JobSelection,
  type JobState,
  type JobsPage,
  job,
  jobs,
  keepResults,
  type ListedJob,
  limitTopic,
  type NatsSubject,
  type Payload,
  pauseTopic,
  resumeTopic,
  type ScheduleOptions,
  schedule,
  type TopicLimits,
  type TopicMap,
  type TopicPause,
  type UniqueKey,
  unschedule,
  type WaitOptions,
  waitFor,
} from "../queue/enqueue/index.js";
export { type AnyWorker, Worker } from "../worker/worker.js";
export type {
  BatchOptions,
  HandleOptions,
  WorkerBatchOptions,
  WorkerHandleOptions,
  WorkerOptions,
} from "../worker/worker-options.js";
export type { PeerOptions, RequestOptions } from "./core/peer-options.js";
export { monitor } from "./monitor.js";
export { type AnyPeer, Peer } from "./peer.js";
export type { Answer } from "./sending/outgoing-request.js";
