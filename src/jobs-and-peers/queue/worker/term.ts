/**
 * Term of a worker of the queue: as long as it goes on, this process knows which rows the worker has. It ends when a statement is not
 * answered, the session is lost, or a row that it has is another's. What it has and has not begun is given up then.
 */

import type { HawserError } from "../../../foundation/errors/index.js";
import { type Backoff, DeadlineTimer } from "../../../foundation/runtime/index.js";
import type { DeadMessage, FailedAttempt, HandlerResult } from "../../channel/index.js";
import type { QueuedMessage } from "../../store/index.js";
import { type Beat, type BeatingTerm, Beats } from "./beats.js";
import type { WorkerEffects } from "./effects.js";
import { LeasedMessages, type LeasedTurn, type LeaseEffects } from "./leased-messages.js";
import { TermStatements } from "./statements.js";
import { Takes, type TakingOwner, type TakingTerm } from "./takes.js";

/** Handlers that run, those of earlier terms, too, and the rest of the worker. */
export interface TermOwner extends LeaseEffects, TakingOwner {
  /** True from the beginning of a stop on: nothing begins any more. */
  readonly isStopping: boolean;
  /** True if no handler runs, and no row is to be ended. */
  readonly hasNothing: boolean;
  readonly turns: TakingOwner["turns"] & {
    /** Messages whose handlers run. */
    messages(): Iterable<QueuedMessage>;
    report(): string | null;
    /** Handles the end of a handler that an earlier term has started as that of a message of this term. @returns false if none runs */
    resume(term: Term, message: QueuedMessage): boolean;
  };
  /** Pauses before the next terms, which a term that takes messages resets. */
  readonly backoff: Backoff;
  /** True if a message was handled, and it is not known that its row is deleted. */
  isHandledOutside(message: QueuedMessage): boolean;
  /** A message of one of the topics is due in so many ms, also if this term is over then. */
  wantsIn(ms: number, topics: readonly string[]): void;
  lost(error: HawserError): void;
}

export interface TermOptions {
  readonly worker: bigint;
  readonly server: string | undefined;
  /** Topics that the worker serves. */
  readonly topics: readonly string[];
}

export class Term implements BeatingTerm, TakingTerm {
  /** True when the term is over: the worker does not know any more what it has. */
  isOver = false;
  /** Messages that this term has taken. */
  readonly leased: LeasedMessages;
  readonly server: string | undefined;
  readonly statements: TermStatements;
  readonly beats: Beats;
  readonly takes: Takes;
  served: readonly string[];
  /** Topics whose results are kept. */
  #keptTopics: readonly string[] = [];
  /** Ranks that notifications have named, of messages that may be cancelled. */
  readonly #maybeCancelled = new Set<string>();
  /** Starts messages when a limit or a delay ends. */
  readonly #runTimer: DeadlineTimer;
  readonly #owner: TermOwner;
  readonly #effects: WorkerEffects;

  constructor(owner: TermOwner, { worker, server, topics }: TermOptions) {
    const { effects } = owner;
    this.#owner = owner;
    this.#effects = effects;
    this.server = server;
    this.served = topics;
    this.statements = new TermStatements(this, worker, effects, (error) => owner.lost(error));
    this.leased = new LeasedMessages(effects.handlers, owner);
    this.beats = new Beats(this, this.statements, effects);
    this.takes = new Takes(this, this.statements, owner);
    this.#runTimer = new DeadlineTimer(() => owner.run(), effects.clock);
  }

  get isIdle(): boolean {
    return this.#owner.hasNothing && this.leased.waiting === 0;
  }

  get running(): string | null {
    return this.#owner.turns.report();
  }

  // ---- beginning and end ----

