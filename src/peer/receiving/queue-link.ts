/**
 * A peer's part of the queue: takes what is enqueued for its topics, ahead and in batches, and passes it to the handlers.
 *
 * The peer is a worker of the queue (`docs/store-protocol.md`). All statements of the worker go through one session, in
 * order, so that the link knows what it has. Whenever it does not (a statement is not answered, the connection is new, a row
 * that it has is another's), it begins a new worker, and forgets what it has: the rows are free then. Handlers that run go on,
 * and their transactions decide whether their rows are still there. A message that the new worker takes while its handler
 * still runs is not started again: what that handler does counts.
 */

import { outboxConstants } from "../../../generated/ts/settings/outbox.js";
import {
  type ConcurrencyLimit,
  type DeadMessage,
  type FailedAttempt,
  type HandlerResult,
  LeasedMessages,
  type LeasedTurn,
  type LeaseEffects,
  type QueuedMessage,
} from "../../channel/index.js";
import { asHawserError } from "../../errors/index.js";
import { postgresBackoff } from "../../postgres/index.js";
import { Backoff, DeadlineTimer, Waiters } from "../../runtime/index.js";
import { drainBytes, type HandledMessage, type QueueRow, type TakenRow } from "../../store/index.js";
import type { PeerContext } from "../core/context.js";
import { marked } from "../core/handler-result.js";
import { defaultTakeoverMs } from "../core/handling-settings.js";
import type { Source } from "../core/message.js";
import { polls } from "../core/polls.js";
import { type SlicedWork, timeSliceMs } from "./dispatcher.js";
import { EnqueueWatch } from "./enqueue-watch.js";
import type { HandledLink, HandledTurn } from "./handler-call.js";
import { KeptOutcome } from "./kept-result.js";
import type { Receiver } from "./receiver.js";
import { TakePlan } from "./take-plan.js";
import { TakeRoom } from "./take-room.js";

/** Minimum number of beats of a worker within the time after which it counts as gone. */
const beatsPerLease = 4;
/** Time until messages are looked at again that others looked at, or whose key was another's. */
const passedPollMs = 100;
/** Longest lease of a worker. */
const longestLeaseMs = 600_000;
/** Longest delay of a timer. Beats tell of what is due later. */
const longestTimerMs = 2 ** 31 - 1;
const postponedResult: HandlerResult = { kind: "postponed" };
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
}

/** Row to delete, and the server that had it. */
interface Completed {
  readonly message: QueuedMessage;
  readonly server: string | undefined;
}

