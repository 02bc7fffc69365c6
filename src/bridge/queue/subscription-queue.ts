/**
 * The ordered queue of one subscription: decides what runs next in Postgres, and what follows from each outcome. Pure:
 * no I/O and no clock.
 *
 * `index.ts` lists the outcomes. A batch that fails for a reason that no message causes is halved, too, so that in the
 * end only the message that has to wait, such as for a lock, delays those behind it.
 *
 * The table of saved messages contains messages that a previous leader left, and messages that were spilled. A queue
 * consists of, oldest first: the page that was fetched last, the rest of its saved messages, and the messages offered
 * since. Offered messages wait until all saved ones have run. A saved message is deleted in the transaction that runs
 * it. When a queue starts to spill, messages that were already tried become a page and are written first, so that the
 * table has everything in order even if this process is killed.
 */
import { Backoff, Fifo } from "../../runtime/index.js";
import type { Subscription } from "../bindings.js";
import { type InboundMessage, memoryOf } from "../message.js";
import type { Admission, QueueMemory } from "./memory.js";
import { MessageList, type Part } from "./message-list.js";
import type {
  BatchStep,
  DeadLetterStep,
  FetchStep,
  FunctionError,
  Outcome,
  QueueContext,
  QueueSettings,
  QueueTotals,
  SavedMessage,
  SpillStep,
  Step,
} from "./steps.js";

/** Outcome of a batch or dead letter that reached Postgres, as a whole. */
type RunOutcome = Exclude<Outcome, { kind: "unavailable" | "deposed" | "fetched" | "partly" }>;
type PartialOutcome = Extract<Outcome, { kind: "partly" }>;

export class SubscriptionQueue {
  /** Called when there may be a step again. Set by the scheduler. */
  onReady: () => void = () => undefined;
  readonly #memory: QueueMemory;
  #isClosed = false;
  protected readonly messages: MessageList;
  /** Messages fetched from the table, or to be written there first. They precede {@link messages}. */
  protected page: MessageList;
  /** Ids of the first messages of the page; the rest of the page is not in the table. */
  readonly #pageIds = new Fifo<bigint>();
  /** Ids of saved messages that are done but still in the table, because they ran while they were being written. */
  #doneSavedIds: bigint[] = [];
  /** Messages that are being written to the table. */
  #spilling: { readonly step: SpillStep; readonly isOfPage: boolean; done: number } | undefined;
  #isHeld = false;
  /** Dead letters to retry, each alone. */
  protected readonly retries: MessageList;
  readonly #size: BatchSize;
  readonly #sizeOfRetries: BatchSize;
  protected readonly pause: Pause;
  /** Running step, and for a batch the part of its messages. */
  protected runningStep: Step | undefined;
  protected part: Part | undefined;
  /** Dead letter that is not written yet. It is the next step, until it is written. */
  protected unwrittenDeadLetter: DeadLetterStep | undefined;
  protected stopped = false;
  /** True while the queue pauses because Postgres was unreachable. */
  #waitsForPostgres = false;
  /** True if the last batch, or the dead letter that is not written yet, is from {@link retries}. */
  protected lastWasRetry = false;
  readonly #drains: ((done: boolean) => void)[] = [];

  /** Subscription of the next step. Replaced when its wrapper gets another owner. */
  subscription: Subscription;
  protected readonly context: QueueContext;
  /** True if the table may have messages of this queue. */
  #hasSaved: boolean;
  readonly #totals: QueueTotals;

