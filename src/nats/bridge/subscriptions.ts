/**
 * The subscriptions of a process. In the leader, messages go through queues to their functions; in other processes,
 * messages are kept for a takeover.
 */

import { performance } from "node:perf_hooks";
import { bridgeConstants, type ServeSettings } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../foundation/errors/index.js";
import { oncePerTurn, type RareLog, whenAborted } from "../../foundation/runtime/index.js";
import type { Subscription } from "./bindings.js";
import type { DeadLetterWriter } from "./dead-letters.js";
import { type BatchRunner, errorText } from "./executor/index.js";
import {
  cleanTakeoverMs,
  type KeptMessage,
  type OthersHave,
  TakeoverBuffer,
  type Unfinished,
} from "./leadership/index.js";
import { earliest, type InboundMessage } from "./message.js";
import {
  ByteBudget,
  Discards,
  newTotals,
  type Outcome,
  type QueueContext,
  type QueueMemory,
  QueueScheduler,
  type QueueTotals,
  queueDefaults,
  type SpillStep,
  type Step,
  SubscriptionQueue,
} from "./queue/index.js";
import type { SavedMessages, Unsaved } from "./saved-messages.js";
import { saveChunkBytes } from "./saved-messages.js";
import { covers, isWildcard, receiversOf } from "./subjects.js";

const { leaderHeartbeatMs } = bridgeConstants;
/** Number of subjects with a count of discarded messages of their own. */
export const maxCountedSubjects = 1_000;
/**
 * For how many subscriptions that stand still, those furthest behind, the leader reports a progress of their own. The
 * next one holds back the common progress. This limits the size of the row.
 */
const maxToldBehind = 100;

/** Collaborators, settings and callbacks of {@link Subscriptions}. */
export interface SubscriptionsOptions {
  readonly settings: Pick<
    ServeSettings,
    "subscriberSessions" | "subscriberTimeoutMs" | "bufferBytes" | "takeoverBufferMs"
  >;
  readonly runner: BatchRunner;
  readonly deadLetters: DeadLetterWriter;
  readonly saved: SavedMessages;
  readonly rareLog: RareLog;
  /** A batch was committed. */
  onBatch(messages: number, durationMs: number): void;
}

/** Counts of one subscription, since this process first read its binding. Values marked as totals never decrease. */
export interface SubscriptionCounts {
  readonly id: bigint;
  readonly functionName: string;
  /** Subject of the subscription; may contain wildcards. */
  readonly subject: string;
  /** Total of messages that NATS delivered to this process, as the leader or not. */
  readonly received: number;
  /** Total of kept messages that this process ran after a takeover, and that the previous leader may have handled. */
  readonly repeated: number;
  /** Total of lost connections to NATS while this process was the leader. */
  readonly lostConnections: number;
  /** Total of messages whose transaction this process committed. */
  readonly committed: number;
  /** Total of messages that became dead letters. */
  readonly deadLettered: number;
  /** Total of transactions that ran messages or wrote dead letters, committed or not. */
  readonly transactions: number;
  /** Total of batches that were halved after a failure. */
  readonly bisections: number;
  /** Messages in memory that are neither committed nor dead letters yet. */
  readonly queuedMessages: number;
  /** Memory of the queued messages, in bytes. */
  readonly queuedBytes: number;
  /** Time at which the oldest message was received or saved (`performance.now()`, ms); undefined if there is none. */
  readonly oldestReceivedAt: number | undefined;
  /** Messages in the table of saved messages; 0 unless this process is the leader. */
  readonly savedMessages: number;
  /** Size of the saved messages in bytes, as counted against `savedBytes`. */
  readonly savedBytes: number;
}

/** Result of a takeover. */
export interface TakenOver {
  /** Number of kept messages that are run again. */
  readonly repeated: number;
  /** Number of messages that should be run but were not kept for lack of memory, by subject of the subscription. */
  readonly missing: ReadonlyMap<string, number>;
}

interface SubscriptionState {
  subscription: Subscription;
  /**
   * Subject of the NATS subscription that delivers the messages: the subscription's own subject, or one of the same
   * role that covers it.
   */
  receiver: string;
  /** Previous receivers, used until the NATS server has processed the current one. */
  readonly formerReceivers: Set<string>;
  queue: SubscriptionQueue | undefined;
  received: number;
  repeated: number;
  /** Lost connections while this process was the leader. */
  lostConnections: number;
  /** Totals of all queues of this subscription, including earlier leadership terms. */
  readonly totals: QueueTotals;
}

