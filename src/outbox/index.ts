/**
 * The outbox: messages that are written in the user's transactions and go to NATS or to peers after the commit.
 *
 * The overloads of the SQL function `hawser.enqueue` insert rows. Each of the two sinks, NATS and peers, has its own
 * relay and position. One process at a time runs a relay (`runner.ts`). The NATS relay is a pure state machine
 * (`relay.ts`, with its rules at the top); `nats-outbox.ts` runs it with a publisher. The peer relay is an SQL function
 * (`peer-relay.ts`). `outbox-table.ts` contains the SQL of both. `docs/transactional.md` explains how a relay finds
 * exactly the committed rows.
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
export { checkTimes } from "./occurrences.js";
export type { EnqueuedMessage } from "./outbox-table.js";
export { PeerRelay } from "./peer-relay.js";
export type { PublishOutcome, PublishStep } from "./relay.js";
export { shareOf } from "./shares.js";
