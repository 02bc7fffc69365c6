/**
 * A channel carries the messages of one sender to one listener, at least once and in order, or at most once. Its two
 * halves are pure state machines ({@link SenderChannel}, {@link ListenerChannel}): events come in with their time,
 * effects go out; they use no socket, no database and no clock. So the simulator can run them through millions of
 * faults in virtual time.
 *
 * A numbered message has a {@link Position}: the sender's epoch and a number, contiguous from 1. A message can travel
 * over two paths, the connection and the store, and can arrive over both; its number makes the second copy harmless.
 *
 * **The sender** keeps each message until it is confirmed by the listener's committed cursor (`delivered`) or by a
 * commit in Postgres (`stored`), whichever comes first.
 *
 *     connecting ──▶ draining ──▶ going-live ──▶ live        any of them ──▶ down ──▶ draining     any ──▶ ended
 *
 * The sender writes to the connection once the listener's backlog in the store is short (`going-live`), as long as the
 * listener grants credit. It stores all messages while it is `down`, `draining` or stopping, or while the listener is
 * busy; otherwise it stores messages whose acknowledgement is overdue. Inserts run one at a time and take the oldest
 * unconfirmed messages. The stored messages are therefore a prefix: no message is in the store while an older one is
 * only in memory.
 *
 * **The listener** accepts numbered messages only in order, watermark + 1, from the connection or from the store
 * (listener-channel.ts). Messages above a gap are held. A query that started after the gap was seen either fills the
 * gap or shows that the missing numbers exist nowhere. Accepted messages go to the handler one after another
 * (handling.ts). A failed message is retried after a delay, up to `retry.attempts` times, and then becomes a dead
 * letter. The cursor is committed after the handler has completed, and Welcome, Ack and Goodbye carry only the
 * committed cursor.
 *
 * Both halves tolerate these events at any time: a connection closes or is replaced by a newer one; an insert or a
 * commit fails, or its answer is lost; the lease may have expired (`setMayStore`, `halt`); another process owns the
 * name (`onFenced`); Postgres failed over to a server that may lack the last commits (`rebase`; a listener starts again
 * from its cursors); the process dies. docs/delivery.md has the guarantees, docs/protocol.md the wire protocol.
 *
 * {@link ConcurrencyLimit} limits the parallel calls of one handler, over all channels of a peer.
 *
 * A message that may have killed a process is handled while no other handler runs: see {@link Isolation}.
 */
export { ConcurrencyLimit, changeLimit, type Limited, type Waiter, Waitlist } from "./concurrency-limit.js";
export type {
  ChannelWelcome,
  HandlerResult,
  LinkState,
  ListenerEffects,
  ListenerLimits,
  RetryPolicy,
  SenderEffects,
  SenderLimits,
  SendOutcome,
} from "./effects.js";
export { listenerDefaults, senderDefaults } from "./effects.js";
export type { Turn as MessageTurn } from "./handling.js";
export { deadLetterFailureBytes } from "./handling.js";
export { Isolation } from "./isolation.js";
export { LeasedMessages, type LeasedTurn, type LeaseEffects, type QueuedMessage } from "./leased-messages.js";
export { ListenerChannel } from "./listener-channel.js";
export {
  comparePositions,
  type DeadMessage,
  type FailedAttempt,
  type Headers,
  headerValue,
  type IncomingMessage,
  memoryBytes,
  type OutgoingMessage,
  type ParkedMessage,
  type PayloadEncoding,
  type Position,
  type StoredRow,
} from "./messages.js";
export { SenderChannel } from "./sender-channel.js";