/**
 * Subscriptions that share one receiver. Finds the subscriptions that match a message, without a comparison with each
 * one that has no wildcards.
 */
class ReceiverMatches {
  /** Subscriptions without wildcards, by subject. */
  readonly #literal = new Map<string, SubscriptionState[]>();
  readonly #wildcards: SubscriptionState[] = [];

  add(known: SubscriptionState): void {
    const { subject } = known.subscription;
    if (isWildcard(subject)) this.#wildcards.push(known);
    else addTo(this.#literal, subject, known);
  }

  has(known: SubscriptionState): boolean {
    const { subject } = known.subscription;
    return (isWildcard(subject) ? this.#wildcards : this.#literal.get(subject))?.includes(known) === true;
  }

  /** Subscriptions that match the subject of a message. @param receiver subject through which the message arrived */
  of(subject: string, receiver: string): readonly SubscriptionState[] {
    const literal = this.#literal.get(subject) ?? [];
    const wildcards = this.#wildcards.filter(
      ({ subscription }) => subscription.subject === receiver || covers(subscription.subject, subject),
    );
    return wildcards.length === 0 ? literal : [...literal, ...wildcards];
  }
}

/** A period of leadership of this process. */
interface LeadershipTerm {
  readonly epoch: bigint;
  readonly scheduler: QueueScheduler;
  /** Called when the fence has refused a step because another process is the leader. */
  readonly onFenced: () => void;
}

export class Subscriptions {
  readonly #options: SubscriptionsOptions;
  /** Memory budget, counters and settings that all queues share. */
  readonly context: QueueContext;
  /** Messages that are kept while another process is the leader. */
  readonly kept: TakeoverBuffer;
  readonly #states = new Map<bigint, SubscriptionState>();
  /** Subscriptions by receiver. */
  readonly #byReceiver = new Map<string, ReceiverMatches>();
  /** Subjects that the NATS server refuses. */
  readonly #refused = new Set<string>();
  /** Last computed receivers of each role; `key` identifies the subjects that they were computed for. */
  readonly #routes = new Map<string, { readonly key: string; readonly receivers: ReadonlyMap<string, string> }>();
  #term: LeadershipTerm | undefined;
  /** Set between {@link startTakeover} and {@link lead}, while the table of saved messages is being read. */
  #takeover: { readonly afterCleanEnd: boolean } | undefined;
  /** Steps that are running. */
  readonly #running = new Set<Promise<void>>();
  readonly #pumpSoon = oncePerTurn(() => this.#pump());
  #isSpilling = false;
  /** Start of the next attempt to spill, after Postgres or the limits prevented the last one. */
  #nextSpillAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #missing = 0;
  /** End of the last period in which messages could be missed. */
  #completeSince = Number.NEGATIVE_INFINITY;

  constructor(options: SubscriptionsOptions) {
    this.#options = options;
    const { settings } = options;
    this.context = {
      budget: new ByteBudget(settings.bufferBytes),
      discards: new Discards(maxCountedSubjects),
      settings: {
        ...queueDefaults,
        batchTargetMs: Math.min(queueDefaults.batchTargetMs, settings.subscriberTimeoutMs / 4),
        sessionLostCode: errorTable.session_lost.sqlstate,
        random: Math.random,
      },
    };
    this.kept = new TakeoverBuffer({ ...settings, cleanTakeoverMs }, performance.now());
  }

