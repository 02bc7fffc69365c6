/**
 * Peers: processes that talk directly over TCP; Postgres is their directory, offline queue and ack ledger.
 *
 * A {@link Peer} is what the user holds, started or not. `start` makes a running peer (running-peer.ts), which opens the
 * store, takes the name, binds the socket and enters the directory, and undoes it in the opposite order. Its two sides
 * share a context and know nothing of each other:
 *
 *     send ▶ Outbox ▶ SenderLink ─────── connection ───────▶ ListenerLink ▶ HandlerCalls ▶ the user's handler
 *                          └────────────── stored rows ────────────▲
 *
 * **Sending.** The outbox finds the listeners of a topic (topic-directory.ts, topic-routes.ts: in turn, those known to be
 * down left out) and hands the message to the link of one. A link binds a `SenderChannel` to a connection, which its
 * listener-dial.ts keeps, and to the store. Each send is one `Outgoing`, which becomes a receipt;
 * only an at-most-once message that nothing has to wait for is written at once.
 *
 * **Receiving.** The inbox listens, decides on each Hello by what the catalog says, and has a link for each channel that
 * this peer owns. A link binds a `ListenerChannel` to its connection, the store and the handler. At most `concurrency`
 * handlers run at once; channels take turns (dispatcher.ts). Cursors are committed together, by the committer of the store.
 *
 * **Requests.** They pass by the channel, on its connection: each is one `OutgoingRequest`, which waits for its answer among
 * those of a link (link-requests.ts); the listener's wait for a free handler (request-intake.ts). Neither side keeps any of
 * them beyond the connection.
 *
 * **What may happen.** The lease is suspended (no session): nothing is stored or handled, no dial begins. The name is lost:
 * pending sends are rejected and the peer ends by itself. The database is another server: the lease is taken anew under a
 * new epoch, what is unconfirmed is numbered again, and receiving begins again from the committed cursors. A channel is
 * handed over: its old listener drops the link, its sender dials the new owner. docs/delivery.md has the rules and their
 * reasons; the state machines are in `src/channel`.
 */

export { type ErrorCode, HawserError, Reject } from "../errors/index.js";
export { version } from "../files/index.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma, type SqlClient } from "../postgres/index.js";
export type { Logger, Subscription } from "../runtime/index.js";
export { decode, encode } from "../typed/index.js";
export type { MessageHeaders } from "./content.js";
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
export type { BatchOptions, HandleOptions, PeerOptions } from "./options.js";
export type { Answer } from "./outgoing-request.js";
export { Peer } from "./peer.js";
export { schedule, unschedule } from "./schedule.js";
export type { PeerStatus } from "./status.js";
