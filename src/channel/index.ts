/**
 * A channel: messages of one sender to one listener, delivered at least once and in order, or at most once. Its two halves
 * are pure state machines ({@link SenderChannel}, {@link ListenerChannel}): events come in, each with its time; effects go
 * out; no socket, no database, no clock. So the simulator can run them through millions of faults in virtual time.
 *
 * A numbered message has a {@link Position}: the sender's epoch and a number, contiguous from 1. It may travel two ways,
 * over the connection and through the store, and may come by both; its number makes the second copy harmless.
 *
 * **The sender** keeps each message until it is confirmed, by whichever comes first: the listener's committed cursor
 * (`delivered`), or a commit in Postgres (`stored`).
 *
 *     connecting ──▶ draining ──▶ going-live ──▶ live        any of them ──▶ down ──▶ draining     any ──▶ ended
 *
 * It writes to the connection once the listener's backlog in the store is short (`going-live`), as far as the listener's
 * credit goes. It stores everything while it is `down`, `draining`, stopping, or told that the listener is busy, and what
 * has waited for its acknowledgement too long. One insert at a time, always the oldest unconfirmed messages: so what is
 * stored is a prefix, and nothing newer is in the store while something older is only in memory.
 *
 * **The listener** accepts numbered messages only in order: watermark + 1, from the connection or from the store
 * (listener-channel.ts). What comes above a gap is held until a query that began after the gap was seen has filled it, or shown
 * that nobody has the numbers. Accepted messages go to the handler one after another (handling.ts); failed ones again
 * after a while, up to `retry.attempts` times; then they are dead letters. The cursor is committed behind the handler, and
 * only the committed cursor is ever told to the sender, in Welcome, Ack and Goodbye.
 *
 * What may happen at any moment: a connection ends or is replaced by a newer one, an insert or a commit fails or its
 * answer is lost, the lease is not surely held (`setMayStore`, `halt`), another process has the name (`onFenced`), the
 * database is another server that may lack the last commits (`rebase`; a listener begins again from its cursors), the
 * process dies. docs/delivery.md says what is promised through all of it, and docs/protocol.md what goes over the wire.
 *
 * {@link Isolation} lets a message that may have ended its process run while no other does.
 */
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
export type { Turn as MessageTurn } from "./handling.js";
export { Isolation } from "./isolation.js";
export { ListenerChannel } from "./listener-channel.js";
export {
  comparePositions,
  type DeadMessage,
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
