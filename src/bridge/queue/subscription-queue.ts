/**
 * The ordered queue of one subscription: what is to be run in Postgres next, and what follows from how it went. Pure: it
 * runs nothing itself and has no clock.
 *
 * `index.ts` says what follows from each outcome. A batch that fails by no message's fault is halved, too: so what one message
 * waits for holds up only that one in the end.
 *
 * The table of saved messages has what a former leader left, and what there is no memory for. A queue consists of, oldest
 * first: the page that was fetched last, the rest of its table, and what was offered since. So as long as the table has
 * something, what was offered waits. A saved message is deleted in the transaction that runs it.
 * When a queue begins to spill, what is already being tried becomes a page and is written first, so that the table has
 * everything in order even if this process is killed.
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

/** The outcome of a step that was run. */
type Ran = Exclude<Outcome, { kind: "unavailable" | "deposed" | "fetched" | "partly" }>;
type RanPartly = Extract<Outcome, { kind: "partly" }>;

export class SubscriptionQueue {
  /** Called when there may be a step where there was none. Set by the scheduler. */
  onReady: () => void = () => undefined;
  readonly #memory: QueueMemory;
  #isClosed = false;
  protected readonly messages: MessageList;
  /** Messages that were fetched from the table, or are to be written there first. They come before {@link messages}. */
  protected page: MessageList;
  /** The numbers in the table of the page's first messages; those behind them are not there. */
  readonly #pageIds = new Fifo<bigint>();
  /** Saved messages that are done, and still in the table: they were run while they were being written. */
  #done: bigint[] = [];
  /** What is being written to the table. */
  #spilling: { readonly step: SpillStep; readonly isOfPage: boolean; done: number } | undefined;
  #isHeld = false;
  /** Dead letters that are to be tried again, each alone. */
  protected readonly retries: MessageList;
  readonly #size: BatchSize;
  readonly #sizeOfRetries: BatchSize;
  protected readonly pause: Pause;
  /** The step that is out, and for a batch its part of the messages. */
  protected out: Step | undefined;
  protected part: Part | undefined;
  /** What failed alone, and is not written down yet. Nothing else is done before that. */
  protected unwritten: DeadLetterStep | undefined;
  protected stopped = false;
  /** It pauses because Postgres could not be reached. */
  #waitsForPostgres = false;
  /** What was run last, and may not be written yet, is one of {@link retries}. */
  protected retriedLast = false;
  readonly #waiting: ((done: boolean) => void)[] = [];

  /** As it is now: its wrapper may be given another owner. The next step has it. */
  subscription: Subscription;
  protected readonly context: QueueContext;
  /** The table may have messages for it. */
  #hasSaved: boolean;
  readonly #totals: QueueTotals;