  /**
   * Goes on with messages whose handlers an earlier term has started, and begins to take.
   *
   * @param running those handlers' messages when the worker was opened
   * @param kept ranks of those that the worker has; undefined for a new worker
   */
  begin(
    running: readonly QueuedMessage[],
    kept: ReadonlySet<bigint> | undefined,
    standsInFor: readonly string[],
  ): void {
    if (kept !== undefined) this.#goOn(running.filter(({ rank }) => kept.has(rank)));
    // Settings may have changed while this worker had no session.
    this.beats.now();
    const isServing = kept === undefined && isSame(this.served, this.#effects.handlers.topics);
    if (standsInFor.length > 0 || !isServing) this.serve(standsInFor);
    else this.takes.look();
  }

  #goOn(messages: readonly QueuedMessage[]): void {
    // Of these the handlers have ended since.
    const ended = messages.filter((message) => !this.#owner.turns.resume(this, message));
    if (ended.length === 0) return;
    this.#owner.endHandled();
    this.statements.send("giveBack", [this.statements.worker, ended]);
  }

  end(): void {
    this.leased.clear();
    this.takes.end();
    this.isOver = true;
    this.beats.stop();
    this.#runTimer.stop();
  }

  // ---- topics ----

  /** Says of which topics the worker takes messages from now on, and for which listeners that are away. */
  serve(standsInFor: readonly string[]): void {
    this.served = this.#effects.handlers.topics;
    this.statements.send("serveTopics", [this.statements.worker, this.served, standsInFor], () => this.takes.look());
    // A new topic may have settings of which no notification tells.
    this.beats.settingsChanged();
    this.takes.topicsChanged();
  }

  handlersChanged(standsInFor: readonly string[]): void {
    if (!isSame(this.served, this.#effects.handlers.topics)) this.serve(standsInFor);
    this.giveBack();
  }

  follow(beat: Beat, asked: readonly string[], settingsChanged: boolean): void {
    const { handlers } = this.#effects;
    const { plan } = this.takes;
    const { limitedTopics, keptTopics, dueInMs } = beat;
    if (beat.cancelled.length > 0) this.#cancel(beat.cancelled);
    const hasPaused = handlers.pauseEverywhere(beat.pausedTopics, asked);
    if (hasPaused) this.#effects.host.handlersChanged();
    // Of a topic with limits nothing is read ahead.
    this.giveBack(plan.setLimited(limitedTopics));
    // What was taken before its results were kept would leave none.
    this.giveBack(keptTopics.filter((topic) => !this.#keptTopics.includes(topic)));
    this.#keptTopics = keptTopics;
    if (settingsChanged) for (const topic of limitedTopics) plan.mayStart(topic);
    // Of some messages no notification tells, such as those that others have put off.
    if (hasPaused || settingsChanged || (beat.hasMessages && this.takes.isWatching)) this.takes.look();
    if (dueInMs !== null && dueInMs < this.beats.everyMs) this.#owner.wantsIn(Number(dueInMs), handlers.topics);
  }

  // ---- messages that wait for their start ----

  taken(take: Parameters<TakingTerm["taken"]>[0], messages: readonly QueuedMessage[]): void {
    this.#owner.backoff.reset();
    this.beats.onTaken(messages.length > 0);
    for (const message of messages) this.#effects.received(message);
    const isNew = (message: QueuedMessage): boolean =>
      !take.hasLost(message) && !this.#owner.isHandledOutside(message) && !this.#owner.turns.resume(this, message);
    this.leased.add(messages.filter(isNew));
    if (messages.some((message) => this.#willNotBegin(message))) this.giveBack();
    if (this.#maybeCancelled.size > 0) this.#askForCancelled();
  }

  #willNotBegin({ topic }: QueuedMessage): boolean {
    const { handlers } = this.#effects;
    return this.#owner.isStopping || !handlers.serves(topic) || handlers.isPaused(topic);
  }

  /** Gives back what this process will not begin. @param topics further topics whose messages are given back */
  giveBack(topics: readonly string[] = []): void {
    this.giveBackAll((message) => this.#willNotBegin(message) || topics.includes(message.topic));
  }

  /** Gives back messages that have not begun, all or some of them. */
  giveBackAll(which?: (message: QueuedMessage) => boolean): void {
    const rows = this.leased.clear(which);
    if (rows.length === 0) return;
    this.statements.send("giveBack", [this.statements.worker, rows]);
    this.takes.gaveBack(rows);
  }

  /** All is started that can be: takes more, and waits for what starts later. */
  started(): void {
    this.#runTimer.arm(Math.min(this.leased.deadline, this.takes.plan.deadline(this.#effects.clock.now())));
    this.takes.pump();
    if (!this.takes.isUnderWay) this.takes.endReservation();
  }

  // ---- cancelled messages ----

  /** Asks whether a message is cancelled, if the worker has it: only the answer counts. What is named meanwhile is asked for together. */
  mayBeCancelled(rank: string): void {
    this.#maybeCancelled.add(rank);
    if (this.#maybeCancelled.size === 1) this.#effects.soon(() => this.#askForCancelled());
  }

  #askForCancelled(): void {
    // What is just being taken may be meant.
    if (this.isOver || this.takes.isUnderWay) return;
    const had = [...this.leased.messages, ...this.#owner.turns.messages()];
    if (had.some(({ rank }) => this.#maybeCancelled.has(String(rank)))) this.beats.now();
    this.#maybeCancelled.clear();
  }

  /** Withdraws messages: those whose handlers run end with them, all others at once. */
  #cancel(ranks: readonly bigint[]): void {
    const { attempts } = this.#effects;
    const notRunning = new Set(ranks);
    for (const message of this.#owner.turns.messages()) {
      if (message.server !== this.server || !notRunning.delete(message.rank)) continue;
      if (!attempts.isCancelled(message)) attempts.cancel(message);
    }
    this.leased.clear(({ rank }) => notRunning.has(rank));
    this.endCancelled([...notRunning]);
    this.#owner.run();
  }

  endCancelled(ranks: readonly bigint[]): void {
    if (ranks.length === 0) return;
    // What was handled is not ended as cancelled.
    this.#owner.endHandled();
    this.statements.send("endCancelled", [this.statements.worker, ranks]);
  }

  // ---- ends of handlers ----

  finish(turn: LeasedTurn, result: HandlerResult): void {
    const { key, topic } = turn.running;
    this.leased.finish(turn, result, this.#effects.clock.now());
    if (result.kind === "postponed") this.giveBack();
    if (key !== undefined) this.takes.plan.keyFreed(topic);
    this.takes.plan.mayStart(topic);
  }

  putOff(turn: LeasedTurn, delayMs: number, failure: FailedAttempt | undefined): void {
    const { running } = turn;
    const { worker } = this.statements;
    this.#effects.handlers.countsOf(running.topic).handled[failure === undefined ? "deferred" : "retried"] += 1;
    this.statements.send("retry", [worker, running, delayMs, failure], () => {
      this.#owner.wantsIn(delayMs, [running.topic]);
      this.leased.onPutOff(turn);
      this.#owner.run();
    });
  }

  giveUp(turn: LeasedTurn, dead: Omit<DeadMessage, "message" | "failures">, failure: FailedAttempt | undefined): void {
    const { running } = turn;
    this.#effects.handlers.countsOf(running.topic).handled.dead_letter += 1;
    this.statements.send("giveUp", [this.statements.worker, running, dead, failure], () => {
      this.leased.onGivenUp(turn);
      this.#owner.run();
    });
    this.#effects.gaveUp(running, dead);
  }

  writeProgress(message: QueuedMessage, json: string): void {
    this.statements.send("setProgress", [this.statements.worker, message, json]);
  }
}

function isSame(some: readonly string[], others: readonly string[]): boolean {
  return some.join("\n") === others.join("\n");
}
