/**
 * The outbox: messages that are written in the user's transactions, and go to NATS or to peers after their commit.
 *
 * The overloads of the SQL function `hawser.enqueue` write rows. Each of the two sinks has a relay, which one process runs
 * at a time (`runner.ts`), with a position of its own. That for NATS is a pure state machine (`relay.ts`), whose head has the
 * rules (`nats-outbox.ts` carries them out, by a publisher that it is given). That for peers is a function of Postgres
 * (`peer-relay.ts`). `outbox-table.ts` is their Postgres. How rows are found that were committed, and only those, is in
 * `docs/transactional.md`.
 */
export { isDroppedByItself, type LookNeeded, lookNeeded, needsGaps, type StreamMemory, verdictOf } from "./doubt.js";
export { NatsOutbox, type NatsOutboxStats } from "./nats-outbox.js";
export { checkTimes } from "./occurrences.js";
export type { EnqueuedMessage } from "./outbox-table.js";
export { PeerRelay } from "./peer-relay.js";
export type { PublishOutcome, PublishStep } from "./relay.js";
export { shareOf } from "./shares.js";
