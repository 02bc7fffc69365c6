/**
 * The outbox: messages that are written in the user's transactions and go to NATS after the commit.
 *
 * The overloads of the SQL function `hawser.enqueue` for subjects insert rows. One process at a time runs the relay
 * (`nats-outbox.ts`), a pure state machine (`relay.ts`, with its rules at the top).
 * `outbox-table.ts` contains its SQL. `docs/transactional.md` explains how a relay finds exactly the committed rows.
 *
 * What is enqueued for topics is in the queue. Every process brings what is due later there (`due-runner.ts`).
 */
export {
  isDroppedByItself,
  needsGaps,
  requiredSearch,
  type SearchRange,
  type StreamMemory,
  verdictOf,
} from "./doubt.js";
export { DueRunner } from "./due-runner.js";
export { NatsOutbox, type NatsOutboxStats, publishTimeoutMs } from "./nats-outbox.js";
export { checkTimes } from "./occurrences.js";
export type { EnqueuedMessage } from "./outbox-table.js";
export type { PublishOutcome, PublishStep } from "./relay.js";
