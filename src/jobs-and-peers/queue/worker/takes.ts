/**
 * Takes of a worker of the queue: one at a time, when there may be messages, and room for them. What ends or is given back while
 * a take is under way may be in its answer, and is not handled then.
 */
import { DeadlineTimer } from "../../../foundation/runtime/index.js";
import { drainBytes, keyOf, type QueuedMessage, rowOf } from "../../store/index.js";
import type { WorkerEffects } from "./effects.js";
import { EnqueueWatch } from "./enqueue-watch.js";
import type { LeasedMessages } from "./leased-messages.js";
import type { Answer, TermStatements } from "./statements.js";
import { type Take, TakePlan } from "./take-plan.js";
import type { TakeRoom } from "./take-room.js";

/** Time until messages are looked at again that others looked at, or whose key was another's. */
const othersPollMs = 100;

/** Take that is not answered, and what has happened since it was sent. */
class PendingTake implements Take {
  readonly topics: readonly string[];
  readonly most: number;
  /** Rows that handlers have deleted which were started in an earlier term. */
  readonly deletedRows = new Set<string>();
  /** Lowest rank that was given back, by key and role: with it all is free that this take finds behind it, and itself, if a retry had freed it. */
  readonly #givenBack = new Map<string, bigint>();

  constructor({ topics, most }: Take) {
    this.topics = topics;
    this.most = most;
  }

  gaveBack(rows: readonly QueuedMessage[]): void {
    for (const row of rows) {
      const lowest = this.#givenBack.get(keyOf(row));
      if (row.key !== undefined && (lowest === undefined || row.rank < lowest))
        this.#givenBack.set(keyOf(row), row.rank);
    }
  }

  /** True if the worker does not have a message of the answer any more. */
  hasLost(row: QueuedMessage): boolean {
    if (this.deletedRows.size > 0 && this.deletedRows.has(rowOf(row))) return true;
    const lowest = this.#givenBack.size === 0 || row.lane === undefined ? undefined : this.#givenBack.get(keyOf(row));
    return lowest !== undefined && lowest <= row.rank;
  }
}

/** Part of a term that the takes need. */
export interface TakingTerm {
  readonly isOver: boolean;
  readonly leased: LeasedMessages;
  /** Has the messages of a take, but for those that it has lost. */
  taken(take: Pick<PendingTake, "hasLost">, messages: readonly QueuedMessage[]): void;
}

/** Part of the worker that the takes need. */
export interface TakingOwner {
  readonly effects: WorkerEffects;
  readonly room: TakeRoom;
  /** `isAlone`: true while a message runs alone, or is to: nothing is taken then. */
  readonly turns: { readonly isAlone: boolean };
  /** Sends the rows that were handled outside of a transaction. */
  endHandled(): void;
  /** Starts messages. Takes again, too. */
  run(): void;
}

export class Takes {
  readonly plan = new TakePlan();
  readonly #watch: EnqueueWatch;
  /** Looks again at what others had: there may be many messages of a key that others have. */
  readonly #lookAgain: DeadlineTimer;
  #pending: PendingTake | undefined;
  /** True while a slot is kept for a topic with limits. */
  #hasReservedSlot = false;
  readonly #term: TakingTerm;
  readonly #statements: TermStatements;
  readonly #owner: TakingOwner;
  readonly #effects: WorkerEffects;

  constructor(term: TakingTerm, statements: TermStatements, owner: TakingOwner) {
    const { effects } = owner;
    this.#term = term;
    this.#statements = statements;
    this.#owner = owner;
    this.#effects = effects;
    this.#watch = new EnqueueWatch(statements, effects.clock, () => this.look());
    this.#lookAgain = new DeadlineTimer(() => {
      this.plan.wantsPassed();
      this.pump();
    }, effects.clock);
  }

  get isUnderWay(): boolean {
    return this.#pending !== undefined;
  }

  /** True while those who enqueue notify. */
  get isWatching(): boolean {
    return this.#watch.isOn;
  }

  /** Ends the watch, since the topics are others. */
  topicsChanged(): void {
    this.#watch.end();
  }

  /** A topic may have messages. */
  wants(topic: string): void {
    if (!this.#effects.handlers.serves(topic)) return;
    this.plan.wants(topic, this.#watch.isOn);
    this.pump();
  }

  /** Looks at all rows of all topics. */
  look(): void {
    for (const topic of this.#effects.handlers.topics) this.plan.wantsAll(topic);
    this.pump();
  }

  gaveBack(rows: readonly QueuedMessage[]): void {
    this.#pending?.gaveBack(rows);
    // They are behind what was looked at, and may be taken again after a pause.
    for (const topic of new Set(rows.map((row) => row.topic))) this.plan.wantsAll(topic);
  }

  /** The transaction of a handler that was started in an earlier term has deleted its row. */
  deletedOutside(message: QueuedMessage): void {
    this.#pending?.deletedRows.add(rowOf(message));
  }

  /** Ends with the term. */
  end(): void {
    this.#watch.end();
    this.#lookAgain.stop();
    this.endReservation();
  }

  /** Takes messages if there may be any, and room for them. */
  pump(): void {
    const { plan } = this;
    const { clock } = this.#effects;
    const isOff = this.#term.isOver || this.#effects.host.isPaused || this.#owner.turns.isAlone;
    if (isOff || this.#pending !== undefined) return;
    const take = this.#owner.room.next(plan, this.#term.leased, this.#hasReservedSlot);
    if (take.topics.length === 0) return;
    const pending = new PendingTake(take);
    this.#pending = pending;
    // What has ended must not count as running.
    if (plan.isLimited(take.topics[0]!)) this.#owner.endHandled();
    const after = plan.begin(take.topics, clock.now());
    const { worker } = this.#statements;
    this.#statements.send("take", [worker, { ...take, after, maxBytes: drainBytes }], (answer) => {
      this.#pending = undefined;
      this.#taken(pending, answer);
    });
  }

  #taken(take: PendingTake, { messages, looked, limited, hasMore }: Answer<"take">): void {
    const { plan } = this;
    this.endReservation();
    plan.seen(looked);
    this.#term.taken(take, messages);
    const now = this.#effects.clock.now();
    const { found, hasPassed } = plan.taken(take, messages, looked, this.#watch.isOn, limited, now, hasMore);
    const { topics } = this.#effects.handlers;
    if (hasPassed) this.#lookAgain.arm(now + othersPollMs);
    // The backlog of one topic must not keep it from hearing of others.
    if (found === "more" && topics.length < 2) this.#watch.end();
    else if (found !== "passed" && !this.#watch.isOn) this.#watch.begin(topics);
    this.#owner.run();
  }

  /** Keeps a slot for a topic with limits, of which nothing is read ahead, or those with a backlog would have all slots. */
  reserve(): void {
    const { handlers, dispatcher, clock } = this.#effects;
    const { leased } = this.#term;
    if (this.#hasReservedSlot) return;
    for (const topic of this.plan.limitedToTake(clock.now())) {
      const isNext = leased.waitingOf(topic) === 0 && leased.wouldBeNext(topic);
      if (!isNext || !handlers.serves(topic) || handlers.isPaused(topic)) continue;
      this.#hasReservedSlot = dispatcher.takeSlot();
      return;
    }
  }

  endReservation(): void {
    if (!this.#hasReservedSlot) return;
    this.#hasReservedSlot = false;
    this.#effects.dispatcher.freeSlot();
  }
}
