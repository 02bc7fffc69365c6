/**
 * A peer's part of the queue: takes what is enqueued for its topics, ahead and in batches, and passes it to the handlers.
 *
 * The peer is a worker of the queue (`docs/store-protocol.md`). All statements of the worker go through one session, in
 * order, so that the link knows what it has. Whenever it does not (a statement is not answered, the connection is new, a row
 * that it has is another's), it begins a new term: it goes on with the worker and the messages whose handlers run, and all others
 * are free. If the worker has ended, handlers run on, and their transactions decide whether their rows are still there. A message
 * that the new worker takes while its handler still runs is not started again: what that handler does counts.
 */

import { randomBytes } from "node:crypto";
import { asHawserError } from "../../../foundation/errors/index.js";
import { postgresBackoff } from "../../../foundation/postgres/index.js";
import { Backoff, DeadlineTimer, Waiters } from "../../../foundation/runtime/index.js";
import {
  type ConcurrencyLimit,
  type DeadMessage,
  type FailedAttempt,
  type HandlerResult,
  keyOf,
  LeasedMessages,
  type LeasedTurn,
  type LeaseEffects,
  type QueuedMessage,
  rowOf,
} from "../../channel/index.js";
import { type SlicedWork, timeSliceMs } from "../../handlers/dispatcher.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import { cutOff, marked, retryLater } from "../../handlers/handler-result.js";
import type { HandlingContext } from "../../handlers/handling-context.js";
import type { HandlingHost } from "../../handlers/handling-host.js";
import { defaultTakeoverMs } from "../../handlers/handling-settings.js";
import { drainBytes } from "../../store/index.js";
import { polls } from "../core/polls.js";
import { EnqueueWatch } from "./enqueue-watch.js";
import { KeptOutcome } from "./kept-result.js";
import { TakePlan } from "./take-plan.js";
import { TakeRoom } from "./take-room.js";

/** Minimum number of beats of a worker within the time after which it counts as gone. */
const beatsPerLease = 4;
/** Time until messages are looked at again that others looked at, or whose key was another's. */
const passedPollMs = 100;
/** Longest lease of a worker. */
const longestLeaseMs = 600_000;
/** Least time until it looks whether another worker goes on: with what a statement has said of its lease, and with a notification. */
const [leastLookMs, leastLeaseMs] = [100, 1_000];
/** Longest delay of a timer. Beats tell of what is due later. */
const longestTimerMs = 2 ** 31 - 1;
/** Time until a message that was to run alone, and could not, is tried again. */
const aloneAgainMs = 30_000;
const postponedResult: HandlerResult = { kind: "postponed" };
/** The message could not run alone. */
const notAloneResult: HandlerResult = { kind: "deferred", errorCode: "busy", errorMessage: "", delayMs: aloneAgainMs };
/** The message was not begun, and is not this worker's any more. */
const releasedResult: HandlerResult = { kind: "done", isMarked: true };
/** Codes of errors that say that what the peer has is another's. */
const lostCodes: ReadonlySet<string> = new Set(["lease_lost", "message_gone"]);

/** Worker in the store, and what it has. */
interface Term {
  readonly worker: bigint;
  readonly leased: LeasedMessages;
  /** Server on which the worker was opened. */
  readonly server: string | undefined;
  readonly plan: TakePlan;
  /** True if others know that it has no messages. What it takes ends that. */
  isIdle: boolean;
  /** True if it was asked for messages since it was extended last. */
  hasLooked: boolean;
}