export class QueueLink implements HandledLink, LeaseEffects, SlicedWork {
  readonly source: Source;
  readonly givesBack = true;
  isClosed = false;
  #isFirst = false;
  #isStarted = false;
  #isStopping = false;
  #term: Term | undefined;
  /** Worker of the term before, which the next one replaces. */
  #before: bigint | undefined;
  #isOpening = false;
  #isTaking = false;
  /** True while a slot is kept for a topic with limits. */
  #hasReserved = false;
  #isExtending = false;
  /** True if settings of topics have changed since the worker was extended last. */
  #mustExtend = false;
  /** Topics that the worker says that it serves. */
  #served: readonly string[] = [];
  #standsInFor: readonly string[] = [];
  /** Looks at what was left, once in a while: there may be many messages of a key that others have. */
  readonly #again = new DeadlineTimer(() => {
    this.#term?.plan.wantsPassed();
    this.#pump();
  });
  readonly #timer = new DeadlineTimer(() => this.run());
  readonly #backoff = new Backoff(postgresBackoff);
  #retry: NodeJS.Timeout | undefined;
  #beat: NodeJS.Timeout | undefined;
  #beatMs = 0;
  /** Timers of what was put off. */
  readonly #due = new Set<NodeJS.Timeout>();
  /** Terms of the turns that run. */
  readonly #turns = new Map<HandledTurn, Term>();
  /** Turns that run since an earlier term, by their rows. */
  readonly #outlived = new Map<string, LeasedTurn>();
  /** Rows of such turns that ended while a take was under way, which may have taken them. */
  readonly #overtaken = new Set<string>();
  /** Turns of this term for those of an earlier one, whose handlers still run. */
  readonly #resumed = new Map<LeasedTurn, LeasedTurn>();
  /** Turns of messages that wait in a batch and so occupy no slot. */
  readonly #joined = new Set<HandledTurn>();
  /** Ids that notifications have named, of messages that may be cancelled. */
  readonly #named = new Set<string>();
  #isAsking = false;
  /** Message that is to run while nothing else does, or runs. */
  #alone: LeasedTurn | undefined;
  /** Rows to delete that were handled outside of a transaction. */
  #completed: Completed[] = [];
  readonly #whenIdle = new Waiters();
  #unlisten: (() => void)[] = [];

  readonly #receiver: Receiver;
  readonly #context: PeerContext;
  readonly #room: TakeRoom;
  readonly #watch: EnqueueWatch;

  constructor(receiver: Receiver) {
    this.#receiver = receiver;
    this.#context = receiver.context;
    this.#room = new TakeRoom(receiver);
    this.#watch = new EnqueueWatch({
      queue: receiver.context.store.queue,
      look: () => this.#look(),
      onAnswer: (query, onAnswer) => this.#onAnswer(query, onAnswer, this.#term),
    });
    const { peerSender } = outboxConstants;
    const channelName = `${peerSender}:${peerSender}:${receiver.context.sender.name}`;
    this.source = { channelId: 0, channelName, senderName: peerSender, sourceTopic: peerSender };
  }

  /** Begins to take, when the peer is in the directory and has handlers, or has left a worker behind. */
  start(): void {
    this.#isStarted = true;
    if (!this.#context.lease.wasClean) this.#begin();
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
      queue.on("cancelled", (id) => this.#mayBeCancelled(id)),
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
    // Its time has passed: what still runs counts as tried, when another peer has it.
    if (this.isClosed) return;
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
    const rows = term.leased.clear(willNotBegin);
    if (rows.length === 0) return;
    this.#onAnswer(this.#context.store.queue.giveBack(term.worker, rows), () => undefined, term);
    // They are behind what was looked at, and may be taken again after a pause.
    for (const topic of new Set(rows.map((row) => row.topic))) term.plan.wantsAll(topic);
  }

  close(): void {
    this.isClosed = true;
    this.#timer.stop();
    this.#again.stop();
    for (const timer of [this.#retry, this.#beat, ...this.#due]) clearTimeout(timer);
    this.#watch.end();
    for (const stop of this.#unlisten) stop();
    this.#term = undefined;
    this.#whenIdle.settle();
    this.#receiver.quarantine.leave(this);
  }

  // ---- terms ----

  #open(): void {
    const { store, sender, membership, settings } = this.#context;
    if (this.#isOpening || this.#term !== undefined || this.isClosed || !store.queue.isUp) return;
    const { calls, handlers } = this.#receiver;
    this.#isOpening = true;
    const { group } = membership;
    const leaseMs = Math.min(membership.takeoverMs ?? defaultTakeoverMs, longestLeaseMs);
    const { concurrency } = settings;
    const { topics } = handlers;
    const { queue } = store;
    const { server } = queue;
    const open = async (): Promise<bigint> => {
      // The process before this one has lost the name: it has ended, or will not go on.
      if (this.#before === undefined) await queue.endWorkers(sender.name);
      const worker = await queue.openWorker({
        ...{ name: sender.name, topics, group, concurrency },
        leaseMs,
        replaces: this.#before,
      });
      this.#before = worker;
      if (this.isClosed) void this.#closeWorker(worker);
      return worker;
    };
    // What earlier terms have handled is not taken again.
    this.#deleteCompleted();
    const opened = open().finally(() => {
      this.#isOpening = false;
    });
    this.#onAnswer(opened, (worker) => {
      if (!queue.isUp || queue.server !== server) return this.#openLater();
      const leased = new LeasedMessages(
        {
          retryOf: (message) => calls.retryOf(message),
          limitOf: ({ topicId, headers }) => calls.limitOf(topicId, headers),
        },
        this,
      );
      this.#term = { worker, leased, server, plan: new TakePlan() };
      this.#served = topics;
      this.#beatMs = Math.min(leaseMs / beatsPerLease, polls.everyMs);
      // Settings may have changed while nobody listened.
      this.#extend(this.#term);
      if (this.#standsInFor.length > 0 || topics.join("\n") !== handlers.topics.join("\n")) this.#serve(this.#term);
      else this.#look();
    });
  }

  /** Any login can notify: one statement at a time asks what has changed. */
  #settingsChanged(topic: string): void {
    if (this.#term === undefined || !this.#receiver.handlers.serves(topic)) return;
    this.#mustExtend = true;
    if (!this.#isExtending) this.#extend(this.#term);
  }

  /** Says that the worker goes on, now and every `#beatMs`. The answer has the paused topics. */
  #extend(term: Term): void {
    const { handlers } = this.#receiver;
    const mustLook = this.#mustExtend;
    [this.#isExtending, this.#mustExtend] = [true, false];
    clearTimeout(this.#beat);
    this.#onAnswer(
      this.#context.store.queue.extend(term.worker, this.#watch.isOn),
      ({ isFirst, hasMessages, pausedTopics, limitedTopics }) => {
        this.#isFirst = isFirst;
        this.#isExtending = false;
        const hasChanged = handlers.pauseEverywhere(pausedTopics);
        if (hasChanged) this.#receiver.handlersChanged();
        // Of a topic with limits nothing is read ahead.
        this.#giveBack(term, term.plan.setLimited(limitedTopics));
        if (mustLook) for (const topic of limitedTopics) term.plan.mayStart(topic);
        // Of some messages no notification tells, such as those that others have put off.
        if (hasChanged || mustLook || (hasMessages && this.#watch.isOn)) this.#look();
        if (this.#mustExtend) this.#extend(term);
        else this.#beat = setTimeout(() => this.#extend(term), this.#beatMs);
      },
      term,
    );
  }

  /** Opens a worker, but not in a loop: not before a time, unless the last one has taken messages. */
  #openLater(): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#open(), this.#backoff.failed());
  }

  /** What it has may be another's now. Its handlers go on, and find that out. */
  #lose(why: string): void {
    const term = this.#term;
    if (term === undefined) return;
    this.#context.logger.debug({ why }, "what was taken of the queue is given up");
    term.leased.clear();
    this.#watch.end();
    this.#term = undefined;
    this.#isFirst = false;
    this.#resumed.clear();
    this.#isAsking = false;
    for (const turn of this.#turns.keys()) this.#outlived.set(rowOf(turn.running as QueuedMessage), turn as LeasedTurn);
    [this.#isTaking, this.#isExtending] = [false, false];
    this.#endReservation();
    clearTimeout(this.#beat);
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
    // What has ended must not count as running.
    if (term.plan.isLimited(take.topics[0]!)) this.#deleteCompleted();
    const after = term.plan.begin(take.topics);
    const taking = this.#context.store.queue.take(term.worker, { ...take, after, maxBytes: drainBytes });
    this.#onAnswer(
      taking,
      ({ rows, looked, limited }) => {
        this.#isTaking = false;
        this.#endReservation();
        this.#backoff.reset();
        this.#add(term, rows, looked);
        this.#overtaken.clear();
        if (this.#named.size > 0) this.#askForNamed();
        this.#afterTake(term.plan.taken(take, rows, looked, this.#watch.isOn, limited, performance.now()));
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

  #add(term: Term, rows: readonly TakenRow[], looked: readonly QueueRow[]): void {
    const { leased, plan } = term;
    const { calls } = this.#receiver;
    plan.seen(looked);
    const messages = rows.map((row): QueuedMessage => {
      const { topic, recipient, role, id, key, headers, fault, enqueuedMs, payload } = row;
      const topicId = calls.topics.idOf(topic);
      calls.received(topicId, 1);
      return {
        topic,
        recipient,
        role,
        id,
        key,
        fault,
        failedAttempts: row.failedAttempts,
        isSuspect: row.isSuspect,
        isUnique: row.isUnique,
        topicId,
        position: { epoch: enqueuedMs, number: Number(id) },
        queueId: id,
        // A message that waits for its key must not keep the memory of all that came with it.
        payload: rows.length > 1 ? Buffer.from(payload) : payload,
        encoding: undefined,
        headers: headers.length > 0 ? headers : undefined,
        fromWire: false,
        kept: row.isKept ? new KeptOutcome((json) => this.#writeProgress(row, json)) : undefined,
      };
    });
    leased.add(
      this.#outlived.size + this.#overtaken.size === 0
        ? messages
        : messages.filter((message) => !this.#overtaken.has(rowOf(message)) && !this.#resume(term, message)),
    );
    const { handlers } = this.#receiver;
    if (this.#isStopping || rows.some(({ topic }) => !handlers.serves(topic) || handlers.isPaused(topic)))
      this.#giveBack(term);
  }

  /** @returns true if its handler runs since an earlier term */
  #resume({ leased, server }: Term, message: QueuedMessage): boolean {
    const before = this.#outlived.get(rowOf(message));
    // Another server may have another message in this row.
    if (before === undefined || this.#termOf(before).server !== server) return false;
    const turn = leased.resume({ ...message, kept: before.running.kept });
    if (turn === undefined) return false;
    this.#resumed.set(before, turn);
    return true;
  }

  /** Not while there is no worker: the next progress is written. */
  #writeProgress(row: QueueRow, json: string): void {
    const term = this.#term;
    if (term === undefined) return;
    this.#onAnswer(this.#context.store.queue.setProgress(term.worker, row, json), () => undefined, term);
  }

  // ---- cancelling ----

  /** Asks whether a message is cancelled, if the peer has it: only the answer counts. What was named meanwhile is asked for together. */
  #mayBeCancelled(id: string): void {
    this.#named.add(id);
    if (this.#isAsking) return;
    this.#isAsking = true;
    setImmediate(() => this.#askForNamed());
  }

  #askForNamed(): void {
    const term = this.#term;
    // What is just being taken may be meant.
    if (this.#isTaking) {
      this.#isAsking = false;
      return;
    }
    const { queue } = this.#context.store;
    const running = [...this.#turns].flatMap(([turn, { server }]) => (server === queue.server ? [turn] : []));
    const named = [...(term?.leased.messages ?? []), ...running.map((turn) => turn.running as QueuedMessage)].filter(
      ({ id }) => this.#named.has(String(id)),
    );
    this.#named.clear();
    this.#isAsking = named.length > 0;
    if (term === undefined || named.length === 0) return;
    this.#onAnswer(
      queue.endCancelled(named),
      (ids) => {
        this.#isAsking = false;
        const gone = new Set(named.filter(({ id }) => ids.includes(id)).map(rowOf));
        term.leased.clear((message) => gone.has(rowOf(message)));
        for (const { running } of this.#turns.keys())
          if (gone.has(rowOf(running as QueuedMessage))) this.#receiver.calls.cancel(running);
        if (this.#named.size > 0) this.#askForNamed();
        this.run();
      },
      term,
    );
  }

  // ---- handling ----

  /** Handles messages while slots are free and the time slice lasts. */
  run(): void {
    const term = this.#term;
    if (term === undefined) return;
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
    this.#timer.arm(Math.min(term.leased.deadline, term.plan.deadline(performance.now())));
    this.#pump();
    if (!this.#isTaking) this.#endReservation();
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
      turn.running.isUnique ? this.#startUnique(term, turn) : this.#receiver.calls.start(this, turn);
    // Its row was given up while it waited to run alone.
    const result = term === this.#term ? start() : postponedResult;
    if (result instanceof Promise) {
      result
        .then((later) => this.#finish(turn, later, !this.#leftBatch(turn)))
        .catch((error) => this.#context.status.storeFailed(error));
    } else this.#finish(turn, result, true);
  }

  /** Starts a message with a unique key, unless a transaction relies on it that has not ended. */
  async #startUnique(term: Term, turn: LeasedTurn): Promise<HandlerResult> {
    const { running } = turn;
    const { calls, handlers } = this.#receiver;
    if (!handlers.serves(running.topic) || handlers.isPaused(running.topic)) return calls.start(this, turn);
    const beginning = this.#context.store.queue.beginUnique(term.worker, running);
    this.#onAnswer(beginning, () => undefined, term);
    const answer = await beginning.catch(() => undefined);
    if (answer === undefined || term !== this.#term) return postponedResult;
    const { begins, dueInMs, replacement } = answer;
    if (dueInMs !== undefined) this.#wantsIn(dueInMs, running.topic);
    if (!begins) return releasedResult;
    Object.assign(running, replacement);
    return calls.start(this, turn);
  }

  /** A message that may have ended its process starts for the last time while nothing else runs: so it is the cause. */
  #isLastStart({ running, attempts }: LeasedTurn): boolean {
    return running.isSuspect && attempts === this.#receiver.calls.retryOf(running).attempts;
  }

  #startAlone(turn: LeasedTurn): void {
    this.#alone = turn;
    this.#receiver.quarantine.enter(this, () => {
      if (this.#alone === turn) this.#startWhenAlone();
    });
  }

  #startWhenAlone(): void {
    if (this.#alone !== undefined && this.#turns.size === 1) this.#start(this.#alone);
  }

  #finish(turn: LeasedTurn, ended: HandlerResult, hasSlot: boolean): void {
    const { dispatcher, calls, quarantine } = this.#receiver;
    const isCancelled = calls.isCancelled(turn.running);
    const result = isCancelled ? marked : ended;
    const term = this.#turns.get(turn);
    const { limit, running } = turn;
    const now = performance.now();
    if (hasSlot) dispatcher.freeSlot();
    this.#room.ended(limit, now);
    const { handled } = calls.countsOf(running.topicId);
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
        if (result.isMarked !== true) this.#complete(running, term?.server);
        // Before the next take.
        this.#deleteCompleted();
      }
      this.#resumed.delete(turn);
      this.#outlived.delete(rowOf(running));
    }
    this.#turns.delete(turn);
    if (this.#alone === turn) {
      this.#alone = undefined;
      quarantine.leave(this);
    } else if (quarantine.holder !== undefined) quarantine.handlerEnded();
    this.#startWhenAlone();
    if (this.#turns.size === 0) this.#whenIdle.settle();
    if (dispatcher.hasWoken) dispatcher.wake(this);
    else this.run();
  }

  completionOf(turn: LeasedTurn): HandledMessage {
    const { topic, recipient, role, id, kept } = turn.running;
    return { topic, recipient, role, id, kept, server: this.#termOf(turn).server };
  }

  onNotOwned(): void {
    this.#lose("a row is another's");
  }

  onJoined(turn: HandledTurn): void {
    this.#joined.add(turn);
    this.#room.joined((turn.running as QueuedMessage).topic, 1);
    this.#receiver.dispatcher.freeSlot();
    // The slot is for the next one of the batch.
    this.#receiver.dispatcher.wake(this);
  }

  /** @returns true if the message was in a batch */
  #leftBatch(turn: HandledTurn): boolean {
    const wasJoined = this.#joined.delete(turn);
    if (wasJoined) this.#room.joined((turn.running as QueuedMessage).topic, -1);
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
    this.#complete(message, this.#term?.server);
  }

  #complete(message: QueuedMessage, server: string | undefined): void {
    if (this.#completed.push({ message, server }) === 1) queueMicrotask(() => this.#deleteCompleted());
  }

  /** Deletes rows that were handled. While the session is lost, they wait for the next one. */
  #deleteCompleted(): void {
    const { queue } = this.#context.store;
    if (!queue.isUp || this.isClosed) return;
    const completed = this.#completed.splice(0).filter(({ server }) => server === queue.server);
    if (completed.length === 0) return;
    const deleted = queue.done(completed.map(({ message }) => message)).catch((error: unknown) => {
      if (asHawserError(error).code === "store_failed") this.#completed.unshift(...completed);
      throw error;
    });
    this.#onAnswer(deleted, () => undefined, this.#term);
  }

  putOff(turn: LeasedTurn, delayMs: number, failure: FailedAttempt | undefined): void {
    const term = this.#term!;
    const { running } = turn;
    this.#receiver.calls.countsOf(running.topicId).handled.retried += 1;
    const put = this.#context.store.queue.retry(term.worker, running, delayMs, failure);
    this.#onAnswer(
      put,
      () => {
        this.#wantsIn(delayMs, running.topic);
        term.leased.onPutOff(turn);
        this.run();
      },
      term,
    );
  }

  /** A message of the topic is due in so many ms. */
  #wantsIn(ms: number, topic: string): void {
    const timer = setTimeout(
      () => {
        this.#due.delete(timer);
        this.#wants(topic);
      },
      Math.min(ms, longestTimerMs),
    );
    this.#due.add(timer);
  }

  giveUp(turn: LeasedTurn, dead: Omit<DeadMessage, "message" | "failures">, failure: FailedAttempt | undefined): void {
    const term = this.#term!;
    const { running } = turn;
    this.#receiver.calls.countsOf(running.topicId).handled.dead_letter += 1;
    const given = this.#context.store.queue.giveUp(term.worker, running, dead, failure);
    const onGivenUp = (): void => {
      term.leased.onGivenUp(turn);
      this.run();
    };
    this.#onAnswer(given, onGivenUp, term);
    const { errorCode: code, errorMessage: message } = dead;
    const { senderName: peer } = this.source;
    this.#context.status.report({ kind: "dead_letter", topic: running.topic, peer, stored: true, code, message });
  }
}

/** Topics, recipients and roles have no such character. */
const rowOf = ({ topic, recipient, role, id }: QueueRow): string =>
  `${topic}\u0001${recipient}\u0001${role}\u0001${id}`;
