/**
 * Peers: processes that exchange messages directly over TCP. Postgres stores their directory, the messages for absent
 * listeners, and the cursors.
 *
 * A {@link Peer} is the object that the user holds, started or not. `start` creates a running peer (running-peer.ts),
 * which opens the store, takes the name, binds the socket and registers in the directory; `stop` undoes these steps in
 * reverse order. Its sending and its receiving side share a context and do not use each other:
 *
 *     send ▶ Sending ▶ SenderLink ────── connection ───────▶ ListenerLink ▶ HandlerCalls ▶ the user's handler
 *                          └────────────── stored rows ────────────▲
 *
 * **Sending.** `Sending` finds the listeners of a topic (topic-directory.ts) and chooses one (topic-routes.ts: in
 * turn, without those known to be down). It hands the message to the link of that listener. A link connects a
 * `SenderChannel` with the store and with a connection, which its listener-dial.ts maintains. Each send is one
 * `Outgoing`, which ends in a receipt. An at-most-once message is written immediately if no other message has to go
 * first.
 *
 * **Receiving.** The inbox listens, checks in Postgres the owner of the channel and the epoch of each Hello, and has
 * one link per channel that this peer owns. A link connects a `ListenerChannel` with its connection, the store and the
 * handler. At most `concurrency` handlers run in parallel; channels take turns (dispatcher.ts). A handler can have a
 * limit of its own, for which channels and requests wait (`ConcurrencyLimit` in `src/channel`). The store's committer
 * combines the commits of several cursors.
 *
 * **Requests.** Requests use the connection of a channel, but not its numbers. On the sending side each is one
 * `OutgoingRequest`, which waits for its answer in the link (link-requests.ts). On the listener it waits for a free
 * slot (request-intake.ts). Neither side keeps a request after the connection has ended.
 *
 * **Failures.** While the lease is suspended (no database session), nothing is stored or handled and no dial starts. If
 * the name is lost, pending sends are rejected and the peer stops by itself. After a move to another database server
 * the lease is renewed with a new epoch, unconfirmed messages get new numbers, and receiving continues from the
 * committed cursors. When a channel is handed over, its old listener closes the link and its sender dials the new
 * owner. docs/delivery.md has the rules and their reasons; the state machines are in `src/channel`.
 */

export { type ErrorCode, HawserError, Reject } from "../errors/index.js";
export { version } from "../files/index.js";
export type { Logger, Subscription } from "../runtime/index.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma, type SqlClient } from "../sql-clients/index.js";
export { decode, encode } from "../typed/index.js";
export type { Content, MessageHeaders } from "./content.js";
export { cancel, enqueue, enqueueBatch } from "./enqueue.js";
export type {
  Batch,
  EnqueueOptions,
  Message,
  NatsSubject,
  Payload,
  Receipt,
  RequestOptions,
  ScheduleOptions,
  SendOptions,
  TransactionalBatch,
  TransactionalMessage,
} from "./message.js";
export { monitor } from "./monitor.js";
export type { BatchOptions, HandleOptions, PeerOptions } from "./options.js";
export type { Answer } from "./outgoing-request.js";
export { Peer } from "./peer.js";
export { schedule, unschedule } from "./schedule.js";
export type { PeerStatus } from "./status.js";
