/**
 * The ordered queue of one subscription: keeps its messages, hands out the steps that run in Postgres, and does what
 * follows from their outcomes. `rules.ts` decides both. Pure: no I/O and no clock.
 *
 * The table of saved messages contains messages that a previous leader left, and messages that were spilled. A queue
 * consists of, oldest first: the page that was fetched last, the rest of its saved messages, and the messages offered
 * since. Offered messages wait until all saved ones have run. A saved message is deleted in the transaction that runs
 * it. When a queue starts to spill, messages that were already tried become a page and are written first, so that the
 * table has everything in order even if this process is killed.
 */
import { Backoff, Fifo, Waiters } from "../../../foundation/runtime/index.js";
import type { Subscription } from "../bindings.js";
import { type InboundMessage, memoryOf } from "../message.js";
import type { Admission, QueueMemory } from "./memory.js";
import { MessageList, type Part } from "./message-list.js";
import { type Consequence, type QueueRules, type QueueState, queueRules, type RunOutcome } from "./rules.js";
import type {
  BatchStep,
  DeadLetterStep,
  Outcome,
  QueueContext,
  QueueTotals,
  SavedMessage,
  SpillStep,
  Step,
} from "./steps.js";

/** Options of a {@link SubscriptionQueue}. */
export interface QueueOptions {
  /** True if the table may have messages of the queue. Default: false. */
  readonly hasSaved?: boolean;
  /** Totals to continue, from earlier queues of the subscription. Default: zeros. */
  readonly totals?: QueueTotals;
  /** Default: {@link queueRules}. */
  readonly rules?: QueueRules;
}

export class SubscriptionQueue {
  /** Called when there may be a step again. Set by the scheduler. */
  onReady: () => void = () => undefined;
  /** Called when a step has ended, unless the queue is closed. Set by the owner. */
  onStep: (step: Step, outcome: Outcome) => void = () => undefined;
  /** Subscription of the next step. Replaced when its wrapper gets another owner. */
  subscription: Subscription;

  readonly #context: QueueContext;
  readonly #rules: QueueRules;
  readonly #totals: QueueTotals;
  readonly #memory: QueueMemory;
  /** Messages fetched from the table, or to be written there first. */
  #page: MessageList;
  /** Ids of the first messages of the page; the rest of the page is not in the table. */
  readonly #pageIds = new Fifo<bigint>();
  /** True if the table may have messages behind the page. */
  #hasSaved: boolean;
  /** Ids of saved messages that are done but still in the table, because they ran while they were being written. */
  #doneSavedIds: bigint[] = [];
  /** Messages offered since, which wait until all saved ones have run. */
  readonly #offered: MessageList;
  /** Limit of messages in the next batch. */
  #batchLimit = 1;
  readonly #backoff: Backoff;
  #pausedUntil = Number.NEGATIVE_INFINITY;
  /** True while the queue pauses because Postgres was unreachable. */
  #waitsForPostgres = false;
  /** Running step, and for a batch the part of its messages. */
  #running: { readonly step: Step; readonly part?: Part } | undefined;
  /** Dead letter that is not written yet. */
  #deadLetter: Consequence["deadLetter"];
  /** Messages that are being written to the table. */
  #spilling: { readonly step: SpillStep; readonly from: "page" | "offered" } | undefined;
  #isHeld = false;
  #isStopped = false;
  #isClosed = false;
  readonly #drains = new Waiters();

  constructor(
    subscription: Subscription,
    context: QueueContext,
    { hasSaved = false, totals = newTotals(), rules = queueRules }: QueueOptions = {},
  ) {
    this.subscription = subscription;
    this.#context = context;
    this.#hasSaved = hasSaved;
    this.#totals = totals;
    this.#rules = rules;
    const { budget, settings } = context;
    this.#memory = budget.addQueue(subscription.runAs);
    this.#page = new MessageList(context, this.#memory);
    this.#offered = new MessageList(context, this.#memory);
    const { batchPauseMinMs: minMs, batchPauseMaxMs: maxMs, random } = settings;
    this.#backoff = new Backoff({ minMs, maxMs, jitter: 0.5, random });
  }

  get counts(): Readonly<QueueTotals> {
    return this.#totals;
  }

  /** Number of messages in memory. */
  get length(): number {
    return this.#page.length + this.#offered.length;
  }

  /** Memory used by the queue. */
  get bytes(): number {
    return this.#memory.usedBytes;
  }

