/**
 * Messages of the queue whose handlers run, or wait in a batch or to run alone. They outlive the term that has started them: its
 * successor goes on with those whose rows it has, and for all others the end of the handler decides whether the row is still there.
 */
import type { HandlerResult } from "../../channel/index.js";
import { type SlicedWork, timeSliceMs } from "../../handlers/dispatcher.js";
import { cutOff, marked } from "../../handlers/handler-result.js";
import type { Limited, Waiter } from "../../handlers/limits/concurrency-limit.js";
import { type QueuedMessage, rowOf } from "../../store/index.js";
import type { WorkerEffects } from "./effects.js";
import { HandledTotals } from "./handled-totals.js";
import type { LeasedTurn } from "./leased-messages.js";
import type { TakeRoom } from "./take-room.js";
import type { Term } from "./term.js";

/** Time until a message that was to run alone, and could not, is tried again. */
const aloneAgainMs = 30_000;
/** Maximum number of topics of whose running handlers a beat tells, and of the bytes of their names. */
const mostReported = 100;
const mostReportedBytes = 8_000;
const postponedResult: HandlerResult = { kind: "postponed" };
/** The message could not run alone. */
const notAloneResult: HandlerResult = { kind: "deferred", errorCode: "busy", errorMessage: "", delayMs: aloneAgainMs };
/** The message was not begun, and is not this worker's any more. */
const releasedResult: HandlerResult = { kind: "done", isMarked: true };

interface RunningTurn {
  readonly turn: LeasedTurn;
  /** Term that has started it. When that is over, the row may be another worker's. */
  readonly term: Term;
  /** Turn of the present term for the same row, if `term` is over: the end of the handler ends it. */
  resumedAs: LeasedTurn | undefined;
  /** Slot that it occupies: `own`; in a `batch`, none; or `others`, that of a channel, which frees it when the handler ends. */
  slot: "own" | "batch" | "others";
  readonly startedAt: number;
}

/** Rest of the worker. */
export interface TurnsOwner extends SlicedWork, Waiter {
  readonly effects: WorkerEffects;
  readonly room: TakeRoom;
  readonly term: Term | undefined;
  /** True from the deadline of a stop on: only what is done counts. */
  readonly isCuttingOff: boolean;
  /** A message of one of the topics is due in so many ms. */
  wantsIn(ms: number, topics: readonly string[]): void;
  /** Deletes the row of a message that an earlier term started and its handler has handled, also if the row is another worker's now. */
  handledOutside(message: QueuedMessage): void;
}

export class RunningTurns {
  readonly #turns = new Map<LeasedTurn, RunningTurn>();
  /** Turns that earlier terms have started, by their rows. */
  readonly #earlier = new Map<string, RunningTurn>();
  /** Message that is to run while nothing else does, or runs. */
  #alone: RunningTurn | undefined;
  readonly totals: HandledTotals;
  readonly #owner: TurnsOwner;
  readonly #effects: WorkerEffects;

  constructor(owner: TurnsOwner) {
    this.#owner = owner;
    this.#effects = owner.effects;
    this.totals = new HandledTotals(owner.effects.handlers);
  }

  get size(): number {
    return this.#turns.size;
  }

  get isAlone(): boolean {
    return this.#alone !== undefined;
  }

