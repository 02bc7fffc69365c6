/**
 * The outbox: messages that are written in the user's transactions, and published after their commit.
 *
 * The SQL functions `nats_enqueue_*` write rows. One process relays them (`nats-outbox.ts`): the one that leads. What it does
 * is a pure state machine (`relay.ts`), whose head has the rules; `outbox-table.ts` is its Postgres, `nats-publisher.ts` its
 * NATS. How rows are found that were committed, and only those, is in `docs/transactional.md`.
 */
export { NatsOutbox, type NatsOutboxStats } from "./nats-outbox.js";