  /**
   * Receive time of the oldest message that is neither committed nor dead-lettered nor saved; undefined if there is
   * none.
   */
  get oldestReceivedAt(): number | undefined {
    return (this.#page.at(this.#pageIds.length) ?? this.#offered.at(0))?.receivedAt;
  }

  /** Messages that are neither committed nor dead-lettered nor saved, in order. */
  get unfinished(): Iterable<InboundMessage> {
    return [...[...this.#page].slice(this.#pageIds.length), ...this.#offered];
  }

  /** Time from which {@link next} has a step; Infinity if an event must come first. */
  get readyAt(): number {
    const isReady = !this.#isStopped && this.#rules.nextKind(this.#state) !== undefined;
    return isReady ? this.#pausedUntil : Number.POSITIVE_INFINITY;
  }

  /**
   * Appends a message. Returns false if there is no room, and counts the message as discarded; or if the queue is
   * stopped, without counting.
   */
  offer(message: InboundMessage, admission: Admission = {}): boolean {
    if (this.#isStopped || !this.#offered.offer(message, admission)) return false;
    if (this.#offered.length === 1) this.onReady();
    return true;
  }

  /** Makes the queue fetch saved messages before it runs messages that were never tried. */
  expectSaved(): void {
    if (this.#isStopped) return;
    this.#hasSaved = true;
    this.onReady();
  }

  /**
   * Keeps messages that are offered from now on, in order, without running them: messages that only another process has
   * received may have to run before them.
   */
  hold(): void {
    this.#isHeld = true;
    this.#offered.hold();
    this.#resolveIfDrained();
  }

  /** Starts the next step; undefined before {@link readyAt}. It runs until {@link onOutcome}. */
  next(now: number): Step | undefined {
    if (this.readyAt > now) return undefined;
    const kind = this.#rules.nextKind(this.#state);
    this.#waitsForPostgres = false;
    if (kind === "dead_letter") this.#running = { step: { ...this.#deadLetter!, savedId: this.#savedIds(1)[0] } };
    else if (kind === "fetch") this.#running = { step: this.#fetch() };
    else this.#running = this.#takeBatch();
    return this.#running.step;
  }

  /** Ends the running step. Has no effect once the queue is closed. */
  onOutcome(step: Step, outcome: Outcome, now: number): void {
    if (step !== this.#running?.step) return;
    const { part } = this.#running;
    this.#running = undefined;
    this.#waitsForPostgres = outcome.kind === "unavailable";
    // After a failed fetch, the messages are still in the table.
    if (step.kind === "fetch" && outcome.kind !== "fetched") this.#hasSaved = true;
    if (outcome.kind === "deposed" || outcome.kind === "gone") this.stop();
    else if (outcome.kind === "fetched") this.#fetched(outcome.saved);
    else {
      if (outcome.kind !== "unavailable") this.#totals.transactions += 1;
      if (step.kind === "batch") this.#onBatch(step, part!, outcome, now);
      else if (step.kind === "dead_letter") this.#follow(step, this.#rules.afterDeadLetter(step, outcome), now);
      else this.#pause(now);
    }
    this.#resolveIfDrained();
    this.onStep(step, outcome);
  }

  /**
   * Starts to spill the next messages, because memory is nearly full. A spill can run at the same time as another step.
   * {@link onSpilled} reports its end.
   *
   * @param mostBytes limit of the messages' memory; a single message may exceed it
   * @param roomBytes limit that even a single message may not exceed
   */
  takeSpill(mostBytes: number, roomBytes = Number.POSITIVE_INFINITY): SpillStep | undefined {
    if (this.#isStopped || this.#isHeld || this.#spilling !== undefined) return undefined;
    const tried = this.#running?.part?.count ?? (this.#deadLetter === undefined ? 0 : 1);
    const first = this.#rules.firstToSpill(this.#state, tried);
    if (first > 0) this.#page = this.#offered.split(first);
    else this.#offered.resetTries();
    const from = this.#page.length > this.#pageIds.length ? "page" : "offered";
    const messages =
      from === "page"
        ? this.#page.chunk(this.#pageIds.length, Number.POSITIVE_INFINITY)
        : this.#offered.chunk(0, Math.min(mostBytes, roomBytes));
    const bytes = messages.reduce((sum, message) => sum + memoryOf(message), 0);
    if (messages.length === 0 || bytes > roomBytes) return undefined;
    this.#hasSaved = true;
    const step: SpillStep = { kind: "spill", subscription: this.subscription, messages };
    this.#spilling = { step, from };
    return step;
  }

  /** Ends a spill. @param savedIds ids of the messages in the table; undefined if the result is unknown */
  onSpilled(step: SpillStep, savedIds: readonly bigint[] | undefined): void {
    if (step !== this.#spilling?.step) return;
    const { from } = this.#spilling;
    this.#spilling = undefined;
    if (savedIds !== undefined) {
      this.#hasSaved = true;
      if (from === "page") this.#pageWritten(savedIds);
      else this.#offered.finish(savedIds.length);
    }
    this.#resolveIfDrained();
    this.onReady();
  }

  /** Ends a pause that waits for Postgres, because it answers again. */
  wake(): void {
    if (!this.#waitsForPostgres) return;
    this.#waitsForPostgres = false;
    this.#endPauses();
    this.onReady();
  }

  /** Resolves when the queue has run everything it may run, or is stopped. */
  drain(): Promise<void> {
    const drained = this.#drains.next();
    this.#resolveIfDrained();
    return drained;
  }

  /** Accepts no more messages and starts no more steps. A running step still ends with {@link onOutcome}. */
  stop(): void {
    this.#isStopped = true;
    this.#resolveIfDrained();
  }

  /** Stops, removes all messages, and releases their memory. */
  close(): void {
    this.stop();
    this.#running = this.#deadLetter = this.#spilling = undefined;
    for (const list of [this.#page, this.#offered]) list.clear();
    if (!this.#isClosed) this.#context.budget.removeQueue(this.#memory);
    this.#isClosed = true;
  }

  get #state(): QueueState {
    return {
      isRunning: this.#running !== undefined,
      hasDeadLetter: this.#deadLetter !== undefined,
      pageLength: this.#page.length,
      hasSaved: this.#hasSaved,
      offered: this.#offered.openLength,
      isHeld: this.#isHeld,
      spilling: this.#spilling?.from,
    };
  }

  /** List with the messages of the running step, or of the dead letter that is not written yet. */
  get #front(): MessageList {
    return this.#page.length > 0 ? this.#page : this.#offered;
  }

  #takeBatch(): { readonly step: BatchStep; readonly part: Part } {
    const { part, messages } = this.#front.take(this.#batchLimit);
    const savedIds = this.#savedIds(messages.length);
    return { step: { kind: "batch", subscription: this.subscription, messages, savedIds }, part };
  }

  #onBatch(step: BatchStep, part: Part, outcome: RunOutcome, now: number): void {
    const { settings } = this.#context;
    const run = { step, part, settings };
    const consequence = this.#rules.afterBatch(run, outcome);
    this.#batchLimit = this.#rules.batchLimit(this.#batchLimit, run, outcome, consequence);
    this.#follow(step, consequence, now);
  }

  #follow(step: BatchStep | DeadLetterStep, consequence: Consequence, now: number): void {
    const { done, again, deadLetter, isBisected, hasProgressed, pauses } = consequence;
    this.#totals[step.kind === "batch" ? "committed" : "deadLettered"] += done;
    if (isBisected) this.#totals.bisections += 1;
    this.#front.runAgain(again);
    this.#finish(done, step.kind === "batch" ? step.savedIds.length : step.savedId === undefined ? 0 : 1);
    this.#deadLetter = deadLetter;
    if (hasProgressed) this.#endPauses();
    if (pauses) this.#pause(now);
  }

  #fetch(): Step {
    // Messages that are saved while this step runs need another fetch.
    this.#hasSaved = false;
    return { kind: "fetch", subscription: this.subscription, done: this.#doneSavedIds };
  }

  #fetched(saved: readonly SavedMessage[]): void {
    // The fetch has deleted them from the table.
    this.#doneSavedIds = [];
    for (const { savedId, message } of saved) {
      this.#page.offer(message, { isKept: true });
      this.#pageIds.push(savedId);
    }
    if (saved.length > 0) this.#hasSaved = true;
  }

  #pageWritten(savedIds: readonly bigint[]): void {
    const inPage = this.#page.length - this.#pageIds.length;
    const [done, page] = this.#rules.dividedIds(savedIds, savedIds.length - inPage);
    this.#doneSavedIds.push(...done);
    for (const id of page) this.#pageIds.push(id);
  }

  /** Ids of the first messages in the table, up to `count`; empty if the first message is not in the table. */
  #savedIds(count: number): bigint[] {
    if (this.#front !== this.#page) return [];
    return Array.from({ length: Math.min(count, this.#pageIds.length) }, (_, index) => this.#pageIds.at(index)!);
  }

  /**
   * Removes messages that are done.
   *
   * @param deleted number of them that were deleted from the table in the same transaction
   */
  #finish(count: number, deleted: number): void {
    const list = this.#front;
    if (list === this.#page) {
      for (let index = 0; index < count; index++) {
        const id = this.#pageIds.shift();
        if (id !== undefined && index >= deleted) this.#doneSavedIds.push(id);
      }
    }
    list.finish(count);
  }

  #pause(now: number): void {
    this.#pausedUntil = now + this.#backoff.failed();
  }

  #endPauses(): void {
    this.#backoff.reset();
    this.#pausedUntil = Number.NEGATIVE_INFINITY;
  }

  #resolveIfDrained(): void {
    const hasNext = this.#rules.nextKind({ ...this.#state, isRunning: false }) !== undefined;
    if (!this.#isStopped && (hasNext || this.#spilling !== undefined)) return;
    this.#drains.settle();
  }
}

/** Totals of a new subscription. */
export function newTotals(): QueueTotals {
  return { committed: 0, deadLettered: 0, transactions: 0, bisections: 0 };
}
