/**
 * Subscription queues: which messages run next in Postgres, in batches, and what follows from how that went. Pure state
 * machines: they run nothing themselves and have no clock; `Subscriptions` carries out their steps.
 *
 * Each subscription has a queue (`subscription-queue.ts`), whose messages run in order. One step of a queue is out at a
 * time (`steps.ts`): run a batch or a dead letter again, write a dead letter, fetch a page of saved messages.
 * The first message of an idle queue is handed out at once; what arrives meanwhile is the next batch. So batches form by
 * themselves under load, and no timer makes a message wait for company.
 *
 *     batch ──committed──▶ done, the next one may be larger
 *       │ failed ──▶ in halves, down to one message, which becomes a dead letter
 *       │ timed out ──▶ one by one: each half with the message that hangs would wait for the whole timeout again
 *       │ transient, nobody's fault ──▶ in halves at once; one message alone pauses and is tried again, without end
 *       │ session lost ──▶ in halves; a message that loses two sessions alone becomes a dead letter
 *       │ Postgres away ──▶ as it was, after a pause or when Postgres answers again
 *       └ deposed ──▶ the queue stops: another process leads
 *
 * Rules: messages of one subscription never overtake each other, also not one that became a dead letter; nothing is lost
 * while this process lives, unless there is no memory and no room in the table; a message becomes a dead letter only by
 * what happened while it was alone.
 *
 * The scheduler (`scheduler.ts`) shares a number of sessions among queues: in turns, and one role never has all of them.
 * The memory (`memory.ts`) is shared too: the last quarter is divided among roles, and among the queues of a role, so that a
 * queue that gets more than its function can do does not take what the others need. When most of it is taken, messages are
 * spilled to the table of saved messages, and fetched from there in order.
 */

export { type Admission, ByteBudget, Discards, type QueueMemory, roleMayHold, type Wanted } from "./memory.js";
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
  RequestedRetry,
  SpillStep,
  Step,
} from "./steps.js";
export { newTotals, SubscriptionQueue } from "./subscription-queue.js";
