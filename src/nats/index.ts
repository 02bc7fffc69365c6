/**
 * The connection to NATS, and what is done over it.
 */
export { NatsLink, type NatsLinkOptions } from "./link.js";
export type { NatsLinkEvents, Refusal } from "./link-events.js";
export { type FileInfo, NatsOperations, publishViolation, Refusals, readHeaders } from "./operations/index.js";
export { isOwnInbox } from "./own-inboxes.js";
export { receivedHeaders } from "./received-headers.js";
export { type NatsAddress, natsAddresses, ServerChoice } from "./server-choice.js";
