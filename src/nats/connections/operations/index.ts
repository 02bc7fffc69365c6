/**
 * Operations of SQL functions over a connection to NATS: publish, request, JetStream publish, key-value buckets, object
 * stores. See README.md.
 */
export { ConnectionWatch } from "./connection-watch.js";
export { type Delivery, parseDelivery } from "./delivery.js";
export { isConsumerMissing, isStreamFull, isStreamMissing, natsFailure } from "./failure.js";
export { jetStreamOf, type ReadOptions } from "./jetstream.js";
export { NatsOperations } from "./nats-operations.js";
export { Refusals } from "./refusals.js";
export { type FoundStream, type StreamContent, searchStream, searchWholeStream, streamOf } from "./stream-search.js";
export { inboxPrefixOf } from "./writer.js";