  /**
   * @param hasSaved the table may have messages for it
   * @param totals what it counts on in: of the subscription's queues before it, too
   */
  constructor(subscription: Subscription, context: QueueContext, hasSaved = false, totals = newTotals()) {
    this.subscription = subscription;
    this.context = context;
    this.#hasSaved = hasSaved;
    this.#totals = totals;
    const { settings } = context;
    this.#memory = context.budget.join(subscription.runAs);
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

  /** Messages that are neither committed nor dead-lettered, as far as they are in memory. */
  get length(): number {
    return this.page.length + this.messages.length;
  }

  /** Dead letters are being tried again. */
  get isRetrying(): boolean {
    return this.retries.length > 0;
  }

  /** The memory of all that it holds. */
  get bytes(): number {
    return this.#memory.usedBytes;
  }

  /**
   * When the oldest message was received that is neither committed nor dead-lettered nor saved in the table; undefined: there is
   * none.
   */
  get oldestReceivedAt(): number | undefined {
    return (this.page.at(this.#pageIds.length) ?? this.messages.oldest)?.receivedAt;
  }

  /** Messages that are neither committed nor dead-lettered nor saved in the table, in order. */
  get unfinished(): Iterable<InboundMessage> {
    return [...[...this.page].slice(this.#pageIds.length), ...this.messages];
  }

  /** From when on {@link next} has a step; Infinity: not before something is offered, retried or settled. */
  get readyAt(): number {
    if (this.stopped || this.out !== undefined || !this.#hasStep) return Number.POSITIVE_INFINITY;
    return this.pause.until;
  }

  /**
   * Takes a message. False: there is no room, and it is counted as discarded; or the queue was stopped, and it is not
   * counted.
   */
  offer(message: InboundMessage, admission: Admission = {}): boolean {
    if (this.stopped || !this.messages.offer(message, admission)) return false;
    if (this.messages.length === 1) this.onReady();
    return true;
  }

  /** There may be more in the table: it is fetched before anything that was not tried yet. */
  expectSaved(): void {
    if (this.stopped) return;
    this.#hasSaved = true;
    this.onReady();
  }

  /**
   * What is offered from now on is kept in order, and not handed out: between it and what came before something may be
   * missing that another process has.
   */
  hold(): void {
    this.#isHeld = true;
    this.messages.hold();
    if (this.#empty) this.#tell(true);
  }

  /**
   * The next messages that are to be written to the table, because there is little memory left. They are out until they are
   * settled, beside another step.
   *
   * @param mostBytes of memory; a single message may have more
   * @param roomBytes there is no room for more, also not for a single message
   */
  takeSpill(mostBytes: number, roomBytes = Number.POSITIVE_INFINITY): SpillStep | undefined {
    if (this.stopped || this.#isHeld || this.#spilling !== undefined) return undefined;
    this.keepTried();
    const isOfPage = this.page.length > this.#pageIds.length;
    const messages = isOfPage
      ? this.page.piece(this.#pageIds.length, Number.POSITIVE_INFINITY)
      : this.messages.piece(0, Math.min(mostBytes, roomBytes));
    const bytes = messages.reduce((sum, message) => sum + memoryOf(message), 0);
    if (messages.length === 0 || bytes > roomBytes) return undefined;
    this.#hasSaved = true;
    const step: SpillStep = { kind: "spill", subscription: this.subscription, messages };
    this.#spilling = { step, isOfPage, done: 0 };
    return step;
  }

  /** @param savedIds the numbers under which they are in the table; undefined: it is not known whether they are */
  settleSpill(step: SpillStep, savedIds: readonly bigint[] | undefined): void {
    const spilling = this.#spilling;
    if (spilling?.step !== step) return;
    this.#spilling = undefined;
    if (savedIds !== undefined) {
      this.#hasSaved = true;
      if (spilling.isOfPage) this.numberPage(savedIds, spilling.done);
      else this.messages.finish(savedIds.length);
    }
    if (this.#empty) this.#tell(true);
    this.onReady();
  }

  /** Takes a dead letter that is to be tried again: alone, between the batches. False: the queue was stopped. */
  retry(letter: InboundMessage): boolean {
    if (this.stopped) return false;
    this.retries.offer(letter, { isKept: true });
    if (this.retries.length === 1) this.onReady();
    return true;
  }

  /** The next step; undefined before {@link readyAt}. It is out until it is settled. */
  next(now: number): Step | undefined {
    if (this.readyAt > now) return undefined;
    this.#waitsForPostgres = false;
    this.out = this.takeUnwritten() ?? this.takeRetry() ?? this.takeFetch() ?? this.takeBatch();
    return this.out;
  }

  /** Tells how the step went. Does nothing once the queue is closed. */
  settle(step: Step, outcome: Outcome, now: number): void {
    if (step !== this.out) return;
    const { part } = this;
    this.out = this.part = undefined;
    this.#waitsForPostgres = outcome.kind === "unavailable";
    // What was to be fetched is still there.
    if (step.kind === "fetch" && outcome.kind !== "fetched") this.#hasSaved = true;
    if (outcome.kind === "deposed") this.stop();
    else if (outcome.kind === "unavailable") {
      if (part !== undefined) this.#front.again(part);
      this.pause.begin(now);
    } else if (outcome.kind === "fetched") this.#fetched(outcome.saved);
    else {
      this.#totals.transactions += 1;
      if (outcome.kind === "partly") this.settlePartly(step as BatchStep, part!, outcome, now);
      else if (step.kind === "fetch") this.pause.begin(now);
      else if (step.kind === "batch") this.settleBatch(step, part!, outcome, now);
      else this.settleUnwritten(step, outcome, now);
    }
    if (this.#empty) this.#tell(true);
  }

  /** Postgres answers again: ends the pause that the queue makes because it did not. */
  wake(): void {
    if (!this.#waitsForPostgres) return;
    this.#waitsForPostgres = false;
    this.pause.forget();
    this.onReady();
  }

  /** Resolves with true when nothing is left that may be handed out, or with false when the queue is stopped before that. */
  drain(): Promise<boolean> {
    if (this.#empty || this.stopped) return Promise.resolve(this.#empty);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Hands out nothing more and takes nothing more. What is out is still to be settled; what is queued stays. */
  stop(): void {
    this.stopped = true;
    this.#tell(this.#empty);
  }

  /** Stops, forgets everything, and gives all memory back. */
  close(): void {
    this.stop();
    this.out = this.part = this.unwritten = this.#spilling = undefined;
    this.page.clear();
    this.messages.clear();
    this.retries.clear();
    if (!this.#isClosed) this.#memory.leave();
    this.#isClosed = true;
  }

  protected takeUnwritten(): DeadLetterStep | undefined {
    return this.unwritten && { ...this.unwritten, savedId: this.#savedIds(1)[0] };
  }

  protected takeRetry(): BatchStep | undefined {
    // Messages and dead letters take turns, so that neither waits for all of the other.
    this.retriedLast = this.isRetrying && (!this.retriedLast || !this.#hasMessages);
    return this.retriedLast ? this.takeBatch() : undefined;
  }

  protected takeFetch(): FetchStep | undefined {
    if (!this.#mayFetch) return undefined;
    // What is saved while this is out is fetched again.
    this.#hasSaved = false;
    return { kind: "fetch", subscription: this.subscription, done: this.#done };
  }

  protected takeBatch(): BatchStep {
    const { part, messages } = this.#front.take(this.size.limit);
    this.part = part;
    return { kind: "batch", subscription: this.subscription, messages, savedIds: this.#savedIds(messages.length) };
  }

  protected settleBatch(step: BatchStep, part: Part, outcome: Ran, now: number): void {
    const tried = { ...part, attempts: part.attempts + 1 };
    if (outcome.kind === "transient") {
      // Without this limit, a dead letter that is never done would make the messages behind it wait again and again.
      if (this.retriedLast && tried.attempts >= this.context.settings.deadLetterRetryTries) {
        this.failAlone(step, outcome.error, tried.attempts);
        return;
      }
      // Only by batches that are new: halves of one would make the next ones far smaller than half of them gets through.
      if (tried.attempts === 1) this.size.givenUp(tried.count);
      this.afterTransient(tried, now);
      return;
    }
    this.pause.forget();
    if (outcome.kind === "committed") {
      this.size.committed(part.count, outcome.durationMs);
      this.#committed(part.count, step.savedIds.length);
    } else if (outcome.kind === "failed") this.afterFailure(step, tried, outcome.error);
    else if (outcome.kind === "timed_out") this.afterTimeout(step, tried, outcome.error);
    else this.afterSessionLoss(step, tried, outcome.message);
  }

  /** Of those at the front nothing is left to do; what failed is settled as if it had been tried for itself. */
  protected settlePartly(step: BatchStep, part: Part, { committed, failed }: RanPartly, now: number): void {
    if (committed > 0) this.pause.forget();
    this.#committed(committed, step.savedIds.length);
    const tried = { ...part, count: failed?.count ?? 0, attempts: part.attempts + 1 };
    const rest = part.count - committed - tried.count;
    // Those that were never tried are simply what is behind the parts.
    if (rest > 0 && part.attempts > 0) this.#front.again({ ...part, count: rest });
    if (failed === undefined) return;
    const { outcome } = failed;
    if (outcome.kind === "transient") {
      this.afterTransient(tried, now);
      return;
    }
    this.pause.forget();
    const failedStep = { ...step, messages: step.messages.slice(committed, committed + tried.count) };
    if (outcome.kind === "failed") this.afterFailure(failedStep, tried, outcome.error);
    else this.afterTimeout(failedStep, tried, outcome.error);
  }

  #committed(count: number, deleted: number): void {
    if (!this.retriedLast) this.#totals.committed += count;
    this.#finish(count, deleted);
  }

  /** No message is to blame: with fewer of them, at once, until one is alone and waits. */
  protected afterTransient(tried: Part, now: number): void {
    if (tried.count > 1) {
      this.halve(tried);
      return;
    }
    this.#front.again(tried);
    this.pause.begin(now);
  }

  protected afterFailure(step: BatchStep, tried: Part, error: FunctionError): void {
    if (tried.count === 1) this.failAlone(step, error, tried.attempts);
    else this.halve(tried);
  }

  protected afterTimeout(step: BatchStep, tried: Part, error: FunctionError): void {
    this.size.timedOut();
    if (tried.count === 1) this.failAlone(step, error, tried.attempts);
    else this.#front.again({ ...tried, oneByOne: true });
  }

  /** Once may have been an operator, or the commit may have been done: only the second loss of a message is its own. */
  protected afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    if (tried.count > 1) this.halve(tried);
    else if (tried.losses === 0) this.#front.again({ ...tried, losses: 1 });
    else this.failAlone(step, sessionLostTwice(this.context.settings, message), tried.attempts);
  }

  protected halve(tried: Part): void {
    this.#totals.bisections += 1;
    this.#front.halve(tried);
  }

  /** The only message of the batch is to become a dead letter. */
  protected failAlone({ messages, subscription }: BatchStep, error: FunctionError, attempts: number): void {
    this.size.deadLettered();
    this.unwritten = { kind: "dead_letter", subscription, message: messages[0]!, error, attempts };
  }

  /** It is tried until it is written, whatever prevents that: nothing is lost, nothing overtakes it. */
  protected settleUnwritten(step: DeadLetterStep, outcome: Ran, now: number): void {
    if (outcome.kind !== "committed") {
      this.pause.begin(now);
      return;
    }
    this.pause.forget();
    this.unwritten = undefined;
    if (!this.retriedLast) this.#totals.deadLettered += 1;
    this.#finish(1, step.savedId === undefined ? 0 : 1);
  }

  /** What was tried stays in front of the table. */
  protected keepTried(): void {
    if (this.page.length > 0) {
      this.messages.forgetTries();
      return;
    }
    const tried = this.part?.count ?? (this.unwritten === undefined ? 0 : 1);
    if (tried > 0 && !this.retriedLast) this.page = this.messages.split(tried);
    else this.messages.forgetTries();
  }

  /** Messages of the page were written to the table, the first ones of which may be done by now. */
  protected numberPage(savedIds: readonly bigint[], done: number): void {
    for (const [index, id] of savedIds.entries()) {
      if (index < done) this.#done.push(id);
      else this.#pageIds.push(id);
    }
  }

  #fetched(saved: readonly SavedMessage[]): void {
    // Deleted with it.
    this.#done = [];
    for (const { savedId, message } of saved) {
      this.page.offer(message, { isKept: true });
      this.#pageIds.push(savedId);
    }
    if (saved.length > 0) this.#hasSaved = true;
  }

  protected get size(): BatchSize {
    return this.retriedLast ? this.#sizeOfRetries : this.#size;
  }

  /** Where the next messages are: among the dead letters, in the page, or in what was offered. */
  get #front(): MessageList {
    if (this.retriedLast) return this.retries;
    return this.page.length > 0 ? this.page : this.messages;
  }

  /** Numbers in the table of the messages at the front, up to `count`. */
  #savedIds(count: number): bigint[] {
    if (this.#front !== this.page) return [];
    return Array.from({ length: Math.min(count, this.#pageIds.length) }, (_, index) => this.#pageIds.at(index)!);
  }

  /** The messages at the front are done. @param deleted how many of them were deleted from the table with that */
  #finish(count: number, deleted: number): void {
    const queue = this.#front;
    if (queue === this.page) {
      for (let index = 0; index < count; index++) {
        const id = this.#pageIds.shift();
        if (id === undefined && this.#spilling?.isOfPage === true) this.#spilling.done += 1;
        else if (id !== undefined && index >= deleted) this.#done.push(id);
      }
    }
    queue.finish(count);
    if (queue === this.retries && !this.isRetrying) this.context.onRetried();
  }

  get #mayFetch(): boolean {
    // While the page is being written, what of it is done would be read again.
    return this.#hasSaved && !this.#isHeld && this.page.length === 0 && this.#spilling?.isOfPage !== true;
  }

  /** A batch may be taken: nothing that was saved before is missing in front of it. */
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

  #tell(done: boolean): void {
    for (const resolve of this.#waiting.splice(0)) resolve(done);
  }
}

/** Totals of a subscription that has no queue yet. */
export function newTotals(): QueueTotals {
  return { committed: 0, deadLettered: 0, transactions: 0, bisections: 0 };
}

/** The error of a message that has ended two sessions while it was alone. */
function sessionLostTwice(settings: QueueSettings, message: string): FunctionError {
  return {
    code: settings.sessionLostCode,
    message: `The database session ended twice while the function ran for this message alone: ${message}`,
  };
}

/**
 * How many messages a batch may have, learnt from how long batches take and how many messages fail.
 *
 * It begins with one and doubles with each full batch that is committed, so that it is at a thousand after ten. It never
 * exceeds what, at the pace of the last batch, takes `targetMs`: far below the statement timeout, because a batch that
 * runs into that is lost time. A dead letter halves it: bisecting costs up to two transactions for each message, so that a
 * function that always fails is better given its messages one by one.
 */
export class BatchSize {
  #present = 1;

  readonly #max: number;
  readonly #targetMs: number;

  /** @param targetMs how long a batch may be expected to take */
  constructor(max: number, targetMs: number) {
    this.#max = max;
    this.#targetMs = targetMs;
  }

  get limit(): number {
    return this.#present;
  }

  committed(count: number, durationMs: number): void {
    const wanted = count >= this.#present ? this.#present * 2 : this.#present;
    this.#set(Math.min(wanted, (count * this.#targetMs) / Math.max(durationMs, 0.001)));
  }

  /** A message has failed alone. */
  deadLettered(): void {
    this.#set(this.#present / 2);
  }

  /** A batch of so many had to be given up; perhaps a smaller one gets through. */
  givenUp(count: number): void {
    this.#set(Math.min(this.#present, count / 2));
  }

  /** A batch ran into the statement timeout: what was learnt about the pace is wrong. */
  timedOut(): void {
    this.#set(1);
  }

  #set(limit: number): void {
    this.#present = Math.min(this.#max, Math.max(1, Math.floor(limit)));
  }
}

/** The pause of a queue after failures that are no message's fault: longer with each in a row. */
export class Pause {
  readonly #backoff: Backoff;
  #end = Number.NEGATIVE_INFINITY;

  constructor({ batchPauseMinMs, batchPauseMaxMs, random }: QueueSettings) {
    this.#backoff = new Backoff({ minMs: batchPauseMinMs, maxMs: batchPauseMaxMs, jitter: 0.5, random });
  }

  /** When it ends; in the past if there is none. */
  get until(): number {
    return this.#end;
  }

  /** Begins after one more failure. */
  begin(now: number): void {
    this.#end = now + this.#backoff.failed();
  }

  /** Something went well: the next pause is a short one again. */
  forget(): void {
    this.#backoff.reset();
    this.#end = Number.NEGATIVE_INFINITY;
  }
}
