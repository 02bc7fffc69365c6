/**
 * Worker of the queue as a state machine: takes what is enqueued for the topics of its process, ahead and in batches, and starts the
 * handlers. It is in one mode:
 *
 * | mode | it has | it goes to |
 * |---|---|---|
 * | `created` | nothing | `idle`: its process has started |
 * | `idle` | nothing to do, no session | `away`: there are handlers, or the process before this one ended uncleanly |
 * | `away` | no worker in the store; what was left of the last term | `opening`: the session is up, at once or after a pause |
 * | `opening` | a statement under way that opens a worker, or goes on with the one that was left | `working`: the store has the worker; `away`: it did not answer, or the session is another one |
 * | `working` | a {@link Term}: a worker, and what it has | `away`: a statement is not answered, the session is lost, a row is another's |
 * | `closed` | nothing, for good | |
 *
 * Each may go to `closed`. Handlers run on in all modes ({@link RunningTurns}), and so do a stop and its deadline: the worker of a process
 * that stops comes back for what its handlers end.
 *
 * Pure: statements, handlers, timers and the clock are {@link WorkerEffects}. All statements of the worker go through one session, in order
 * (`docs/store-protocol.md`), so that a term knows what it has.
 */
import type { HawserError } from "../../../foundation/errors/index.js";
import { postgresBackoff } from "../../../foundation/postgres/index.js";
import { Backoff, maxTimerMs } from "../../../foundation/runtime/index.js";
import type { DeadMessage, FailedAttempt, HandlerResult } from "../../channel/index.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import { retryLater } from "../../handlers/handler-result.js";
import type { ConcurrencyLimit } from "../../handlers/limits/concurrency-limit.js";
import { type QueuedMessage, rowOf } from "../../store/index.js";
import type { LeftWorker, OpenedWorker, WorkerEffects } from "./effects.js";
import type { LeasedTurn, LeaseEffects } from "./leased-messages.js";
import { RunningTurns } from "./running-turns.js";
import { TakeRoom } from "./take-room.js";
import { Term } from "./term.js";

type Mode =
  | { readonly name: "created" | "idle" }
  /** `cancelRetry` cancels the end of the pause; undefined: it waits for the session alone. */
  | { readonly name: "away"; readonly left: LeftWorker | undefined; readonly cancelRetry: (() => void) | undefined }
  | { readonly name: "opening"; readonly left: LeftWorker | undefined }
  | { readonly name: "working"; readonly left: LeftWorker; readonly term: Term }
  | { readonly name: "closed" };

/** Codes of errors that say that what the worker has is another's. */
const lostCodes: ReadonlySet<string> = new Set(["lease_lost", "message_gone"]);

export class WorkerMachine implements HandledLink, LeaseEffects {
  readonly effects: WorkerEffects;
  readonly room: TakeRoom;
  #mode: Mode = { name: "created" };
  /** True from the beginning of a stop of the process on: nothing begins any more. */
  isStopping = false;
  /** True from the deadline of a stop on: only what is done counts. */
  isCuttingOff = false;
  readonly turns: RunningTurns;
  /** Rows to delete that were handled outside of a transaction. */
  #handled: QueuedMessage[] = [];
  /** Rows whose messages were handled, and that the term may not have, until it is known that they are deleted: a take may bring them. */
  readonly #handledOutside = new Set<string>();
  /** Listeners that are away, whose messages the worker takes. */
  #standsInFor: readonly string[] = [];
  /** Pauses before a worker is opened again: it is not opened in a loop, unless the last one has taken messages. */
  readonly backoff = new Backoff(postgresBackoff);
  /** Timers of what is due later, as functions that cancel them. They outlive a term, as a beat tells only what is due first. */
  readonly #dueTimers = new Set<() => void>();
  /** True while {@link run} starts messages. */
  #isStarting = false;

  constructor(effects: WorkerEffects) {
    this.effects = effects;
    this.room = new TakeRoom(effects);
    this.turns = new RunningTurns(this);
  }

  get term(): Term | undefined {
    return this.#mode.name === "working" ? this.#mode.term : undefined;
  }

  get isClosed(): boolean {
    return this.#mode.name === "closed";
  }

  get hasNothing(): boolean {
    return this.turns.size === 0 && this.#handled.length === 0;
  }

  // ---- modes ----

