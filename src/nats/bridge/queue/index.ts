/**
 * Subscription queues decide which messages run next in Postgres, and what follows from the outcome. They are pure
 * state machines, without I/O and clock; `Subscriptions` runs their steps.
 *
 * Each subscription has a queue (`subscription-queue.ts`), which runs its messages in order, by the rules in `rules.ts`.
 * A queue has one running step at a time (`steps.ts`): run a batch, write a dead letter, or fetch a
 * page of saved messages. The first message of an idle queue starts at once; messages that arrive while it runs form the
 * next batch. So batches form under load without a timer that delays messages.
 *
 *     batch ──committed──▶ done; the next batch may be larger
 *       │ failed ──▶ halved, down to one message, which becomes a dead letter
 *       │ timed out ──▶ one by one: in halves, a message that hangs would cost one timeout for each halving
 *       │ transient ──▶ halved at once; a single message pauses and is tried again, until `BatchRunner` reports `failed`
 *       │ session lost ──▶ halved; a single message that loses two sessions becomes a dead letter
 *       │ unavailable ──▶ repeated unchanged, after a pause or when Postgres answers again
 *       └ deposed ──▶ the queue stops, because another process is the leader, or reads the stream
 *
 * Rules: messages of one subscription never overtake each other, nor a message that becomes a dead letter. While the
 * process lives, a message is lost only if neither memory nor the table has room for it. Only a failure of a message
 * that ran alone makes it a dead letter.
 *
 * The scheduler (`scheduler.ts`) shares the database sessions fairly among queues: of several sessions, none of several
 * roles ever has all. The memory budget (`memory.ts`) is shared as well: the last quarter is divided among roles, and
 * among the queues of a role, so that a queue that receives more than its function can handle does not use up the
 * memory of the others. When memory is nearly full, messages are spilled to the table of saved messages and later
 * fetched from there in order.
 */

export {
  type Admission,
  ByteBudget,
  bufferReserveDivisor,
  Discards,
  type QueueMemory,
  roleMayHold,
} from "./memory.js";
export { QueueScheduler, type Wait } from "./scheduler.js";
export type {
  BatchStep,
  DeadLetterStep,
  FetchStep,
  FunctionError,
  FunctionOutcome,
  Outcome,
  QueueContext,
  QueueSettings,
  QueueTotals,
  SpillStep,
  Step,
} from "./steps.js";
export { queueDefaults } from "./steps.js";
export { newTotals, SubscriptionQueue } from "./subscription-queue.js";