  /**
   * Subjects to subscribe to at NATS. Within a role, one subject receives for all that it covers. The receivers of a
   * role do not depend on the subscriptions of other roles.
   */
  get receivers(): ReadonlySet<string> {
    return new Set(this.#byReceiver.keys());
  }

  /**
   * Total of messages that should have been run after a takeover but were not kept for lack of memory. The previous
   * leader may have handled them.
   */
  get missing(): number {
    return this.#missing;
  }

  /** Receive times of messages that are not done. */
  get unfinished(): Unfinished {
    const all: (readonly [id: bigint, at: number])[] = [];
    for (const [id, { queue }] of this.#states) {
      if (queue?.oldestReceivedAt !== undefined) all.push([id, queue.oldestReceivedAt]);
    }
    all.sort(([, one], [, other]) => one - other);
    const since = performance.now() - leaderHeartbeatMs;
    const behind = all.slice(0, maxToldBehind).filter(([, at]) => at < since);
    const times = [all[behind.length]?.[1]];
    // During a takeover, the kept messages are unfinished messages of this process.
    if (this.#takeover !== undefined) times.push(this.kept.oldestReceivedAt);
    const known = times.filter((at) => at !== undefined);
    return { oldestAt: known.length === 0 ? undefined : Math.min(...known), behind: new Map(behind) };
  }

  *counts(): Generator<SubscriptionCounts> {
    for (const { subscription, queue, totals, received, repeated, lostConnections } of this.#states.values()) {
      const { id, functionName, subject } = subscription;
      const saved = this.#options.saved.countsOf(id);
      yield {
        ...{ id, functionName, subject, received, repeated, lostConnections, ...totals },
        queuedMessages: queue?.length ?? 0,
        queuedBytes: queue?.bytes ?? 0,
        // `saved` includes saved messages that the queue has fetched, which `queue.oldestReceivedAt` leaves out.
        oldestReceivedAt: earliest(queue?.oldestReceivedAt, saved.oldestAt),
        savedMessages: saved.messages,
        savedBytes: saved.bytes,
      };
    }
  }

  /** Replaces the set of subscriptions; those that remain keep their queues. @returns subscriptions that have ended */
  configure(subscriptions: readonly Subscription[]): readonly bigint[] {
    const ended: bigint[] = [];
    const wanted = new Map(subscriptions.map((subscription) => [subscription.id, subscription]));
    for (const [id, known] of this.#states) {
      const now = wanted.get(id);
      if (now !== undefined) {
        // The owner of a wrapper can change: queued messages then run as the new role.
        known.subscription = now;
        if (known.queue !== undefined) known.queue.subscription = now;
        continue;
      }
      this.#states.delete(id);
      ended.push(id);
      if (known.queue !== undefined) this.#term?.scheduler.remove(known.queue);
      this.#options.runner.forget(known.subscription);
    }
    for (const subscription of subscriptions) {
      if (this.#states.has(subscription.id)) continue;
      const known: SubscriptionState = {
        subscription,
        receiver: subscription.subject,
        formerReceivers: new Set(),
        queue: undefined,
        received: 0,
        repeated: 0,
        lostConnections: 0,
        totals: newTotals(),
      };
      this.#states.set(subscription.id, known);
      if (this.#term !== undefined) this.#open(known, this.#term, false);
    }
    const subjects = new Set(subscriptions.map(({ subject }) => subject));
    for (const refused of this.#refused) {
      if (subjects.has(refused) || [...subjects].some((subject) => covers(refused, subject))) continue;
      this.#refused.delete(refused);
      this.#routes.clear();
    }
    this.#updateReceivers();
    return ended;
  }

  /** Records subjects that the NATS server refuses: the subscriptions that they covered get receivers of their own. */
  addRefused(subjects: Iterable<string>): void {
    for (const subject of subjects) this.#refused.add(subject);
    this.#routes.clear();
    this.#updateReceivers();
  }

  /**
   * Removes the former receivers. Called when the NATS server has processed all {@link receivers}: everything that it
   * sent before has arrived, and what it sent in between has arrived through both.
   */
  removeFormerReceivers(): void {
    for (const { formerReceivers } of this.#states.values()) formerReceivers.clear();
    this.#indexByReceiver();
  }

  /**
   * Counts a lost connection, after which messages of each subscription may be missing.
   *
   * @returns subjects of all subscriptions
   */
  countLostConnection(): readonly string[] {
    for (const known of this.#states.values()) known.lostConnections += 1;
    return [...new Set([...this.#states.values()].map(({ subscription: { subject } }) => subject))];
  }

  /** Computes the receiver of each subscription. A replaced receiver stays in use as a former receiver. */
  #updateReceivers(): void {
    const subjects = new Map<string, string[]>();
    for (const { subscription } of this.#states.values()) addTo(subjects, subscription.runAs, subscription.subject);
    const receivers = this.#receiversOfRoles(subjects);
    for (const known of this.#states.values()) {
      const { runAs, subject } = known.subscription;
      const receiver = receivers.get(runAs)!.get(subject)!;
      if (receiver === known.receiver) continue;
      // A new subscription has no former receiver.
      if (this.#byReceiver.get(known.receiver)?.has(known) === true) known.formerReceivers.add(known.receiver);
      known.formerReceivers.delete(receiver);
      known.receiver = receiver;
    }
    this.#indexByReceiver();
  }

  /** Receivers by role and subject, computed again only for roles whose subjects have changed. */
  #receiversOfRoles(
    subjects: ReadonlyMap<string, readonly string[]>,
  ): ReadonlyMap<string, ReadonlyMap<string, string>> {
    const before = new Map(this.#routes);
    this.#routes.clear();
    for (const [role, ofRole] of subjects) {
      const key = ofRole.join(" ");
      const known = before.get(role);
      this.#routes.set(role, known?.key === key ? known : { key, receivers: receiversOf(ofRole, this.#refused) });
    }
    return new Map([...this.#routes].map(([role, { receivers }]) => [role, receivers]));
  }

  #indexByReceiver(): void {
    this.#byReceiver.clear();
    for (const known of this.#states.values()) {
      for (const subject of [known.receiver, ...known.formerReceivers]) {
        let received = this.#byReceiver.get(subject);
        if (received === undefined) this.#byReceiver.set(subject, (received = new ReceiverMatches()));
        received.add(known);
      }
    }
  }

  /** Puts a received message into the queues of its subscriptions. @param receiver subject through which it arrived */
  deliver(receiver: string, message: InboundMessage): void {
    const all = this.#byReceiver.get(receiver)?.of(message.subject, receiver);
    if (all === undefined || all.length === 0) return;
    const holders: QueueMemory[] = [];
    for (const known of all) {
      known.received += 1;
      known.queue?.offer(message, { holders });
    }
    if (this.#term === undefined) {
      const ids = all.map(({ subscription }) => subscription.id);
      this.kept.add(message, ids, this.#takeover !== undefined);
    } else if (this.context.budget.isCrowded) this.#spillSoon(this.#term);
  }

  /**
   * Starts a takeover: messages that arrive are kept, as messages of the leader, until {@link lead} is called, once the
   * table of saved messages was read.
   */
  startTakeover(afterCleanEnd: boolean): void {
    this.#takeover = { afterCleanEnd };
  }

  /**
   * Starts to run messages: first saved ones, then kept ones, then new ones. Must follow {@link startTakeover}.
   *
   * @param saved subscriptions that have saved messages
   * @param onFenced called when the fence has refused a step because another process is the leader
   */
  lead(epoch: bigint, saved: ReadonlySet<bigint>, onFenced: () => void): TakenOver {
    const { afterCleanEnd } = this.#takeover!;
    this.#takeover = undefined;
    const scheduler = new QueueScheduler(this.#options.settings.subscriberSessions);
    const term = { epoch, scheduler, onFenced };
    this.#term = term;
    scheduler.onReady = () => this.#pumpSoon();
    for (const known of this.#states.values()) this.#open(known, term, saved.has(known.subscription.id));
    const kept = this.kept.takeOver({ afterCleanEnd });
    for (const { message, subscriptions } of kept) {
      const holders: QueueMemory[] = [];
      for (const id of subscriptions) {
        const known = this.#states.get(id);
        if (known?.queue?.offer(message, { holders, isKept: true }) === true) known.repeated += 1;
      }
    }
    if (this.context.budget.isCrowded) this.#spillSoon(term);
    return { repeated: kept.length, missing: this.#takeMissing() };
  }

  /** Marks subscriptions for which other processes have saved messages, so that their queues fetch them. */
  expectSaved(saved: readonly bigint[]): void {
    for (const id of saved) this.#states.get(id)?.queue?.expectSaved();
  }

  /**
   * Returns the messages that were not run, in order of arrival, and no longer keeps them. For the shutdown, after
   * {@link stop}.
   *
   * @param others messages that other processes have kept too
   */
  takeUnfinished(others?: OthersHave): readonly Unsaved[] {
    const taking = this.#takeover ?? (others?.until === Number.NEGATIVE_INFINITY ? others : undefined);
    this.stopLeading();
    const own = taking === undefined ? this.kept.takeOwn(others?.until) : this.kept.takeOver(taking);
    return own.flatMap(eachSubscription);
  }

  /** Counts messages as discarded, because no process will run them. */
  discard(messages: readonly Unsaved[]): void {
    for (const { message } of messages) this.context.discards.add(message.subject);
  }

  /** Counts of missing messages by subject, without subscriptions that have ended, whose messages are not run. */
  #takeMissing(): ReadonlyMap<string, number> {
    const bySubject = new Map<string, number>();
    for (const [id, messages] of this.kept.takeMissing()) {
      const subject = this.#states.get(id)?.subscription.subject;
      if (subject === undefined) continue;
      bySubject.set(subject, (bySubject.get(subject) ?? 0) + messages);
      this.#missing += messages;
    }
    return bySubject;
  }

  /** Stops leading: keeps the messages that are not done, because the next leader may end soon. */
  stopLeading(): void {
    this.#takeover = undefined;
    const term = this.#term;
    if (term === undefined) return;
    const unfinished = new Map<InboundMessage, bigint[]>();
    for (const { subscription, queue } of this.#states.values()) {
      for (const message of queue?.unfinished ?? []) addTo(unfinished, message, subscription.id);
    }
    this.#endTerm(term);
    const ordered = [...unfinished].sort(([one], [other]) => one.receivedAt - other.receivedAt);
    // After a gap in reception, the buffer is complete only since the end of the gap, even if it gets older messages.
    this.kept.restart(Math.max(ordered[0]?.[0].receivedAt ?? performance.now(), this.#completeSince));
    for (const [message, subscriptions] of ordered) this.kept.add(message, subscriptions, true);
  }

  /**
   * Keeps messages that arrive from now on for the next leader, which may be this process. Called when this process may
   * miss messages: to run later ones before those that only another process has received would break the order.
   */
  hold(): void {
    this.#term?.scheduler.hold();
  }

  /** Notes that messages may have been missed. @param until end of the gap in reception */
  noteGap(until: number): void {
    this.#completeSince = until;
    this.kept.restart(until);
  }

  /** Messages that the leader has not received, and so will not run. */
  get unknownToLeader(): readonly Unsaved[] {
    return this.kept.unknownToLeader.flatMap(eachSubscription);
  }

  /** Forgets the first `saved` messages of {@link unknownToLeader}, which were saved for the leader. */
  forgetSaved(all: readonly Unsaved[], saved: number): void {
    const handedOver = new Set(all.slice(0, saved).map(({ message }) => message));
    // The last message may be saved for only some of its subscriptions.
    if (saved < all.length) handedOver.delete(all[saved]!.message);
    this.kept.remove(handedOver);
  }

  /** Ends pauses that wait for Postgres, because it answers again. */
  wake(): void {
    this.#term?.scheduler.wake();
  }

  /**
   * Adds a queue of a stream subscription to the scheduler, which shares the sessions among it and all others.
   *
   * @returns function that removes the queue; undefined unless this process is the leader
   */
  addStreamQueue(queue: SubscriptionQueue): (() => void) | undefined {
    const term = this.#term;
    if (term === undefined) return undefined;
    term.scheduler.add(queue);
    return () => term.scheduler.remove(queue);
  }

  /** Waits until all messages that may run are done ({@link hold} excludes later ones), or the signal is aborted. */
  async drain(signal: AbortSignal): Promise<void> {
    if (this.#term === undefined || signal.aborted) return;
    await Promise.race([this.#term.scheduler.drain(), whenAborted(signal)]);
  }

  /** Starts no more steps. Resolves when running steps have ended, or the signal is aborted. */
  async stop(signal: AbortSignal): Promise<void> {
    const scheduler = this.#term?.scheduler;
    if (scheduler === undefined) return;
    scheduler.stop();
    await Promise.race([Promise.all(this.#running), whenAborted(signal)]);
    clearTimeout(this.#timer);
  }

  #open(known: SubscriptionState, { scheduler }: LeadershipTerm, hasSaved: boolean): void {
    known.queue = new SubscriptionQueue(known.subscription, this.context, { hasSaved, totals: known.totals });
    scheduler.add(known.queue);
  }

  #endTerm(term: LeadershipTerm): void {
    this.#term = undefined;
    this.#options.saved.stopLeading();
    clearTimeout(this.#timer);
    for (const known of this.#states.values()) {
      if (known.queue !== undefined) term.scheduler.remove(known.queue);
      known.queue = undefined;
    }
  }

  #spillSoon(term: LeadershipTerm): void {
    if (this.#isSpilling || performance.now() < this.#nextSpillAt) return;
    this.#isSpilling = true;
    const running = this.#spill(term).finally(() => {
      this.#isSpilling = false;
      this.#running.delete(running);
    });
    this.#running.add(running);
  }

  /** Spills messages to the table until memory is below the limit, starting with the largest queue. */
  async #spill(term: LeadershipTerm): Promise<void> {
    const { budget } = this.context;
    const { saved, rareLog } = this.#options;
    while (this.#term === term && budget.isCrowded) {
      // Messages that arrive in one turn of the event loop are written by one statement.
      await new Promise((resolve) => setImmediate(resolve));
      const rooms = saved.roomBytes(this.#roles());
      const queues = [...this.#states.values()].flatMap(({ queue }) => queue ?? []);
      queues.sort((one, other) => other.bytes - one.bytes);
      let step: SpillStep | undefined;
      const queue = queues.find((each) => {
        const roomBytes = rooms.get(each.subscription.runAs) ?? 0;
        if (roomBytes > 0) step = each.takeSpill(saveChunkBytes, roomBytes);
        return step !== undefined;
      });
      if (queue === undefined || step === undefined) {
        this.#nextSpillAt = performance.now() + queueDefaults.batchPauseMinMs;
        return;
      }
      const spilled = await saved.spill(step, term.epoch);
      queue.onSpilled(step, spilled.kind === "spilled" ? spilled.savedIds : undefined);
      if (spilled.kind === "spilled") continue;
      this.#nextSpillAt = performance.now() + leaderHeartbeatMs;
      if (spilled.kind === "failed") {
        rareLog.warn("cannot save messages for which there is no memory", errorText(spilled.error));
      } else if (this.#term === term) term.onFenced();
      return;
    }
  }

  #roles(): ReadonlyMap<string, readonly bigint[]> {
    const roles = new Map<string, bigint[]>();
    for (const { subscription } of this.#states.values()) addTo(roles, subscription.runAs, subscription.id);
    return roles;
  }

  #pump(): void {
    const term = this.#term;
    if (term === undefined) return;
    clearTimeout(this.#timer);
    for (;;) {
      const step = term.scheduler.next(performance.now());
      if (step.kind !== "wait") {
        const running = this.#run(term, step);
        this.#running.add(running);
        void running.finally(() => this.#running.delete(running));
        continue;
      }
      if (Number.isFinite(step.waitMs)) this.#timer = setTimeout(() => this.#pump(), step.waitMs);
      return;
    }
  }

  async #run(term: LeadershipTerm, step: Step): Promise<void> {
    const outcome = await this.#outcomeOf(term, step);
    term.scheduler.onOutcome(step, outcome, performance.now());
    const isOfStream = step.subscription.kind === "stream";
    if (!isOfStream && outcome.kind === "deposed" && this.#term === term) term.onFenced();
    if (step.kind === "batch" && (outcome.kind === "committed" || outcome.kind === "partly")) {
      const done = outcome.kind === "committed" ? step.messages.length : outcome.committed;
      if (done > 0) this.#options.onBatch(done, outcome.durationMs);
      const deleted = Math.min(done, step.savedIds.length);
      this.#options.saved.noteDeleted(step.subscription.id, step.messages.slice(0, deleted));
    }
    if (step.kind === "dead_letter" && outcome.kind === "committed") {
      if (step.savedId !== undefined) this.#options.saved.noteDeleted(step.subscription.id, [step.message]);
      const { functionName, subject } = step.subscription;
      const what = `${functionName} on ${subject}: SQLSTATE ${step.error.code}`;
      this.#options.rareLog.warn("a message became a dead letter", what);
    }
    this.#pumpSoon();
  }

  #outcomeOf({ epoch }: LeadershipTerm, step: Step): Promise<Outcome> {
    const { runner, deadLetters, saved } = this.#options;
    switch (step.kind) {
      case "batch":
        return runner.run(step, epoch);
      case "dead_letter":
        return deadLetters.write(step, epoch);
      case "fetch":
        return saved.fetch(step, epoch);
    }
  }
}

function addTo<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

function eachSubscription({ message, subscriptions }: KeptMessage): Unsaved[] {
  return subscriptions.map((subscription) => ({ subscription, message }));
}
