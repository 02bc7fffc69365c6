/**
 * What SQL functions do over a connection to NATS.
 */
export type { FileInfo } from "./file-record.js";
export { readHeaders } from "./headers.js";
export type { BucketOptions, KeyValue } from "./key-value.js";
export { NatsOperations } from "./nats-operations.js";
export type { ObjectStores, ReadOptions, StoreOptions } from "./object-store.js";
export type { PublishOptions } from "./publish.js";
export { Refusals, type Violation } from "./refusals.js";
export type { RequestOptions } from "./request.js";
export type { ServerInfo } from "./server-info.js";
export type { StreamAck, StreamPublishOptions } from "./stream-publish.js";
export { publishViolation } from "./violation.js";
