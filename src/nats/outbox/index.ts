/**
 * The outbox: messages that are written in the user's transactions and go to NATS after the commit. See README.md.
 */

export {
  isDroppedByItself,
  needsGaps,
  requiredSearch,
  type SearchRange,
  type StreamMemory,
  verdictOf,
} from "./doubt.js";
export { NatsOutbox, type NatsOutboxStats, publishTimeoutMs } from "./nats-outbox.js";
export { NatsPublisher } from "./nats-publisher.js";
export type { EnqueuedMessage } from "./outbox-table.js";
export type { PublishOutcome, PublishStep } from "./relay.js";