  /** Begins to take, when the process is in the directory and has handlers, or has left a worker behind. */
  start(leftWorker: boolean): void {
    if (this.#mode.name === "created") this.#mode = { name: "idle" };
    if (leftWorker) this.#begin();
    this.handlersChanged();
  }

  #begin(): void {
    if (this.#mode.name !== "idle") return;
    this.#mode = { name: "away", left: undefined, cancelRetry: undefined };
    this.effects.openSession();
    this.#open();
  }

  #open(): void {
    const { effects } = this;
    const { server } = effects;
    if (this.#mode.name !== "away" || !effects.isUp) return;
    const { left, cancelRetry } = this.#mode;
    cancelRetry?.();
    this.#mode = { name: "opening", left };
    const { topics } = effects.handlers;
    const running = [...this.turns.messages()].filter((message) => message.server === server);
    const replaces = left?.worker;
    // What earlier terms have handled is not taken again.
    this.endHandled();
    effects.openWorker(
      { topics, running, replaces, left: left?.server === server ? left : undefined },
      {
        answered: (opened) => this.#opened(opened, { server, topics, running }),
        failed: (error) => {
          if (this.#mode.name === "opening") this.#openLater(left, error);
        },
      },
    );
  }

  #opened(
    { worker, kept }: OpenedWorker,
    {
      server,
      topics,
      running,
    }: { server: string | undefined; topics: readonly string[]; running: readonly QueuedMessage[] },
  ): void {
    const { effects } = this;
    if (this.#mode.name !== "opening") {
      effects.closeWorker(worker);
      return;
    }
    const left = { worker, server, nextId: effects.newWorkerId() };
    if (!effects.isUp || effects.server !== server) {
      this.#openLater(left);
      return;
    }
    if (kept === undefined) this.turns.totals.beginWorker();
    const term = new Term(this, { worker, server, topics });
    this.#mode = { name: "working", left, term };
    // A statement before may have failed.
    this.endHandled();
    term.begin(running, kept, this.#standsInFor);
  }

  #openLater(left: LeftWorker | undefined, error?: HawserError): void {
    if (error !== undefined) this.#report(error);
    const cancelRetry = this.effects.clock.setTimeout(() => this.#open(), this.backoff.failed());
    this.#mode = { name: "away", left, cancelRetry };
  }

  /** The term does not know what it has. The handlers go on, and so does the next term with their messages, unless these are another's now. */
  #lose(why: string): void {
    if (this.#mode.name !== "working") return;
    const { term, left } = this.#mode;
    this.effects.logger.debug({ why }, "what was taken of the queue and has not begun is given up");
    term.end();
    this.turns.termEnded();
    this.#openLater(left);
  }

  lost(error: HawserError): void {
    this.#report(error);
    this.#lose(error.message);
  }

  #report(error: HawserError): void {
    if (!lostCodes.has(error.code)) this.effects.storeFailed(error);
  }

  /** @returns the worker that is left, to be ended */
  close(): bigint | undefined {
    const mode = this.#mode;
    if (mode.name === "away") mode.cancelRetry?.();
    if (mode.name === "working") mode.term.end();
    for (const cancel of this.#dueTimers) cancel();
    this.#mode = { name: "closed" };
    this.effects.idle();
    this.effects.quarantine.leave(this);
    return "left" in mode ? mode.left?.worker : undefined;
  }

  // ---- events of the session ----

  sessionUp(): void {
    this.#open();
  }

  sessionDown(): void {
    this.#lose("the session is lost");
  }

  /** Begins anew, after the peer has moved to another database server. */
  reset(): void {
    this.#lose("the database server is another one");
  }

  enqueued(topic: string): void {
    this.term?.takes.wants(topic);
  }

  /** Any login can notify: one statement at a time asks what has changed. */
  settingsChanged(topic: string): void {
    if (this.effects.handlers.serves(topic)) this.term?.beats.settingsChanged();
  }

  mayBeCancelled(rank: string): void {
    this.term?.mayBeCancelled(rank);
  }

  /** Another worker has messages, and a lease of so many ms. */
  leased(leaseMs: number): void {
    if (leaseMs >= 0) this.term?.beats.othersLease(leaseMs);
  }

  // ---- events of the process ----

  /** Takes messages of the topics that the handlers serve now, and gives back those of others and of paused ones. */
  handlersChanged(): void {
    const { term } = this;
    if (!this.effects.handlers.isEmpty) this.#begin();
    term?.handlersChanged(this.#standsInFor);
  }

  /** Takes also what is for listeners that are away. */
  standInFor(names: readonly string[]): void {
    if (names.join("\n") === this.#standsInFor.join("\n")) return;
    this.#standsInFor = names;
    this.term?.serve(names);
  }

  /** True for one worker of the database, which reports what all share. Opens a worker if there is none. */
  isFirst(): boolean {
    this.#begin();
    return this.term?.beats.isFirst === true;
  }

  /** Gives back what has not begun. No handler may start any more. */
  stop(): void {
    this.isStopping = true;
    this.term?.giveBack();
  }

  /** From now on only what is done counts of the handlers that run. @returns their messages */
  cutOff(): ReadonlySet<QueuedMessage> {
    this.isStopping = true;
    this.isCuttingOff = true;
    return new Set(this.turns.messages());
  }

  /** Gives back the messages of handlers that were cut off, as begun. */
  giveBackCutOff(ended: () => void): void {
    const { term, effects } = this;
    const rows = term === undefined ? [] : this.turns.messagesOf(term);
    if (term === undefined || rows.length === 0) {
      ended();
      return;
    }
    effects.send("giveBack", [term.statements.worker, rows, true], {
      answered: ended,
      failed: (err) => {
        effects.logger.debug({ err }, "could not give back what was cut off");
        ended();
      },
    });
  }

  wantsIn(ms: number, topics: readonly string[]): void {
    const cancel = this.effects.clock.setTimeout(
      () => {
        this.#dueTimers.delete(cancel);
        for (const topic of topics) this.enqueued(topic);
      },
      // Beats tell of what is due later.
      Math.min(ms, maxTimerMs),
    );
    this.#dueTimers.add(cancel);
  }

  // ---- handling ----

  /**
   * Starts messages. A handler, and all that hears of its end, may cause a further run: the one that is under way does its work.
   */
  run(): void {
    const { term } = this;
    if (term === undefined || this.#isStarting) return;
    this.#isStarting = true;
    try {
      this.turns.startMessages(term);
    } finally {
      this.#isStarting = false;
    }
    if (!term.isOver) term.started();
  }

  begin(turn: LeasedTurn): Promise<HandlerResult | undefined> | undefined {
    return this.turns.mustTell(turn) ? new Promise((resolve) => this.turns.tell(turn, resolve)) : undefined;
  }

  onJoined(turn: LeasedTurn): void {
    this.turns.joinBatch(turn);
  }

  /** Gives back messages whose topics have no handler any more. */
  unserved(): HandlerResult {
    return retryLater;
  }

  completionOf({ running }: LeasedTurn): QueuedMessage {
    return running;
  }

  onNotOwned(): void {
    this.#lose("a row is another's");
  }

  writeProgress(message: QueuedMessage, json: string): void {
    // Without a term, the next progress is written.
    this.term?.writeProgress(message, json);
  }

  // ---- effects of messages ----

  limitFreed(limit: ConcurrencyLimit): void {
    this.effects.dispatcher.wake(limit);
  }

  complete(message: QueuedMessage): void {
    if (this.#handled.push(message) === 1) this.effects.afterThis(() => this.endHandled());
  }

  handledOutside(message: QueuedMessage): void {
    this.#handledOutside.add(rowOf(message));
    this.#handled.push(message);
    this.endHandled();
  }

  isHandledOutside(message: QueuedMessage): boolean {
    return this.#handledOutside.size > 0 && this.#handledOutside.has(rowOf(message));
  }

  /** Deletes rows that were handled. While the session is lost, they wait for the next one. */
  endHandled(): void {
    const { effects, term } = this;
    if (!effects.isUp || this.isClosed) return;
    const all = this.#handled.splice(0);
    // Another server does not know the others.
    const handled = all.filter(({ server }) => server === effects.server);
    if (handled.length < all.length) this.#deleted(all.filter(({ server }) => server !== effects.server));
    if (handled.length === 0) return;
    effects.send("done", [handled], {
      answered: () => this.#deleted(handled),
      failed: (error) => {
        if (error.code === "store_failed") this.#notDeleted(handled);
        else this.#deleted(handled);
        if (this.isClosed) return;
        if (term !== this.term) this.endHandled();
        else if (term === undefined) this.#report(error);
        else this.lost(error);
      },
    });
  }

  #notDeleted(handled: readonly QueuedMessage[]): void {
    this.#handled.unshift(...handled);
    for (const message of handled) this.#handledOutside.add(rowOf(message));
  }

  #deleted(handled: readonly QueuedMessage[]): void {
    if (this.#handledOutside.size > 0) for (const message of handled) this.#handledOutside.delete(rowOf(message));
  }

  putOff(turn: LeasedTurn, delayMs: number, failure: FailedAttempt | undefined): void {
    this.term!.putOff(turn, delayMs, failure);
  }

  giveUp(turn: LeasedTurn, dead: Omit<DeadMessage, "message" | "failures">, failure: FailedAttempt | undefined): void {
    this.term!.giveUp(turn, dead, failure);
  }
}
