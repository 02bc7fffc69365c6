/**
 * A channel carries the messages of one sender to one listener, at least once and in order, or at most once. Its two
 * halves are pure state machines ({@link SenderChannel}, {@link ListenerChannel}): events come in with their time,
 * effects go out; they use no socket, no database and no clock. So the simulator can run them through millions of
 * faults in virtual time. See README.md.
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
export { listenerDefaults, senderDefaults } from "./effects.js";
export type { StartedMessage } from "./handling.js";
export { deadLetterFailureBytes, failedAttemptOf } from "./handling.js";
export { ListenerChannel } from "./listener-channel.js";
export {
  comparePositions,
  type DeadMessage,
  type FailedAttempt,
  type HandledMessage,
  type Headers,
  headerValue,
  type IncomingMessage,
  type KeptResult,
  type LeavingMessage,
  memoryBytes,
  type Origin,
  type OutgoingMessage,
  type PayloadEncoding,
  type Position,
  type StoredRow,
} from "./messages.js";
export { SenderChannel } from "./sender-channel.js";