export class QueueLink implements HandledLink, LeaseEffects, SlicedWork {
  isClosed = false;
  #isFirst = false;
  #isStarted = false;
  #isStopping = false;
  #isCuttingOff = false;
  #term: Term | undefined;
  /** Worker of the term before, which the next one replaces. */
  #before: bigint | undefined;
  /** The same worker, its server, and the id under which the next term goes on with it. */
  #left: { readonly worker: bigint; readonly server: string | undefined; readonly as: bigint } | undefined;
  #isOpening = false;
  #isTaking = false;
  /** First message of each key and role that was given back while a take was under way. */
  readonly #givenBack = new Map<string, bigint>();
  /** True while a slot is kept for a topic with limits. */
  #hasReserved = false;
  #isExtending = false;
  /** True if settings of topics have changed since the worker was extended last. */
  #hasSettings = false;
  /** True if the worker is to be extended once more, as there may be something that the answer tells. */
  #mustExtend = false;
  /** Topics that the worker says that it serves. */
  #served: readonly string[] = [];
  #standsInFor: readonly string[] = [];
  /** Topics whose results are kept. */
  #kept: readonly string[] = [];
  /** Looks at what was left, once in a while: there may be many messages of a key that others have. */
  readonly #again = new DeadlineTimer(() => {
    this.#term?.plan.wantsPassed();
    this.#pump();
  });
  readonly #timer = new DeadlineTimer(() => this.run());
  readonly #backoff = new Backoff(postgresBackoff);
  #retry: NodeJS.Timeout | undefined;
  readonly #beat = new DeadlineTimer(() => {
    if (this.#term !== undefined) this.#ask();
  });
  /** Interval of beats while it has messages. */
  #beatMs = 0;
  /** Timers of what was put off. */
  readonly #due = new Set<NodeJS.Timeout>();
  /** Terms of the turns that run. */
  readonly #turns = new Map<LeasedTurn, Term>();
  /** Turns that run since an earlier term, by their rows. */
  readonly #outlived = new Map<string, LeasedTurn>();
  /** Rows of such turns that ended while a take was under way, which may have taken them. */
  readonly #overtaken = new Set<string>();
  /** Turns of this term for those of an earlier one, whose handlers still run. */
  readonly #resumed = new Map<LeasedTurn, LeasedTurn>();
  /** Turns of messages that wait in a batch and so occupy no slot. */
  readonly #joined = new Set<LeasedTurn>();
  /** Ids that notifications have named, of messages that may be cancelled. */
  readonly #named = new Set<string>();
  /** Message that is to run while nothing else does, or runs. */
  #alone: LeasedTurn | undefined;
  /** True while {@link run} starts messages. */
  #isRunning = false;
  /** Rows to delete that were handled outside of a transaction. */
  #completed: QueuedMessage[] = [];
  readonly #whenIdle = new Waiters();
  #unlisten: (() => void)[] = [];

  readonly #receiver: HandlingHost;
  readonly #context: HandlingContext;
  readonly #room: TakeRoom;
  readonly #watch: EnqueueWatch;

  constructor(receiver: HandlingHost) {
    this.#receiver = receiver;
    this.#context = receiver.context;
    this.#room = new TakeRoom(receiver);
    this.#watch = new EnqueueWatch({
      queue: receiver.context.store.queue,
      look: () => this.#look(),
      onAnswer: (query, onAnswer) => this.#onAnswer(query, onAnswer, this.#term),
    });
  }

  /** Begins to take, when the peer is in the directory and has handlers, or has left a worker behind. */
  start(): void {
    this.#isStarted = true;
    if (this.#context.lease?.wasClean === false) this.#begin();
    this.handlersChanged();
  }

  /** Opens a worker, if there is none. */
  #begin(): void {
    if (!this.#isStarted || this.isClosed || this.#unlisten.length > 0) return;
    const { queue } = this.#context.store;
    queue.open();
    this.#unlisten = [
      queue.on("enqueued", (topic) => this.#wants(topic)),
      queue.on("settings", (topic) => this.#settingsChanged(topic)),
      queue.on("cancelled", (rank) => this.#mayBeCancelled(rank)),
      queue.on("lease", (leaseMs) => leaseMs >= 0 && this.#beatIn(Math.max(leaseMs, leastLeaseMs))),
      queue.on("session", (state) => (state === "up" ? this.#open() : this.#lose("the session is lost"))),
    ];
    this.#open();
  }

  /** Takes messages of the topics that the handlers serve now, and gives back those of others and of paused ones. */
  handlersChanged(): void {
    const term = this.#term;
    const { topics, isEmpty } = this.#receiver.handlers;
    if (!isEmpty) this.#begin();
    if (term === undefined) return;
    if (topics.join("\n") !== this.#served.join("\n")) this.#serve(term);
    this.#giveBack(term);
  }

  /** Takes also what is for listeners that are away. */
  standInFor(names: readonly string[]): void {
    if (names.join("\n") === this.#standsInFor.join("\n")) return;
    this.#standsInFor = names;
    if (this.#term !== undefined) this.#serve(this.#term);
  }

  #serve(term: Term): void {
    this.#served = this.#receiver.handlers.topics;
    const serving = this.#context.store.queue.serveTopics(term.worker, this.#served, this.#standsInFor);
    this.#onAnswer(serving, () => this.#look(), term);
    // A new topic may have settings of which no notification tells.
    this.#askSettings();
    this.#watch.end();
  }

  /** A topic may have messages. */
  #wants(topic: string): void {
    if (this.#term === undefined || !this.#receiver.handlers.serves(topic)) return;
    this.#term.plan.wants(topic, this.#watch.isOn);
    this.#pump();
  }

  /** Looks at all rows of all topics. */
  #look(): void {
    for (const topic of this.#receiver.handlers.topics) this.#term?.plan.wantsAll(topic);
    this.#pump();
  }

  /** Begins anew, after the peer has moved to another database server. */
  reset(): void {
    this.#lose("the database server is another one");
  }

  /** True for one worker of the database, which reports what all share. Opens a worker if the peer has none. */
  isFirst(): boolean {
    this.#begin();
    return this.#isFirst;
  }

  get isHandling(): boolean {
    return this.#turns.size > 0;
  }

  /** Gives back messages whose topics have no handler any more. */
  unserved(): HandlerResult {
    return retryLater;
  }

  get runningMessages(): number {
    return this.#turns.size;
  }

  get waitingMessages(): number {
    return this.#term?.leased.waiting ?? 0;
  }

  /** Resolves when no handler runs. */
  async idle(): Promise<void> {
    if (this.isHandling) await this.#whenIdle.next();
  }

  /** Gives back what has not begun, and ends the worker when no handler runs. No handler may start any more. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    if (this.#term !== undefined) this.#giveBack(this.#term);
    await this.idle();
    if (!this.isClosed) await this.#end();
  }

  /**
   * Cuts off the handlers that still run, at the deadline of a stop: their transactions are rolled back, and their messages given back, as
   * no attempt. Ends the worker.
   */
  async cutOff(): Promise<void> {
    const term = this.#term;
    const ofTerm = (): LeasedTurn[] =>
      [...this.#turns].flatMap(([turn, of]) => (of === term || this.#resumed.has(turn) ? [turn] : []));
    this.#isCuttingOff = true;
    await this.#receiver.calls.attempts.cutOff(new Set([...this.#turns.keys()].map(({ running }) => running)));
    const rows = ofTerm().map(({ running }) => running);
    const given =
      term === undefined || rows.length === 0 ? undefined : this.#context.store.queue.giveBack(term.worker, rows, true);
    given?.catch((err) => this.#context.logger.debug({ err }, "could not give back what was cut off"));
    // What ends from here on is another's.
    await Promise.allSettled([given, this.#end()]);
  }

  async #end(): Promise<void> {
    this.#deleteCompleted();
    this.close();
    // Without an answer, it ends by its silence.
    if (this.#before !== undefined) await this.#closeWorker(this.#before);
  }

  async #closeWorker(worker: bigint): Promise<void> {
    try {
      await this.#context.store.queue.closeWorker(worker);
    } catch (err) {
      this.#context.logger.debug({ err }, "could not end a worker of the queue");
    }
  }

  /** Gives back what this peer will not begin. @param topics further topics whose messages are given back */
  #giveBack(term: Term, topics: readonly string[] = []): void {
    const { handlers } = this.#receiver;
    const willNotBegin = ({ topic }: QueuedMessage): boolean =>
      this.#isStopping || !handlers.serves(topic) || handlers.isPaused(topic) || topics.includes(topic);
    this.#giveBackAll(term, willNotBegin);
  }

  /** Gives back messages that were taken, all or some of them. */
  #giveBackAll(term: Term, which?: (message: QueuedMessage) => boolean): void {
    const rows = term.leased.clear(which);
    if (rows.length === 0) return;
    this.#onAnswer(this.#context.store.queue.giveBack(term.worker, rows), () => undefined, term);
    if (this.#isTaking) this.#noteGivenBack(rows);
    // They are behind what was looked at, and may be taken again after a pause.
    for (const topic of new Set(rows.map((row) => row.topic))) term.plan.wantsAll(topic);
  }

  /** Notes what `give_back` frees beside these rows: what the take under way has taken behind them of their keys. */
  #noteGivenBack(rows: readonly QueuedMessage[]): void {
    for (const row of rows) {
      const first = this.#givenBack.get(keyOf(row));
      if (row.key !== undefined && (first === undefined || row.rank < first)) this.#givenBack.set(keyOf(row), row.rank);
    }
  }

  #isGivenBack(row: QueuedMessage): boolean {
    const first = row.key === undefined ? undefined : this.#givenBack.get(keyOf(row));
    return first !== undefined && first < row.rank;
  }

  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.#again.stop();
    this.#beat.stop();
    for (const timer of [this.#retry, ...this.#due]) clearTimeout(timer);
    this.#watch.end();
    for (const stop of this.#unlisten) stop();
    this.#term = undefined;
    this.#whenIdle.settle();
    this.#receiver.quarantine.leave(this);
  }

  // ---- terms ----

  #open(): void {
    const { store, workerName: name, lease, membership, settings } = this.#context;
    if (this.#isOpening || this.#term !== undefined || this.isClosed || !store.queue.isUp) return;
    const { handlers } = this.#receiver;
    this.#isOpening = true;
    const { group } = membership;
    const leaseMs = Math.min(membership.takeoverMs ?? defaultTakeoverMs, longestLeaseMs);
    const { concurrency } = settings;
    const { topics } = handlers;
    const { queue } = store;
    const { server } = queue;
    const left = this.#left?.server === server ? this.#left : undefined;
    const running = [...this.#turns.keys()].flatMap((turn) => (turn.running.server === server ? [turn.running] : []));
    const open = async () => {
      const kept = left && (await queue.resumeWorker(left.worker, left.as, running));
      let worker = left?.as;
      if (worker === undefined || kept === undefined) {
        // The process before this one has lost the name: it has ended, or will not go on.
        if (lease !== undefined && this.#before === undefined) await queue.endWorkers(name);
        worker = await queue.openWorker({
          ...{ name, topics, group, concurrency },
          leaseMs,
          replaces: this.#before,
        });
      }
      this.#before = worker;
      if (this.isClosed) void this.#closeWorker(worker);
      return { worker, kept };
    };
    // What earlier terms have handled is not taken again.
    this.#deleteCompleted();
    const opened = open().finally(() => {
      this.#isOpening = false;
    });
    this.#onAnswer(opened, ({ worker, kept }) => {
      this.#left = { worker, server, as: randomWorker() };
      if (!queue.isUp || queue.server !== server) return this.#openLater();
      const leased = new LeasedMessages(
        {
          retryOf: ({ topic, headers }) => handlers.retryOf(topic, headers),
          limitOf: ({ topic, headers }) => handlers.limitOf(topic, headers),
        },
        this,
      );
      this.#term = { worker, leased, server, plan: new TakePlan(), isIdle: false, hasLooked: true };
      this.#served = topics;
      this.#beatMs = Math.min(leaseMs / beatsPerLease, polls.everyMs);
      if (kept !== undefined) this.#goOn(this.#term, running, kept);
      // Settings may have changed while nobody listened.
      this.#extend(this.#term);
      const isServing = kept === undefined && topics.join("\n") === handlers.topics.join("\n");
      if (this.#standsInFor.length > 0 || !isServing) this.#serve(this.#term);
      else this.#look();
    });
  }

  /** Goes on with messages whose handlers run since the term before. */
  #goOn(term: Term, running: readonly QueuedMessage[], kept: ReadonlySet<bigint>): void {
    const messages = running.filter(({ rank }) => kept.has(rank));
    // Of these the handlers have ended since.
    const ended = messages.filter((message) => !this.#resume(term, message));
    if (ended.length === 0) return;
    this.#deleteCompleted();
    this.#onAnswer(this.#context.store.queue.giveBack(term.worker, ended), () => undefined, term);
  }

  /** Any login can notify: one statement at a time asks what has changed. */
  #settingsChanged(topic: string): void {
    if (this.#receiver.handlers.serves(topic)) this.#askSettings();
  }

  #askSettings(): void {
    this.#hasSettings = true;
    this.#ask();
  }

  /** Extends the worker now, for what the answer tells. */
  #ask(): void {
    this.#mustExtend = true;
    if (this.#term !== undefined && !this.#isExtending) this.#extend(this.#term);
  }

  /** Says that the worker goes on, now and every `#beatMs`. The answer has what notifications tell, which may be lost. */
  #extend(term: Term): void {
    const { handlers } = this.#receiver;
    const mustLook = this.#hasSettings;
    const asked = this.#served;
    [this.#isExtending, this.#mustExtend, this.#hasSettings] = [true, false, false];
    this.#beat.stop();
    this.#rest(term);
    this.#onAnswer(
      this.#context.store.queue.extend(term.worker, this.#watch.isOn),
      ({ isFirst, hasMessages, pausedTopics, limitedTopics, keptTopics, cancelled, dueInMs, leaseEndsInMs }) => {
        this.#isFirst = isFirst;
        this.#isExtending = false;
        if (cancelled.length > 0) this.#cancel(term, cancelled);
        const hasChanged = handlers.pauseEverywhere(pausedTopics, asked);
        if (hasChanged) this.#receiver.handlersChanged();
        // Of a topic with limits nothing is read ahead.
        this.#giveBack(term, term.plan.setLimited(limitedTopics));
        // What was taken before its results were kept would leave none.
        const isNewlyKept = (topic: string): boolean => !this.#kept.includes(topic);
        this.#giveBack(term, keptTopics.filter(isNewlyKept));
        this.#kept = keptTopics;
        if (mustLook) for (const topic of limitedTopics) term.plan.mayStart(topic);
        // Of some messages no notification tells, such as those that others have put off.
        if (hasChanged || mustLook || (hasMessages && this.#watch.isOn)) this.#look();
        const beatMs = term.isIdle ? this.#idleBeatMs : this.#beatMs;
        if (dueInMs !== null && dueInMs < beatMs) this.#wantsIn(Number(dueInMs), handlers.topics);
        if (this.#mustExtend) return this.#extend(term);
        this.#beatIn(beatMs);
        // Whoever looks then ends the other worker, if it has not said that it goes on.
        if (leaseEndsInMs !== null) this.#beatIn(Math.max(Number(leaseEndsInMs), leastLookMs));
      },
      term,
    );
  }

  get #idleBeatMs(): number {
    return this.#context.idleBeatMs ?? this.#beatMs;
  }

  /** Extends the worker in so many ms, or sooner. */
  #beatIn(ms: number): void {
    if (this.#term !== undefined) this.#beat.arm(performance.now() + ms);
  }

  /** Tells others that the worker has no messages, if it had none since it was extended last: it needs no lease then. */
  #rest(term: Term): void {
    const { idleBeatMs, store } = this.#context;
    const { hasLooked } = term;
    term.hasLooked = this.#isTaking;
    const hasNone = this.#turns.size === 0 && term.leased.waiting === 0 && this.#completed.length === 0;
    if (idleBeatMs === undefined || term.isIdle || hasLooked || this.#isTaking || !hasNone) return;
    term.isIdle = true;
    this.#onAnswer(store.queue.rest(term.worker), () => undefined, term);
  }

  /** Opens a worker, but not in a loop: not before a time, unless the last one has taken messages. */
  #openLater(): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#open(), this.#backoff.failed());
  }

  /** It does not know what it has. Its handlers go on, and so does the next term with their messages, unless these are another's now. */
  #lose(why: string): void {
    const term = this.#term;
    if (term === undefined) return;
    this.#context.logger.debug({ why }, "what was taken of the queue and has not begun is given up");
    term.leased.clear();
    this.#watch.end();
    this.#term = undefined;
    this.#isFirst = false;
    this.#resumed.clear();
    this.#givenBack.clear();
    this.#named.clear();
    for (const turn of this.#turns.keys()) this.#outlived.set(rowOf(turn.running), turn);
    [this.#isTaking, this.#isExtending] = [false, false];
    this.#endReservation();
    this.#beat.stop();
    this.#again.stop();
    this.#openLater();
  }

  /** @param term the answer counts only while it goes on */
  #onAnswer<Answer>(query: Promise<Answer>, onAnswer: (answer: Answer) => void, term?: Term): void {
    query
      .then((answer) => {
        if (!this.isClosed && term === this.#term) onAnswer(answer);
      })
      .catch((thrown: unknown) => {
        if (this.isClosed || term !== this.#term) return;
        const error = asHawserError(thrown);
        if (!lostCodes.has(error.code)) this.#context.status.storeFailed(error);
        if (term === undefined) this.#openLater();
        else this.#lose(error.message);
      });
  }

  // ---- taking ----

  /** Takes messages if there may be any, and room for them. */
  #pump(): void {
    const term = this.#term;
    if (term === undefined || this.#isTaking || this.#receiver.isPaused || this.#alone !== undefined) return;
    const take = this.#room.next(term.plan, term.leased, this.#hasReserved);
    if (take.topics.length === 0) return;
    this.#isTaking = true;
    term.hasLooked = true;
    // What has ended must not count as running.
    if (term.plan.isLimited(take.topics[0]!)) this.#deleteCompleted();
    const after = term.plan.begin(take.topics, performance.now());
    const taking = this.#context.store.queue.take(term.worker, { ...take, after, maxBytes: drainBytes });
    this.#onAnswer(
      taking,
      ({ messages, looked, limited, hasMore }) => {
        this.#isTaking = false;
        this.#endReservation();
        this.#backoff.reset();
        if (messages.length > 0) term.isIdle = false;
        // Also of an idle worker: what it was woken for may be another one's, or due later.
        this.#beatIn(this.#beatMs);
        term.plan.seen(looked);
        this.#add(term, messages);
        this.#overtaken.clear();
        if (this.#named.size > 0) this.#askForNamed();
        this.#afterTake(term.plan.taken(take, messages, looked, this.#watch.isOn, limited, performance.now(), hasMore));
        this.run();
      },
      term,
    );
  }

  /** Decides what to take next. */
  #afterTake({ found, hasPassed }: ReturnType<TakePlan["taken"]>): void {
    if (hasPassed) this.#again.arm(performance.now() + passedPollMs);
    // The backlog of one topic must not keep it from hearing of others.
    if (found === "more" && this.#receiver.handlers.topics.length < 2) this.#watch.end();
    else if (found !== "passed" && !this.#watch.isOn) this.#watch.begin(this.#receiver.handlers.topics);
  }

  #add(term: Term, messages: readonly QueuedMessage[]): void {
    const { handlers } = this.#receiver;
    let mayNotBegin = this.#isStopping;
    for (const message of messages) {
      const { topic } = message;
      handlers.countsOf(topic).received += 1;
      if (message.isKept) message.kept = new KeptOutcome((json) => this.#writeProgress(message, json));
      mayNotBegin ||= !handlers.serves(topic) || handlers.isPaused(topic);
    }
    const isHad = (message: QueuedMessage): boolean =>
      !this.#isGivenBack(message) && !this.#overtaken.has(rowOf(message)) && !this.#resume(term, message);
    term.leased.add(
      this.#givenBack.size + this.#outlived.size + this.#overtaken.size === 0 ? messages : messages.filter(isHad),
    );
    this.#givenBack.clear();
    if (mayNotBegin) this.#giveBack(term);
  }

  /** @returns true if its handler runs since an earlier term */
  #resume({ leased, server }: Term, message: QueuedMessage): boolean {
    const before = this.#outlived.get(rowOf(message));
    // Another server may have another message in this row.
    if (before === undefined || before.running.server !== server) return false;
    const turn = leased.resume(message);
    if (turn === undefined) return false;
    // What that handler gives is kept.
    message.kept = before.running.kept;
    this.#resumed.set(before, turn);
    return true;
  }

  /** Not while there is no worker: the next progress is written. */
  #writeProgress(message: QueuedMessage, json: string): void {
    const term = this.#term;
    if (term === undefined) return;
    this.#onAnswer(this.#context.store.queue.setProgress(term.worker, message, json), () => undefined, term);
  }

  // ---- cancelling ----

  /** Asks whether a message is cancelled, if the peer has it: only the answer counts. What was named meanwhile is asked for together. */
  #mayBeCancelled(rank: string): void {
    this.#named.add(rank);
    if (this.#named.size === 1) setImmediate(() => this.#askForNamed());
  }

  #askForNamed(): void {
    // What is just being taken may be meant.
    if (this.#isTaking) return;
    const running = [...this.#turns.keys()].map((turn) => turn.running);
    const had = [...(this.#term?.leased.messages ?? []), ...running];
    if (had.some(({ rank }) => this.#named.has(String(rank)))) this.#ask();
    this.#named.clear();
  }

  /** Withdraws messages: those whose handlers run end with them, all others at once. */
  #cancel(term: Term, ranks: readonly bigint[]): void {
    const { attempts } = this.#receiver.calls;
    const left = new Set(ranks);
    for (const { running } of this.#turns.keys()) {
      if (running.server !== term.server || !left.delete(running.rank) || attempts.isCancelled(running)) continue;
      attempts.cancel(running);
    }
    term.leased.clear(({ rank }) => left.has(rank));
    this.#endCancelled(term, [...left]);
    this.run();
  }

  #endCancelled(term: Term, ranks: readonly bigint[]): void {
    if (ranks.length === 0) return;
    // What was handled is not ended as cancelled.
    this.#deleteCompleted();
    this.#onAnswer(this.#context.store.queue.endCancelled(term.worker, ranks), () => undefined, term);
  }

  // ---- handling ----

  /**
   * Handles messages while slots are free and the time slice lasts. A handler, and all that hears of its end, may cause a further
   * run: the one that is under way does its work.
   */
  run(): void {
    const term = this.#term;
    if (term === undefined || this.#isRunning) return;
    this.#isRunning = true;
    try {
      this.#startMessages(term);
    } finally {
      this.#isRunning = false;
    }
    if (term !== this.#term) return;
    this.#timer.arm(Math.min(term.leased.deadline, term.plan.deadline(performance.now())));
    this.#pump();
    if (!this.#isTaking) this.#endReservation();
  }

  #startMessages(term: Term): void {
    const { dispatcher, quarantine } = this.#receiver;
    const until = performance.now() + timeSliceMs;
    this.#reserve(term);
    while (this.#term === term && this.#alone === undefined && !this.#receiver.isPaused && !quarantine.blocks(this)) {
      const now = performance.now();
      if (now > until || !dispatcher.takeSlot()) {
        if (term.leased.startable > 0) dispatcher.wake(this);
        break;
      }
      const turn = term.leased.take(now);
      if (turn === undefined) {
        dispatcher.freeSlot();
        break;
      }
      this.#turns.set(turn, term);
      if (this.#isLastStart(turn)) this.#startAlone(turn);
      else this.#start(turn);
    }
  }

  /** Keeps a slot for a topic with limits, of which nothing is read ahead, or those with a backlog would have all slots. */
  #reserve({ plan, leased }: Term): void {
    const { handlers, dispatcher } = this.#receiver;
    if (this.#hasReserved) return;
    for (const topic of plan.limitedToTake(performance.now())) {
      const isNext = leased.waitingOf(topic) === 0 && leased.wouldBeNext(topic);
      if (!isNext || !handlers.serves(topic) || handlers.isPaused(topic)) continue;
      this.#hasReserved = dispatcher.takeSlot();
      return;
    }
  }

  #endReservation(): void {
    if (!this.#hasReserved) return;
    this.#hasReserved = false;
    this.#receiver.dispatcher.freeSlot();
  }

  #start(turn: LeasedTurn): void {
    const term = this.#termOf(turn);
    const start = (): HandlerResult | Promise<HandlerResult> =>
      turn.running.isUnique ? this.#startUnique(term, turn) : this.#call(turn);
    // Its row was given up while it waited to run alone.
    const result = term === this.#term ? start() : postponedResult;
    if (result instanceof Promise) {
      result
        .then((later) => this.#finish(turn, later, !this.#leftBatch(turn)))
        .catch((err) => this.#context.logger.error({ err }, "a defect of Hawser: a handled message was not ended"));
    } else this.#finish(turn, result, true);
  }

  #call(turn: LeasedTurn): HandlerResult | Promise<HandlerResult> {
    const { running } = turn;
    return this.#receiver.calls.start(this, turn, running, running.topic);
  }

  /** Starts a message with a unique key, unless a transaction relies on it that has not ended. */
  async #startUnique(term: Term, turn: LeasedTurn): Promise<HandlerResult> {
    const { running } = turn;
    const { handlers } = this.#receiver;
    if (!handlers.serves(running.topic) || handlers.isPaused(running.topic)) return this.#call(turn);
    const beginning = this.#context.store.queue.beginUnique(term.worker, running);
    this.#onAnswer(beginning, () => undefined, term);
    const answer = await beginning.catch(() => undefined);
    if (answer === undefined || term !== this.#term) return postponedResult;
    const { begins, dueInMs, replacement } = answer;
    if (dueInMs !== undefined) this.#wantsIn(dueInMs, [running.topic]);
    if (!begins) return releasedResult;
    if (replacement !== undefined) running.replaceContent(replacement);
    return this.#call(turn);
  }

  /** A suspect starts for the last time while nothing else runs: if its process ends, it is the cause. */
  #isLastStart({ running, attempts }: LeasedTurn): boolean {
    return running.isSuspect && attempts === this.#receiver.handlers.retryOf(running.topic, running.headers).attempts;
  }

  /** All others that were taken are for other processes meanwhile. What cannot be alone for long is tried again later. */
  #startAlone(turn: LeasedTurn): void {
    this.#alone = turn;
    this.#giveBackAll(this.#termOf(turn));
    this.#receiver.quarantine.enter(this, (isAlone) => {
      if (this.#alone !== turn) return;
      if (isAlone) this.#start(turn);
      else this.#finish(turn, notAloneResult, true);
    });
  }

  begin(turn: LeasedTurn): Promise<HandlerResult | undefined> | undefined {
    return this.#mustTell(turn) ? this.#tell(this.#termOf(turn), turn) : undefined;
  }

  #mustTell({ running, attempts }: LeasedTurn): boolean {
    return running.isSuspect || attempts === this.#receiver.handlers.retryOf(running.topic, running.headers).attempts;
  }

  /** @returns the result of a message that must not begin */
  async #tell(term: Term, { running }: LeasedTurn): Promise<HandlerResult | undefined> {
    if (term !== this.#term) return postponedResult;
    const telling = this.#context.store.queue.begin(term.worker, running);
    this.#onAnswer(telling, () => undefined, term);
    const begins = await telling.catch(() => undefined);
    if (begins === undefined || term !== this.#term) return postponedResult;
    return begins ? undefined : releasedResult;
  }

  #finish(turn: LeasedTurn, ended: HandlerResult, hasSlot: boolean): void {
    const { dispatcher, calls, handlers, quarantine } = this.#receiver;
    const isCancelled = calls.attempts.isCancelled(turn.running);
    // Its message is given back with all others whose handlers are cut off.
    if (!isCancelled && (ended === cutOff || (this.#isCuttingOff && ended.kind !== "done"))) return;
    const result = isCancelled ? marked : ended;
    const term = this.#turns.get(turn);
    const { limit, running } = turn;
    const now = performance.now();
    if (hasSlot) dispatcher.freeSlot();
    this.#room.ended(limit, now);
    const { handled } = handlers.countsOf(running.topic);
    if (result.kind === "done" && result !== releasedResult) handled[isCancelled ? "cancelled" : "done"] += 1;
    if (term !== undefined && term === this.#term) {
      term.leased.finish(turn, result, now);
      if (result.kind === "postponed") this.#giveBack(term);
      if (running.key !== undefined) term.plan.keyFreed(running.topic);
      term.plan.mayStart(running.topic);
    } else {
      limit?.release(this, true);
      const resumed = this.#resumed.get(turn);
      if (resumed !== undefined) this.#term?.leased.finish(resumed, result, now);
      // Others may have the row, and handle it again; deleted, it is not handled a third time.
      else if (result.kind === "done") {
        if (this.#isTaking) this.#overtaken.add(rowOf(running));
        if (result.isMarked !== true) this.complete(running);
        // Before the next take.
        this.#deleteCompleted();
      }
      this.#resumed.delete(turn);
      this.#outlived.delete(rowOf(running));
    }
    this.#turns.delete(turn);
    // Without a term, the next one finds it.
    if (isCancelled && this.#term !== undefined) this.#endCancelled(this.#term, [running.rank]);
    const wasAlone = this.#alone === turn;
    if (wasAlone) this.#alone = undefined;
    if (this.#turns.size === 0) this.#whenIdle.settle();
    // From here on others may start messages of this link.
    if (wasAlone) quarantine.leave(this);
    else if (quarantine.holder !== undefined) quarantine.handlerEnded();
    if (dispatcher.hasWoken) dispatcher.wake(this);
    else this.run();
  }

  completionOf({ running }: LeasedTurn): QueuedMessage {
    return running;
  }

  onNotOwned(): void {
    this.#lose("a row is another's");
  }

  onJoined(turn: LeasedTurn): void {
    this.#joined.add(turn);
    this.#room.joined(turn.running.topic, 1);
    this.#receiver.dispatcher.freeSlot();
    // The slot is for the next one of the batch.
    this.#receiver.dispatcher.wake(this);
  }

  /** @returns true if the message was in a batch */
  #leftBatch(turn: LeasedTurn): boolean {
    const wasJoined = this.#joined.delete(turn);
    if (wasJoined) this.#room.joined(turn.running.topic, -1);
    return wasJoined;
  }

  #termOf(turn: LeasedTurn): Term {
    return this.#turns.get(turn)!;
  }

  // ---- effects ----

  limitFreed(limit: ConcurrencyLimit): void {
    this.#receiver.dispatcher.wake(limit);
  }

  complete(message: QueuedMessage): void {
    if (this.#completed.push(message) === 1) queueMicrotask(() => this.#deleteCompleted());
  }

  /** Deletes rows that were handled. While the session is lost, they wait for the next one. */
  #deleteCompleted(): void {
    const { queue } = this.#context.store;
    if (!queue.isUp || this.isClosed) return;
    const completed = this.#completed.splice(0).filter(({ server }) => server === queue.server);
    if (completed.length === 0) return;
    const deleted = queue.done(completed).catch((error: unknown) => {
      if (asHawserError(error).code === "store_failed") this.#completed.unshift(...completed);
      throw error;
    });
    this.#onAnswer(deleted, () => undefined, this.#term);
  }

  putOff(turn: LeasedTurn, delayMs: number, failure: FailedAttempt | undefined): void {
    const term = this.#term!;
    const { running } = turn;
    this.#receiver.handlers.countsOf(running.topic).handled[failure === undefined ? "deferred" : "retried"] += 1;
    const put = this.#context.store.queue.retry(term.worker, running, delayMs, failure);
    this.#onAnswer(
      put,
      () => {
        this.#wantsIn(delayMs, [running.topic]);
        term.leased.onPutOff(turn);
        this.run();
      },
      term,
    );
  }

  /** A message of one of the topics is due in so many ms. */
  #wantsIn(ms: number, topics: readonly string[]): void {
    const timer = setTimeout(
      () => {
        this.#due.delete(timer);
        for (const topic of topics) this.#wants(topic);
      },
      Math.min(ms, longestTimerMs),
    );
    this.#due.add(timer);
  }

  giveUp(turn: LeasedTurn, dead: Omit<DeadMessage, "message" | "failures">, failure: FailedAttempt | undefined): void {
    const term = this.#term!;
    const { running } = turn;
    this.#receiver.handlers.countsOf(running.topic).handled.dead_letter += 1;
    const given = this.#context.store.queue.giveUp(term.worker, running, dead, failure);
    const onGivenUp = (): void => {
      term.leased.onGivenUp(turn);
      this.run();
    };
    this.#onAnswer(given, onGivenUp, term);
    const { errorCode: code, errorMessage: message } = dead;
    const { topic, sender, messageId: id } = running;
    const peer = sender?.name ?? "";
    this.#context.status.report({ kind: "dead_letter", topic, peer, id, stored: true, code, message });
  }
}

/** Id for a worker: below 2^53, and nobody can guess it. */
const randomWorker = (): bigint => BigInt.asUintN(53, randomBytes(8).readBigUInt64LE()) || 1n;