  /**
   * @param hasSaved true if the table may have messages of this queue
   * @param totals counts to continue, from earlier queues of the subscription
   */
  constructor(subscription: Subscription, context: QueueContext, hasSaved = false, totals = newTotals()) {
    this.subscription = subscription;
    this.context = context;
    this.#hasSaved = hasSaved;
    this.#totals = totals;
    const { settings } = context;
    this.#memory = context.budget.addQueue(subscription.runAs);
    this.messages = new MessageList(context, this.#memory);
    this.page = new MessageList(context, this.#memory);
    this.retries = new MessageList(context, this.#memory);
    this.#size = new BatchSize(settings.maxBatchMessages, settings.batchTargetMs);
    this.#sizeOfRetries = new BatchSize(1, settings.batchTargetMs);
    this.pause = new Pause(settings);
  }

  get counts(): Readonly<QueueTotals> {
    return this.#totals;
  }

  /** Number of messages in memory. */
  get length(): number {
    return this.page.length + this.messages.length;
  }

  /** True while dead letters are being retried. */
  get isRetrying(): boolean {
    return this.retries.length > 0;
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
    return (this.page.at(this.#pageIds.length) ?? this.messages.oldest)?.receivedAt;
  }

  /** Messages that are neither committed nor dead-lettered nor saved, in order. */
  get unfinished(): Iterable<InboundMessage> {
    return [...[...this.page].slice(this.#pageIds.length), ...this.messages];
  }

  /** Time from which {@link next} has a step; Infinity if an event must come first. */
  get readyAt(): number {
    if (this.stopped || this.runningStep !== undefined || !this.#hasStep) return Number.POSITIVE_INFINITY;
    return this.pause.until;
  }

  /**
   * Appends a message. Returns false if there is no room, and counts the message as discarded; or if the queue is
   * stopped, without counting.
   */
  offer(message: InboundMessage, admission: Admission = {}): boolean {
    if (this.stopped || !this.messages.offer(message, admission)) return false;
    if (this.messages.length === 1) this.onReady();
    return true;
  }

  /** Makes the queue fetch saved messages before it runs messages that were never tried. */
  expectSaved(): void {
    if (this.stopped) return;
    this.#hasSaved = true;
    this.onReady();
  }

  /**
   * Keeps messages that are offered from now on, in order, without running them: messages that only another process has
   * received may have to run before them.
   */
  hold(): void {
    this.#isHeld = true;
    this.messages.hold();
    if (this.#empty) this.#resolveDrains(true);
  }

  /**
   * Starts to spill the next messages, because memory is nearly full. A spill can run at the same time as another step.
   * {@link onSpilled} reports its end.
   *
   * @param mostBytes limit of the messages' memory; a single message may exceed it
   * @param roomBytes limit that even a single message may not exceed
   */
  takeSpill(mostBytes: number, roomBytes = Number.POSITIVE_INFINITY): SpillStep | undefined {
    if (this.stopped || this.#isHeld || this.#spilling !== undefined) return undefined;
    this.moveTriedToPage();
    const isOfPage = this.page.length > this.#pageIds.length;
    const messages = isOfPage
      ? this.page.chunk(this.#pageIds.length, Number.POSITIVE_INFINITY)
      : this.messages.chunk(0, Math.min(mostBytes, roomBytes));
    const bytes = messages.reduce((sum, message) => sum + memoryOf(message), 0);
    if (messages.length === 0 || bytes > roomBytes) return undefined;
    this.#hasSaved = true;
    const step: SpillStep = { kind: "spill", subscription: this.subscription, messages };
    this.#spilling = { step, isOfPage, done: 0 };
    return step;
  }

  /** Ends a spill. @param savedIds ids of the messages in the table; undefined if the result is unknown */
  onSpilled(step: SpillStep, savedIds: readonly bigint[] | undefined): void {
    const spilling = this.#spilling;
    if (spilling?.step !== step) return;
    this.#spilling = undefined;
    if (savedIds !== undefined) {
      this.#hasSaved = true;
      if (spilling.isOfPage) this.assignSavedIds(savedIds, spilling.done);
      else this.messages.finish(savedIds.length);
    }
    if (this.#empty) this.#resolveDrains(true);
    this.onReady();
  }

  /** Queues a dead letter for a retry: alone, between the batches. Returns false if the queue is stopped. */
  retry(letter: InboundMessage): boolean {
    if (this.stopped) return false;
    this.retries.offer(letter, { isKept: true });
    if (this.retries.length === 1) this.onReady();
    return true;
  }

  /** Starts the next step; undefined before {@link readyAt}. It runs until {@link onOutcome}. */
  next(now: number): Step | undefined {
    if (this.readyAt > now) return undefined;
    this.#waitsForPostgres = false;
    this.runningStep = this.takeDeadLetter() ?? this.takeRetry() ?? this.takeFetch() ?? this.takeBatch();
    return this.runningStep;
  }

  /** Ends the running step. Has no effect once the queue is closed. */
  onOutcome(step: Step, outcome: Outcome, now: number): void {
    if (step !== this.runningStep) return;
    const { part } = this;
    this.runningStep = this.part = undefined;
    this.#waitsForPostgres = outcome.kind === "unavailable";
    // After a failed fetch, the messages are still in the table.
    if (step.kind === "fetch" && outcome.kind !== "fetched") this.#hasSaved = true;
    if (outcome.kind === "deposed") this.stop();
    else if (outcome.kind === "unavailable") {
      if (part !== undefined) this.#front.retryPart(part);
      this.pause.start(now);
    } else if (outcome.kind === "fetched") this.#fetched(outcome.saved);
    else {
      this.#totals.transactions += 1;
      if (outcome.kind === "partly") this.onPartialOutcome(step as BatchStep, part!, outcome, now);
      else if (step.kind === "fetch") this.pause.start(now);
      else if (step.kind === "batch") this.onBatchOutcome(step, part!, outcome, now);
      else this.onDeadLetterOutcome(step, outcome, now);
    }
    if (this.#empty) this.#resolveDrains(true);
  }

  /** Ends a pause that waits for Postgres, because it answers again. */
  wake(): void {
    if (!this.#waitsForPostgres) return;
    this.#waitsForPostgres = false;
    this.pause.reset();
    this.onReady();
  }

  /** Resolves when the queue has run everything it may run: true, or false if it was stopped before. */
  drain(): Promise<boolean> {
    if (this.#empty || this.stopped) return Promise.resolve(this.#empty);
    return new Promise((resolve) => this.#drains.push(resolve));
  }

  /** Accepts no more messages and starts no more steps. A running step still ends with {@link onOutcome}. */
  stop(): void {
    this.stopped = true;
    this.#resolveDrains(this.#empty);
  }

  /** Stops, removes all messages, and releases their memory. */
  close(): void {
    this.stop();
    this.runningStep = this.part = this.unwrittenDeadLetter = this.#spilling = undefined;
    this.page.clear();
    this.messages.clear();
    this.retries.clear();
    if (!this.#isClosed) this.context.budget.removeQueue(this.#memory);
    this.#isClosed = true;
  }

  protected takeDeadLetter(): DeadLetterStep | undefined {
    return this.unwrittenDeadLetter && { ...this.unwrittenDeadLetter, savedId: this.#savedIds(1)[0] };
  }

  protected takeRetry(): BatchStep | undefined {
    // Messages and retries of dead letters alternate, so that neither starves the other.
    this.lastWasRetry = this.isRetrying && (!this.lastWasRetry || !this.#hasMessages);
    return this.lastWasRetry ? this.takeBatch() : undefined;
  }

  protected takeFetch(): FetchStep | undefined {
    if (!this.#mayFetch) return undefined;
    // Messages that are saved while this step runs need another fetch.
    this.#hasSaved = false;
    return { kind: "fetch", subscription: this.subscription, done: this.#doneSavedIds };
  }

  protected takeBatch(): BatchStep {
    const { part, messages } = this.#front.take(this.size.limit);
    this.part = part;
    return { kind: "batch", subscription: this.subscription, messages, savedIds: this.#savedIds(messages.length) };
  }

  protected onBatchOutcome(step: BatchStep, part: Part, outcome: RunOutcome, now: number): void {
    const tried = { ...part, attempts: part.attempts + 1 };
    if (outcome.kind === "transient") {
      // Without this limit, a dead letter that always fails this way would delay the messages behind it again and
      // again.
      if (this.lastWasRetry && tried.attempts >= this.context.settings.deadLetterRetryTries) {
        this.deadLetterOnly(step, outcome.error, tried.attempts);
        return;
      }
      // Only new batches count: halves of a batch would shrink the next ones far below a size that succeeds.
      if (tried.attempts === 1) this.size.failedBatch(tried.count);
      this.afterTransient(tried, now);
      return;
    }
    this.pause.reset();
    if (outcome.kind === "committed") {
      this.size.committed(part.count, outcome.durationMs);
      this.#committed(part.count, step.savedIds.length);
    } else if (outcome.kind === "failed") this.afterFailure(step, tried, outcome.error);
    else if (outcome.kind === "timed_out") this.afterTimeout(step, tried, outcome.error);
    else this.afterSessionLoss(step, tried, outcome.message);
  }

  /** Removes the committed messages, and treats the failed ones like a batch of their own. */
  protected onPartialOutcome(step: BatchStep, part: Part, { committed, failed }: PartialOutcome, now: number): void {
    if (committed > 0) this.pause.reset();
    this.#committed(committed, step.savedIds.length);
    const tried = { ...part, count: failed?.count ?? 0, attempts: part.attempts + 1 };
    const rest = part.count - committed - tried.count;
    // Messages that were never tried need no part: they follow the parts.
    if (rest > 0 && part.attempts > 0) this.#front.retryPart({ ...part, count: rest });
    if (failed === undefined) return;
    const { outcome } = failed;
    if (outcome.kind === "transient") {
      this.afterTransient(tried, now);
      return;
    }
    this.pause.reset();
    const failedStep = { ...step, messages: step.messages.slice(committed, committed + tried.count) };
    if (outcome.kind === "failed") this.afterFailure(failedStep, tried, outcome.error);
    else this.afterTimeout(failedStep, tried, outcome.error);
  }

  #committed(count: number, deleted: number): void {
    if (!this.lastWasRetry) this.#totals.committed += count;
    this.#finish(count, deleted);
  }

  /** Halves the batch at once; a single message pauses. No message is the cause of the failure. */
  protected afterTransient(tried: Part, now: number): void {
    if (tried.count > 1) {
      this.halve(tried);
      return;
    }
    this.#front.retryPart(tried);
    this.pause.start(now);
  }

  protected afterFailure(step: BatchStep, tried: Part, error: FunctionError): void {
    if (tried.count === 1) this.deadLetterOnly(step, error, tried.attempts);
    else this.halve(tried);
  }

  protected afterTimeout(step: BatchStep, tried: Part, error: FunctionError): void {
    this.size.timedOut();
    if (tried.count === 1) this.deadLetterOnly(step, error, tried.attempts);
    else this.#front.retryPart({ ...tried, isOneByOne: true });
  }

  /**
   * Makes a single message a dead letter only after its second lost session: an operator may have ended the first one,
   * or it may have been lost after the commit.
   */
  protected afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    if (tried.count > 1) this.halve(tried);
    else if (tried.losses === 0) this.#front.retryPart({ ...tried, losses: 1 });
    else this.deadLetterOnly(step, sessionLostTwice(this.context.settings, message), tried.attempts);
  }

  protected halve(tried: Part): void {
    this.#totals.bisections += 1;
    this.#front.halve(tried);
  }

  /** Makes the only message of the batch a dead letter. */
  protected deadLetterOnly({ messages, subscription }: BatchStep, error: FunctionError, attempts: number): void {
    this.size.deadLettered();
    this.unwrittenDeadLetter = { kind: "dead_letter", subscription, message: messages[0]!, error, attempts };
  }

  /**
   * Repeats the step until the dead letter is written, whatever the error: otherwise the message would be lost or
   * overtaken.
   */
  protected onDeadLetterOutcome(step: DeadLetterStep, outcome: RunOutcome, now: number): void {
    if (outcome.kind !== "committed") {
      this.pause.start(now);
      return;
    }
    this.pause.reset();
    this.unwrittenDeadLetter = undefined;
    if (!this.lastWasRetry) this.#totals.deadLettered += 1;
    this.#finish(1, step.savedId === undefined ? 0 : 1);
  }

  /** Moves messages that were tried to the page, in front of the saved messages. */
  protected moveTriedToPage(): void {
    if (this.page.length > 0) {
      this.messages.resetTries();
      return;
    }
    const tried = this.part?.count ?? (this.unwrittenDeadLetter === undefined ? 0 : 1);
    if (tried > 0 && !this.lastWasRetry) this.page = this.messages.split(tried);
    else this.messages.resetTries();
  }

  /** Assigns ids to messages of the page that were saved; the first `done` of them were finished meanwhile. */
  protected assignSavedIds(savedIds: readonly bigint[], done: number): void {
    for (const [index, id] of savedIds.entries()) {
      if (index < done) this.#doneSavedIds.push(id);
      else this.#pageIds.push(id);
    }
  }

  #fetched(saved: readonly SavedMessage[]): void {
    // The fetch has deleted them from the table.
    this.#doneSavedIds = [];
    for (const { savedId, message } of saved) {
      this.page.offer(message, { isKept: true });
      this.#pageIds.push(savedId);
    }
    if (saved.length > 0) this.#hasSaved = true;
  }

  protected get size(): BatchSize {
    return this.lastWasRetry ? this.#sizeOfRetries : this.#size;
  }

  /** List with the next messages: retries, the page, or offered messages. */
  get #front(): MessageList {
    if (this.lastWasRetry) return this.retries;
    return this.page.length > 0 ? this.page : this.messages;
  }

  /** Ids of the first messages in the table, up to `count`; empty if the first message is not in the table. */
  #savedIds(count: number): bigint[] {
    if (this.#front !== this.page) return [];
    return Array.from({ length: Math.min(count, this.#pageIds.length) }, (_, index) => this.#pageIds.at(index)!);
  }

  /**
   * Removes messages that are done.
   *
   * @param deleted number of them that were deleted from the table in the same transaction
   */
  #finish(count: number, deleted: number): void {
    const queue = this.#front;
    if (queue === this.page) {
      for (let index = 0; index < count; index++) {
        const id = this.#pageIds.shift();
        if (id === undefined && this.#spilling?.isOfPage === true) this.#spilling.done += 1;
        else if (id !== undefined && index >= deleted) this.#doneSavedIds.push(id);
      }
    }
    queue.finish(count);
    if (queue === this.retries && !this.isRetrying) this.context.onRetried();
  }

  get #mayFetch(): boolean {
    // While the page is being written, a fetch could read messages of it that are already done.
    return this.#hasSaved && !this.#isHeld && this.page.length === 0 && this.#spilling?.isOfPage !== true;
  }

  /** True if a batch can start: no saved message precedes the next one. */
  get #hasMessages(): boolean {
    if (this.page.length > 0) return true;
    return !this.#hasSaved && this.#spilling === undefined && this.messages.openLength > 0;
  }

  get #hasStep(): boolean {
    return this.#mayFetch || this.#hasMessages || this.isRetrying;
  }

  get #empty(): boolean {
    return !this.#hasStep && this.#spilling === undefined;
  }

  #resolveDrains(done: boolean): void {
    for (const resolve of this.#drains.splice(0)) resolve(done);
  }
}

/** Totals of a new subscription. */
export function newTotals(): QueueTotals {
  return { committed: 0, deadLettered: 0, transactions: 0, bisections: 0 };
}

/** Error of a message that lost two sessions while it ran alone. */
function sessionLostTwice(settings: QueueSettings, message: string): FunctionError {
  return {
    code: settings.sessionLostCode,
    message: `The database session ended twice while the function ran for this message alone: ${message}`,
  };
}

/**
 * Limit of messages in a batch, adapted to the duration and failures of previous batches.
 *
 * The limit starts at one and doubles with each full batch that commits, so it can reach a thousand after ten batches.
 * The limit never exceeds the number that would take `targetMs` at the speed of the last batch. That is far below the
 * statement timeout, because a batch that times out is wasted work. A dead letter halves the limit: bisection costs up
 * to two transactions per message, so a function that always fails should get its messages one by one.
 */
export class BatchSize {
  #limit = 1;

  readonly #max: number;
  readonly #targetMs: number;

  /** @param targetMs intended duration of a batch */
  constructor(max: number, targetMs: number) {
    this.#max = max;
    this.#targetMs = targetMs;
  }

  get limit(): number {
    return this.#limit;
  }

  committed(count: number, durationMs: number): void {
    const wanted = count >= this.#limit ? this.#limit * 2 : this.#limit;
    this.#set(Math.min(wanted, (count * this.#targetMs) / Math.max(durationMs, 0.001)));
  }

  /** Halves the limit after a message failed alone. */
  deadLettered(): void {
    this.#set(this.#limit / 2);
  }

  /** Limits batches to half of a batch that failed; a smaller one may succeed. */
  failedBatch(count: number): void {
    this.#set(Math.min(this.#limit, count / 2));
  }

  /** Resets the limit after a statement timeout, which disproves the measured speed. */
  timedOut(): void {
    this.#set(1);
  }

  #set(limit: number): void {
    this.#limit = Math.min(this.#max, Math.max(1, Math.floor(limit)));
  }
}

/** Pause after a failure that no message causes. It grows with consecutive failures. */
export class Pause {
  readonly #backoff: Backoff;
  #end = Number.NEGATIVE_INFINITY;

  constructor({ batchPauseMinMs, batchPauseMaxMs, random }: QueueSettings) {
    this.#backoff = new Backoff({ minMs: batchPauseMinMs, maxMs: batchPauseMaxMs, jitter: 0.5, random });
  }

  /** End of the pause; in the past if there is none. */
  get until(): number {
    return this.#end;
  }

  /** Starts a pause after one more failure. */
  start(now: number): void {
    this.#end = now + this.#backoff.failed();
  }

  /** Resets the backoff after a success. */
  reset(): void {
    this.#backoff.reset();
    this.#end = Number.NEGATIVE_INFINITY;
  }
}
