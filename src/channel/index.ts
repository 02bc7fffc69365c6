/** The delivery rules of a channel as pure state machines. See docs/protocol.md and DESIGN section 5 for the rules. */
export { Isolation, type IsolationHost } from "./isolation.js";
export { ListenerChannel } from "./listener-channel.js";
export type {
  DeadMessage,
  HandlerResult,
  IncomingMessage,
  ListenerEffects,
  ListenerLimits,
  StoredRow,
} from "./listener-types.js";
export { comparePositions, origin, type Position } from "./position.js";
export { SenderChannel } from "./sender-channel.js";
export type {
  AckNews,
  DeliveryMode,
  Headers,
  LinkState,
  OutgoingMessage,
  PayloadEncoding,
  SenderEffects,
  SenderLimits,
  SendOutcome,
  WelcomeNews,
} from "./sender-types.js";
