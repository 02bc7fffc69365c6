/**
 * What SQL functions do over a connection to NATS: publish, request, JetStream publishes, key-value buckets, files, streams.
 *
 * {@link NatsOperations} belongs to one connection, which never reconnects by itself: after a loss the next connection gets
 * operations of its own, and each operation under way on the old one settles with the loss. An operation
 *
 * - is described by an `Attempt` (`failure.ts`): its name for error messages, whether it changes something, its time limit;
 * - runs in `ConnectionWatch.run`, which settles it by its deadline whatever NATS does: with its result, with the failure
 *   of the library as an error of Hawser (`natsFailure`), at the end of the connection, or at the deadline;
 * - sends nothing while the server reads so slowly that more would only be queued in this process. It waits for the server
 *   to catch up, and fails with `nats_unavailable`, which means: certainly not sent;
 * - fails with `outcome_unknown` or an outcome "unknown" once something was sent that changes something and no answer came.
 *   Only what cannot have been carried out is reported as failed.
 *
 * Core publishes (`core.ts`) go past the library to the socket: the call is settled when the bytes have left, in one write
 * for many messages. That NATS does not permit a publish is reported later, by the connection; {@link Refusals} keeps it
 * until the database session that published asks. A publish into a stream (`stream-publish.ts`) carries a message id and is
 * sent again while its stream certainly still knows the first one. Buckets and stores (`key-value.ts`, `object-store.ts`)
 * are made by the first put. Servers show that a stream, bucket or store is missing by silence alone where others listen to
 * its subjects, so each wait for an answer has a part in which the operation asks what is there. Files are read slice by
 * slice (`delivery.ts`), and all downloads of a connection share a budget of bytes on their way, because a server cuts a
 * connection that does not read.
 */
export { ConnectionWatch } from "./connection-watch.js";
export { inboxPrefixOf } from "./delivery.js";
export { isStreamFull, isStreamMissing, natsFailure } from "./failure.js";
export { jetStreamOf, type ReadOptions } from "./jetstream.js";
export { NatsOperations } from "./nats-operations.js";
export { PublishPipeline } from "./publish-pipeline.js";
export { Refusals } from "./refusals.js";
export { type FoundStream, lookInto, lookIntoAll, type StreamContent, streamOf } from "./stream-look.js";
