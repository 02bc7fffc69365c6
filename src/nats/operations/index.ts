/**
 * Operations of SQL functions over a connection to NATS: publish, request, JetStream publish, key-value buckets, object
 * stores.
 *
 * {@link NatsOperations} belongs to one connection, which never reconnects: after a loss, the next connection gets
 * operations of its own, and running operations fail. An operation
 *
 * - is described by an `Attempt` (`failure.ts`): its name for error messages, whether it changes something, its time
 *   limit;
 * - runs in `ConnectionWatch.run`, which ends it at its deadline at the latest: with its result, with an error of
 *   nats.js converted to a HawserError (`natsFailure`), or with the loss of the connection;
 * - sends nothing while the server reads so slowly that data would only queue in this process. It waits for the server
 *   until its deadline, and then fails with `nats_unavailable`: nothing was sent;
 * - fails with `outcome_unknown` or an outcome "unknown" if something was sent that changes state, and no answer
 *   arrived. Only an operation that certainly had no effect is reported as failed.
 *
 * Publishes and requests bypass nats.js and write to the socket (`writer.ts`). A core publish (`core.ts`) ends when its
 * bytes are sent, in one write for many messages. A refusal of a publish is reported later, by the connection;
 * {@link Refusals} keeps it until the database session that published asks for it. A publish into a stream
 * (`stream-publish.ts`) carries a message id, and is sent again while its stream certainly still remembers the id.
 * Buckets and stores (`key-value.ts`, `object-store.ts`) are created by the first put. If other clients subscribe to the
 * subjects of a missing stream, bucket or store, the server reports no error and no answer arrives. So during each wait
 * for an answer, the operation also asks whether the stream, bucket or store exists. Streams are read in slices
 * (`delivery.ts`), and all reads of a connection share a budget of bytes in transit, because a server closes a
 * connection that does not read fast enough.
 */
export { ConnectionWatch } from "./connection-watch.js";
export { type Delivery, parseDelivery } from "./delivery.js";
export { isStreamFull, isStreamMissing, natsFailure } from "./failure.js";
export { jetStreamOf, type ReadOptions } from "./jetstream.js";
export { NatsOperations } from "./nats-operations.js";
export { Refusals } from "./refusals.js";
export { type FoundStream, type StreamContent, searchStream, searchWholeStream, streamOf } from "./stream-search.js";
export { inboxPrefixOf } from "./writer.js";