  *messages(): Generator<QueuedMessage> {
    for (const turn of this.#turns.keys()) yield turn.running;
  }

  /** Report of the handlers, for a beat: `running` of the table `workers`. Null: none runs, and none has ended. */
  report(): string | null {
    const { dispatcher, handlers, clock } = this.#effects;
    const now = clock.now();
    const topics = new Map<string, { running: number; oldest_ms: number; full: boolean }>();
    let oldest = 0;
    let bytes = 0;
    for (const { turn, startedAt } of this.#turns.values()) {
      const { topic } = turn.running;
      const ms = Math.round(now - startedAt);
      oldest = Math.max(oldest, ms);
      const before = topics.get(topic);
      if (before === undefined && (topics.size === mostReported || bytes > mostReportedBytes)) continue;
      if (before === undefined) bytes += Buffer.byteLength(topic);
      topics.set(topic, {
        running: (before?.running ?? 0) + 1,
        oldest_ms: Math.max(before?.oldest_ms ?? 0, ms),
        full: before?.full ?? handlers.limitsOf(topic)?.every((limit) => limit.free === 0) ?? false,
      });
    }
    const text = JSON.stringify({ full: dispatcher.free === 0, oldest_ms: oldest, topics: Object.fromEntries(topics) });
    const totals = this.totals.report(Buffer.byteLength(text));
    if (totals !== undefined) return `${text.slice(0, -1)},"totals":${totals}}`;
    return this.#turns.size === 0 ? null : text;
  }

  /** Messages of a term, also of those handlers that an earlier term has started. */
  messagesOf(term: Term): QueuedMessage[] {
    const ofTerm = [...this.#turns.values()].filter((one) => one.term === term || one.resumedAs !== undefined);
    return ofTerm.map(({ turn }) => turn.running);
  }

  /** The term of the rows is over: the next one may have them, or not. */
  termEnded(): void {
    for (const running of this.#turns.values()) {
      running.resumedAs = undefined;
      this.#earlier.set(rowOf(running.turn.running), running);
    }
  }

  // ---- start ----

  /** Starts messages while slots are free and the time slice lasts. */
  startMessages(term: Term): void {
    const { dispatcher, quarantine, clock } = this.#effects;
    const until = clock.now() + timeSliceMs;
    // Also if none can start now: no timer waits for them any more, but the next free slot.
    term.leased.resumePostponed(clock.now());
    term.takes.reserve();
    while (!term.isOver && !this.isAlone && !this.#effects.host.isPaused && !quarantine.blocks(this.#owner)) {
      const now = clock.now();
      if (now > until || !dispatcher.takeSlot()) {
        if (term.leased.startable > 0) dispatcher.wake(this.#owner);
        break;
      }
      const turn = term.leased.take(now);
      if (turn === undefined) {
        dispatcher.freeSlot();
        break;
      }
      const running: RunningTurn = { turn, term, resumedAs: undefined, slot: "own", startedAt: now };
      this.#turns.set(turn, running);
      if (turn.running.isSuspect && this.#isLastAttempt(turn)) this.#startAlone(running);
      else this.#start(running);
    }
  }

  #start(running: RunningTurn): void {
    const { turn, term } = running;
    const { topic, isUnique } = turn.running;
    const { handlers } = this.#effects;
    // Its row was given up while it waited to run alone.
    if (term.isOver) this.ended(turn, postponedResult);
    else if (isUnique && handlers.serves(topic) && !handlers.isPaused(topic)) this.#startUnique(running);
    else this.#effects.call(turn);
  }

  /** Starts a message with a unique key, unless a transaction relies on it that has not ended. */
  #startUnique({ term, turn }: RunningTurn): void {
    const message = turn.running;
    const { statements } = term;
    statements.ask("beginUnique", [statements.worker, message], (answer) => {
      if (answer === undefined) return this.ended(turn, postponedResult);
      const { begins, dueInMs, replacement } = answer;
      if (dueInMs !== undefined) this.#owner.wantsIn(dueInMs, [message.topic]);
      if (!begins) return this.ended(turn, releasedResult);
      if (replacement !== undefined) message.replaceContent(replacement);
      this.#effects.call(turn);
    });
  }

  #isLastAttempt({ running, attempts }: LeasedTurn): boolean {
    return attempts === this.#effects.handlers.retryOf(running.topic, running.headers).attempts;
  }

  /**
   * Starts a suspect for the last time while nothing else runs: if its process ends, it is the cause. All others that were taken are
   * for other processes meanwhile. What cannot be alone for long is tried again later.
   */
  #startAlone(running: RunningTurn): void {
    this.#alone = running;
    running.term.giveBackAll();
    this.#effects.quarantine.enter(this.#owner, (isAlone) => {
      if (this.#alone !== running) return;
      if (isAlone) this.#start(running);
      else this.ended(running.turn, notAloneResult);
    });
  }

  /** True if the store must know that the handler of a message begins: its attempts are counted, or it has no other one. */
  mustTell(turn: LeasedTurn): boolean {
    return turn.running.isSuspect || this.#isLastAttempt(turn);
  }

  /**
   * Tells the store that the handler of a message begins.
   *
   * @param told called with the result of a message that must not begin, or with undefined
   */
  tell(turn: LeasedTurn, told: (result: HandlerResult | undefined) => void): void {
    const { isOver, statements } = this.#turns.get(turn)!.term;
    const end = (begins: boolean | undefined): void => {
      if (begins === undefined) told(postponedResult);
      else told(begins ? undefined : releasedResult);
    };
    if (isOver) end(undefined);
    else statements.ask("begin", [statements.worker, turn.running], end);
  }

  /** A message waits in a batch: batches run outside of `concurrency`. */
  joinBatch(turn: LeasedTurn): void {
    this.#turns.get(turn)!.slot = "batch";
    this.#owner.room.inBatch(turn.running.topic, 1);
    this.#effects.dispatcher.freeSlot();
    // The slot is for the next one of the batch.
    this.#effects.dispatcher.wake(this.#owner);
  }

  // ---- terms ----

  /** @returns true if the handler of a message runs since an earlier term: its end is that of the message in this term */
  resume({ leased, server }: Term, message: QueuedMessage): boolean {
    const earlier = this.#earlier.size === 0 ? undefined : this.#earlier.get(rowOf(message));
    // Another server may have another message in this row.
    if (earlier === undefined || earlier.turn.running.server !== server) return false;
    const turn = leased.resume(message);
    if (turn === undefined) return false;
    // What that handler gives is kept.
    message.kept = earlier.turn.running.kept;
    earlier.resumedAs = turn;
    return true;
  }

  /**
   * Goes on with a message whose handler a channel has started.
   *
   * @param worker worker that has its row
   * @param by its turn in the channel, which gives up its place under a limit
   * @returns function that ends the message
   */
  adopt(message: QueuedMessage, worker: bigint, by: Limited): (result: HandlerResult) => void {
    const { term } = this.#owner;
    const { clock } = this.#effects;
    const isOwn = term !== undefined && term.statements.worker === worker && term.server === message.server;
    const turn = isOwn ? term.leased.resume(message) : undefined;
    const { limit } = by;
    by.limit = undefined;
    if (term === undefined || turn === undefined) {
      // Others may have the row: it is another's, or of another server.
      return (result) => {
        limit?.release(this.#owner, true);
        if (result.kind === "done") {
          this.#effects.handlers.countsOf(message.topic).handled.done += 1;
          this.#owner.handledOutside(message);
        }
        this.#runOthers();
      };
    }
    turn.limit = limit;
    this.#turns.set(turn, { turn, term, resumedAs: undefined, slot: "others", startedAt: clock.now() });
    return (result) => this.ended(turn, result);
  }

  // ---- end ----

  /** The handler of a message has ended. */
  ended(turn: LeasedTurn, ended: HandlerResult): void {
    const running = this.#turns.get(turn)!;
    const { term } = running;
    const { dispatcher, handlers, clock } = this.#effects;
    const { limit, running: message } = turn;
    const { topic } = message;
    if (running.slot === "batch") this.#owner.room.inBatch(topic, -1);
    const isCancelled = this.#effects.attempts.isCancelled(message);
    // Its message is given back with all others whose handlers are cut off.
    const isCutOff = ended === cutOff || (this.#owner.isCuttingOff && ended.kind !== "done");
    if (isCutOff && !isCancelled) return;
    const result = isCancelled ? marked : ended;
    if (running.slot === "own") dispatcher.freeSlot();
    this.#owner.room.ended(limit, clock.now());
    const { handled } = handlers.countsOf(topic);
    if (result.kind === "done" && result !== releasedResult) handled[isCancelled ? "cancelled" : "done"] += 1;
    if (term.isOver) this.#finishOutside(running, message, result);
    else term.finish(turn, result);
    this.#turns.delete(turn);
    // Without a term, the next one finds it.
    if (isCancelled) this.#owner.term?.endCancelled([message.rank]);
    this.#letOthersStart(running);
  }

  /** Ends a message that an earlier term has started. */
  #finishOutside({ turn, resumedAs }: RunningTurn, message: QueuedMessage, result: HandlerResult): void {
    const { term } = this.#owner;
    turn.limit?.release(this.#owner, true);
    this.#earlier.delete(rowOf(message));
    if (resumedAs !== undefined) term?.finish(resumedAs, result);
    // Others may have the row, and handle it again; deleted, it is not handled a third time.
    else if (result.kind === "done") {
      if (result.isMarked === true) term?.takes.deletedOutside(message);
      else this.#owner.handledOutside(message);
    }
  }

  #letOthersStart(ended: RunningTurn): void {
    const { quarantine } = this.#effects;
    const wasAlone = this.#alone === ended;
    if (wasAlone) this.#alone = undefined;
    if (this.#turns.size === 0) this.#effects.idle();
    // From here on others may start messages of this worker.
    if (wasAlone) quarantine.leave(this.#owner);
    else if (quarantine.holder !== undefined) quarantine.handlerEnded();
    this.#runOthers();
  }

  #runOthers(): void {
    const { dispatcher } = this.#effects;
    if (dispatcher.hasWoken) dispatcher.wake(this.#owner);
    else this.#owner.run();
  }
}
