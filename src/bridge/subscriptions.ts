/**
 * The subscriptions of a process: while it leads, messages go through queues to their functions; while another one leads, they
 * are kept for a takeover.
 */
import { performance } from "node:perf_hooks";
import { bridgeConstants, type ServeSettings } from "../../generated/ts/settings/nats.js";
import { errorTable } from "../errors/index.js";
import { whenAborted } from "../runtime/index.js";
import type { Subscription } from "./bindings.js";
import type { DeadLetterWriter } from "./dead-letters.js";
import type { BatchRunner } from "./executor/index.js";
import { type KeptMessage, type OthersHave, TakeoverBuffer, type Unfinished } from "./leadership/index.js";
import { earliest, type InboundMessage } from "./message.js";
import {
  type BatchStep,
  ByteBudget,
  type DeadLetterStep,
  Discards,
  newTotals,
  type Outcome,
  type QueueContext,
  type QueueMemory,
  QueueScheduler,
  type QueueTotals,
  type RequestedRetry,
  type SpillStep,
  type Step,
  SubscriptionQueue,
} from "./queue/index.js";
import type { SavedMessages, Unsaved } from "./saved-messages.js";
import { covers, isWildcard, receiversOf } from "./subjects.js";

const { saveChunkBytes, batchPauseMinMs, leaderHeartbeatMs } = bridgeConstants;

/** What they work with. */
export interface SubscriptionsOptions {
  readonly settings: Pick<
    ServeSettings,
    "subscriberSessions" | "subscriberTimeoutMs" | "bufferBytes" | "takeoverBufferMs"
  >;
  readonly runner: BatchRunner;
  readonly deadLetters: DeadLetterWriter;
  readonly saved: SavedMessages;
  /** The fence has refused a batch: another process leads. */
  onRefused(): void;
  /** All dead letters of a subscription were retried, or have failed again: there may be more. */
  onRetried(): void;
  /** A message has become a dead letter. */
  onDeadLettered(step: DeadLetterStep): void;
  /** A step of a queue that was {@link Subscriptions.host hosted} has ended. */
  onHosted(step: Step, outcome: Outcome): void;
  /** A batch was committed. */
  onBatch(messages: number, durationMs: number): void;
  /** Messages that there is no memory for cannot be written to the table. It is tried again. */
  onNotSpilled(error: unknown): void;
}

/** What is counted of one subscription while this process knows it. What is called a total never falls. */
export interface SubscriptionCounts {
  readonly id: bigint;
  readonly functionName: string;
  /** What it is subscribed to; may hold wildcards. */
  readonly subject: string;
  /** Total: messages that NATS delivered to this process, whether it leads or not. */
  readonly received: number;
  /** Total: messages that were kept, and taken over from another leader, which may have handled them. */
  readonly repeated: number;
  /** Total: how often the connection to NATS was lost while this process led. */
  readonly cuts: number;
  /** Total: messages whose transaction this process committed, without those in dead_letters. */
  readonly committed: number;
  /** Total: messages that failed for good and went to dead_letters. */
  readonly deadLettered: number;
  /** Total: transactions with its messages, whatever became of them. */
  readonly transactions: number;
  /** Total: batches that were halved because one of their messages failed. */
  readonly bisections: number;
  /** Messages that are neither committed nor in dead_letters yet. */
  readonly queuedMessages: number;
  /** What these messages count for where memory is limited, in bytes. */
  readonly queuedBytes: number;
  /** When the oldest of them was received, or saved, by `performance.now()`; undefined: there is none. */
  readonly oldestReceivedAt: number | undefined;
  /** In the table, as far as the process that leads knows. */
  readonly savedMessages: number;
  /** What these count for against `saved_bytes`. */
  readonly savedBytes: number;
}

/** What a process has taken over from the leader before. */
export interface TakenOver {
  /** How many messages it had kept. */
  readonly repeated: number;
  /** How many it would have run, and had no room for, by the subscribed subject. */
  readonly missing: ReadonlyMap<string, number>;
}

interface Known {
  subscription: Subscription;
  /** The subscribed subject over which its messages are received: its own, or one of its role that covers it. */
  receiver: string;
  /** Others over which they came before, as long as the NATS server may not know the present one. */
  readonly formerReceivers: Set<string>;
  queue: SubscriptionQueue | undefined;
  received: number;
  repeated: number;
  /** How often the connection was lost while this process led. */
  cuts: number;
  /** Of all its queues, of earlier terms, too. */
  readonly totals: QueueTotals;
}

/** The subscriptions whose messages one subject at NATS receives: a message is compared with few of very many. */
class Received {
  /** Those of one subject, by that. */
  readonly #literal = new Map<string, Known[]>();
  readonly #wildcards: Known[] = [];

  add(known: Known): void {
    const { subject } = known.subscription;
    if (isWildcard(subject)) this.#wildcards.push(known);
    else addTo(this.#literal, subject, known);
  }

  has(known: Known): boolean {
    const { subject } = known.subscription;
    return (isWildcard(subject) ? this.#wildcards : this.#literal.get(subject))?.includes(known) === true;
  }

  /** Those whose subject a message's own matches. @param receiver the subject over which it came */
  of(subject: string, receiver: string): readonly Known[] {
    const literal = this.#literal.get(subject) ?? [];
    const wildcards = this.#wildcards.filter(
      ({ subscription }) => subscription.subject === receiver || covers(subscription.subject, subject),
    );
    return wildcards.length === 0 ? literal : [...literal, ...wildcards];
  }
}

/** A time in which this process leads. */
interface Term {
  readonly epoch: bigint;
  readonly scheduler: QueueScheduler;
}

export class Subscriptions {
  readonly #options: SubscriptionsOptions;
  /** What all queues share. */
  readonly context: QueueContext;
  /** What is kept while another process leads. */
  readonly kept: TakeoverBuffer;
  readonly #known = new Map<bigint, Known>();
  /** By the subjects over which messages are received. */
  readonly #byReceiver = new Map<string, Received>();
  /** Subjects that the NATS server does not permit. */
  readonly #refused = new Set<string>();
  /** Of each role what was decided last, and for which subjects. */
  readonly #routes = new Map<string, { readonly key: string; readonly receivers: ReadonlyMap<string, string> }>();
  #term: Term | undefined;
  /** This process leads, and does not know yet what was saved. */
  #taking: { readonly afterCleanEnd: boolean } | undefined;
  /** Steps that are being carried out. */
  readonly #running = new Set<Promise<void>>();
  #isPumping = false;
  #isSpilling = false;
  /** Postgres has not taken what was to be written: it is tried again from then on. */
  #spillsFrom = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #missing = 0;
  /** When a while ended in which nothing was received. */
  #receivesSince = Number.NEGATIVE_INFINITY;

  constructor(options: SubscriptionsOptions) {
    this.#options = options;
    const { settings } = options;
    this.context = {
      budget: new ByteBudget(settings.bufferBytes),
      discards: new Discards(bridgeConstants.maxCountedSubjects),
      onRetried: () => options.onRetried(),
      settings: {
        ...bridgeConstants,
        batchTargetMs: Math.min(bridgeConstants.batchTargetMs, settings.subscriberTimeoutMs / 4),
        sessionLostCode: errorTable.session_lost.sqlstate,
        random: Math.random,
      },
    };
    this.kept = new TakeoverBuffer({ ...bridgeConstants, ...settings }, performance.now());
  }

  /**
   * The subjects to subscribe to at NATS. Of the functions of one role a single one receives for all that it covers; roles
   * do not depend on what others subscribe to.
   */
  get receivers(): ReadonlySet<string> {
    return new Set(this.#byReceiver.keys());
  }

  /** Messages that were to be run at a takeover, and for which there had been no room. The leader before may have done them. */
  get missing(): number {
    return this.#missing;
  }

  /** When messages were received that are not done. */
  get unfinished(): Unfinished {
    const all: (readonly [id: bigint, at: number])[] = [];
    for (const [id, { queue }] of this.#known) {
      if (queue?.oldestReceivedAt !== undefined) all.push([id, queue.oldestReceivedAt]);
    }
    all.sort(([, one], [, other]) => one - other);
    const since = performance.now() - leaderHeartbeatMs;
    const behind = all.slice(0, bridgeConstants.maxToldBehind).filter(([, at]) => at < since);
    const times = [all[behind.length]?.[1]];
    // What it has kept it is going to run.
    if (this.#taking !== undefined) times.push(this.kept.oldestReceivedAt);
    const known = times.filter((at) => at !== undefined);
    return { oldestAt: known.length === 0 ? undefined : Math.min(...known), behind: new Map(behind) };
  }

  /** What is counted. */
  *counts(): Generator<SubscriptionCounts> {
    for (const { subscription, queue, totals, received, repeated, cuts } of this.#known.values()) {
      const { id, functionName, subject } = subscription;
      const saved = this.#options.saved.countsOf(id);
      yield {
        ...{ id, functionName, subject, received, repeated, cuts, ...totals },
        queuedMessages: queue?.length ?? 0,
        queuedBytes: queue?.bytes ?? 0,
        // The page of saved ones that is being run is still in the table, too.
        oldestReceivedAt: earliest(queue?.oldestReceivedAt, saved.oldestAt),
        savedMessages: saved.messages,
        savedBytes: saved.bytes,
      };
    }
  }

  /** These are the subscriptions from now on. Those that stay go on undisturbed. @returns those that have ended */
  configure(subscriptions: readonly Subscription[]): readonly bigint[] {
    const ended: bigint[] = [];
    const wanted = new Map(subscriptions.map((subscription) => [subscription.id, subscription]));
    for (const [id, known] of this.#known) {
      const now = wanted.get(id);
      if (now !== undefined) {
        // The role that a function runs as can change with the owner of its wrapper: what waits is run as the new one.
        known.subscription = now;
        if (known.queue !== undefined) known.queue.subscription = now;
        continue;
      }
      this.#known.delete(id);
      ended.push(id);
      if (known.queue !== undefined) this.#term?.scheduler.remove(known.queue);
      this.#options.runner.forget(known.subscription);
    }
    for (const subscription of subscriptions) {
      if (this.#known.has(subscription.id)) continue;
      const known: Known = {
        subscription,
        receiver: subscription.subject,
        formerReceivers: new Set(),
        queue: undefined,
        received: 0,
        repeated: 0,
        cuts: 0,
        totals: newTotals(),
      };
      this.#known.set(subscription.id, known);
      if (this.#term !== undefined) this.#open(known, this.#term, false);
    }
    const subjects = new Set(subscriptions.map(({ subject }) => subject));
    for (const refused of this.#refused) {
      if (subjects.has(refused) || [...subjects].some((subject) => covers(refused, subject))) continue;
      this.#refused.delete(refused);
      this.#routes.clear();
    }
    this.#route();
    return ended;
  }

  /** The NATS server does not permit subscriptions to these: the functions that they cover receive by themselves. */
  refused(subjects: Iterable<string>): void {
    for (const subject of subjects) this.#refused.add(subject);
    this.#routes.clear();
    this.#route();
  }

  /**
   * The NATS server knows all {@link receivers}: what it had before has come, and from now on everything comes over the
   * present ones. What it sent in between has come over both.
   */
  settleReceivers(): void {
    for (const { formerReceivers } of this.#known.values()) formerReceivers.clear();
    this.#index();
  }

  /** The connection was lost: some messages may be missing of each. @returns their subjects */
  cut(): readonly string[] {
    for (const known of this.#known.values()) known.cuts += 1;
    return [...new Set([...this.#known.values()].map(({ subscription: { subject } }) => subject))];
  }

  /** Decides over which subject each receives. Where that changes, the one before goes on for the time being. */
  #route(): void {
    const subjects = new Map<string, string[]>();
    for (const { subscription } of this.#known.values()) addTo(subjects, subscription.runAs, subscription.subject);
    const receivers = this.#receiversOfRoles(subjects);
    for (const known of this.#known.values()) {
      const { runAs, subject } = known.subscription;
      const receiver = receivers.get(runAs)!.get(subject)!;
      if (receiver === known.receiver) continue;
      // A new one has none before.
      if (this.#byReceiver.get(known.receiver)?.has(known) === true) known.formerReceivers.add(known.receiver);
      known.formerReceivers.delete(receiver);
      known.receiver = receiver;
    }
    this.#index();
  }

  /** Decided anew only for roles of which something has changed. */
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

  #index(): void {
    this.#byReceiver.clear();
    for (const known of this.#known.values()) {
      for (const subject of [known.receiver, ...known.formerReceivers]) {
        let received = this.#byReceiver.get(subject);
        if (received === undefined) this.#byReceiver.set(subject, (received = new Received()));
        received.add(known);
      }
    }
  }

  /** A message was received. @param receiver the subject at NATS over which it came */
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
      this.kept.add(message, ids, this.#taking !== undefined);
    } else if (this.context.budget.isCrowded) this.#spillSoon(this.#term);
  }

  /** This process leads, and will run what it has once it knows what was saved. */
  take(afterCleanEnd: boolean): void {
    this.#taking = { afterCleanEnd };
  }

  /**
   * After {@link take}: runs what was saved, then what it has kept, and from now on what it receives.
   *
   * @param saved subscriptions that have messages in the table
   */
  lead(epoch: bigint, saved: ReadonlySet<bigint>): TakenOver {
    const { afterCleanEnd } = this.#taking!;
    this.#taking = undefined;
    const scheduler = new QueueScheduler(this.#options.settings.subscriberSessions);
    const term = { epoch, scheduler };
    this.#term = term;
    scheduler.onReady = () => this.#pumpSoon();
    for (const known of this.#known.values()) this.#open(known, term, saved.has(known.subscription.id));
    const kept = this.kept.takeOver({ afterCleanEnd });
    for (const { message, subscriptions } of kept) {
      const holders: QueueMemory[] = [];
      for (const id of subscriptions) {
        const known = this.#known.get(id);
        if (known?.queue?.offer(message, { holders, isKept: true }) === true) known.repeated += 1;
      }
    }
    if (this.context.budget.isCrowded) this.#spillSoon(term);
    return { repeated: kept.length, missing: this.#takeMissing() };
  }

  /** Other processes have saved messages, which this one is to run. */
  expectSaved(saved: ReadonlySet<bigint>): void {
    for (const id of saved) this.#known.get(id)?.queue?.expectSaved();
  }

  /**
   * Ends for good, after {@link stop}: what has not been run, in order of arrival.
   *
   * @param others what they have of what is kept for a takeover
   */
  leave(others?: OthersHave): readonly Unsaved[] {
    const taking = this.#taking ?? (others?.until === Number.NEGATIVE_INFINITY ? others : undefined);
    this.follow();
    const own = taking === undefined ? this.kept.takeOwn(others?.until) : this.kept.takeOver(taking);
    return own.flatMap(eachSubscription);
  }

  /** Messages that nobody runs any more. */
  discard(messages: readonly Unsaved[]): void {
    for (const { message } of messages) this.context.discards.add(message.subject);
  }

  /** By the subscribed subject. Of a subscription that has ended nothing would have been run. */
  #takeMissing(): ReadonlyMap<string, number> {
    const bySubject = new Map<string, number>();
    for (const [id, messages] of this.kept.takeMissing()) {
      const subject = this.#known.get(id)?.subscription.subject;
      if (subject === undefined) continue;
      bySubject.set(subject, (bySubject.get(subject) ?? 0) + messages);
      this.#missing += messages;
    }
    return bySubject;
  }

  /** This process leads no more: what it has not done is kept, as the next leader may end soon. */
  follow(): void {
    this.#taking = undefined;
    const term = this.#term;
    if (term === undefined) return;
    const unfinished = new Map<InboundMessage, bigint[]>();
    for (const { subscription, queue } of this.#known.values()) {
      for (const message of queue?.unfinished ?? []) addTo(unfinished, message, subscription.id);
    }
    this.#endTerm(term);
    const ordered = [...unfinished].sort(([one], [other]) => one.receivedAt - other.receivedAt);
    // What was received before a gap does not make complete what is there since then.
    this.kept.restart(Math.max(ordered[0]?.[0].receivedAt ?? performance.now(), this.#receivesSince));
    for (const [message, subscriptions] of ordered) this.kept.add(message, subscriptions, true);
  }

  /**
   * Nothing is received for a while: what comes after that while is kept for the next leader, which may be this process. To
   * run it before what another one has of that while would be out of order.
   */
  hold(): void {
    this.#term?.scheduler.hold();
  }

  /** Nothing was received for a while, up to now. */
  receivesAgain(since: number): void {
    this.#receivesSince = since;
    this.kept.restart(since);
  }

  /** What the leader has not received, and will not run. */
  get unknownToLeader(): readonly Unsaved[] {
    return this.kept.unknownToLeader.flatMap(eachSubscription);
  }

  /** The first of {@link unknownToLeader} were saved, for the leader. */
  handedOver(all: readonly Unsaved[], saved: number): void {
    const handedOver = new Set(all.slice(0, saved).map(({ message }) => message));
    // Of one with several subscriptions some may not be saved.
    if (saved < all.length) handedOver.delete(all[saved]!.message);
    this.kept.dropped(handedOver);
  }

  /** Subscriptions, to streams too, with dead letters that are being handled again. */
  get retrying(): readonly bigint[] {
    return this.#term?.scheduler.retrying ?? [];
  }

  /** Dead letters that are to be handled again. */
  retry(requested: readonly RequestedRetry[]): void {
    this.#term?.scheduler.retry(requested);
  }

  /** Postgres answers: what waits for it goes on. */
  wake(): void {
    this.#term?.scheduler.wake();
  }

  /** Runs a queue of a subscription to a stream, in the turns of all others. Undefined: this process does not lead. */
  host(queue: SubscriptionQueue): (() => void) | undefined {
    const term = this.#term;
    if (term === undefined) return undefined;
    term.scheduler.add(queue);
    return () => term.scheduler.remove(queue);
  }

  /** Waits until everything is done that was received before {@link hold}, or the signal is aborted. */
  async drain(signal: AbortSignal): Promise<void> {
    if (this.#term === undefined || signal.aborted) return;
    await Promise.race([this.#term.scheduler.drain(), whenAborted(signal)]);
  }

  /** Runs nothing more. Resolves when nothing runs any more, or the signal is aborted. */
  async stop(signal: AbortSignal): Promise<void> {
    const scheduler = this.#term?.scheduler;
    if (scheduler === undefined) return;
    scheduler.stop();
    await Promise.race([Promise.all(this.#running), whenAborted(signal)]);
    clearTimeout(this.#timer);
  }

  #open(known: Known, { scheduler }: Term, hasSaved: boolean): void {
    known.queue = new SubscriptionQueue(known.subscription, this.context, hasSaved, known.totals);
    scheduler.add(known.queue);
  }

  #endTerm(term: Term): void {
    this.#term = undefined;
    this.#options.saved.end();
    clearTimeout(this.#timer);
    for (const known of this.#known.values()) {
      if (known.queue !== undefined) term.scheduler.remove(known.queue);
      known.queue = undefined;
    }
  }

  /** In a turn of its own, so that what arrives together is handed out together. */
  #pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  #spillSoon(term: Term): void {
    if (this.#isSpilling || performance.now() < this.#spillsFrom) return;
    this.#isSpilling = true;
    const running = this.#spill(term).finally(() => {
      this.#isSpilling = false;
      this.#running.delete(running);
    });
    this.#running.add(running);
  }

  /** Writes messages to the table until there is memory again, those of the queue first that has most. */
  async #spill(term: Term): Promise<void> {
    const { budget } = this.context;
    const { saved, onNotSpilled, onRefused } = this.#options;
    while (this.#term === term && budget.isCrowded) {
      // What arrives together is written together.
      await new Promise((resolve) => setImmediate(resolve));
      const rooms = saved.roomBytes(this.#roles());
      const queues = [...this.#known.values()].flatMap(({ queue }) => queue ?? []);
      queues.sort((one, other) => other.bytes - one.bytes);
      let step: SpillStep | undefined;
      const queue = queues.find((each) => {
        const roomBytes = rooms.get(each.subscription.runAs) ?? 0;
        if (roomBytes > 0) step = each.takeSpill(saveChunkBytes, roomBytes);
        return step !== undefined;
      });
      if (queue === undefined || step === undefined) {
        this.#spillsFrom = performance.now() + batchPauseMinMs;
        return;
      }
      const spilled = await saved.spill(step, term.epoch);
      queue.settleSpill(step, spilled.kind === "spilled" ? spilled.savedIds : undefined);
      if (spilled.kind === "spilled") continue;
      this.#spillsFrom = performance.now() + leaderHeartbeatMs;
      if (spilled.kind === "failed") onNotSpilled(spilled.error);
      else if (this.#term === term) onRefused();
      return;
    }
  }

  /** The subscriptions of each role. */
  #roles(): ReadonlyMap<string, readonly bigint[]> {
    const roles = new Map<string, bigint[]>();
    for (const { subscription } of this.#known.values()) addTo(roles, subscription.runAs, subscription.id);
    return roles;
  }

  #pump(): void {
    const term = this.#term;
    if (term === undefined) return;
    clearTimeout(this.#timer);
    for (;;) {
      const step = term.scheduler.next(performance.now());
      if (step.kind !== "wait") {
        const running = this.#carryOut(term, step);
        this.#running.add(running);
        void running.finally(() => this.#running.delete(running));
        continue;
      }
      if (Number.isFinite(step.waitMs)) this.#timer = setTimeout(() => this.#pump(), step.waitMs);
      return;
    }
  }

  async #carryOut(term: Term, step: Step): Promise<void> {
    const outcome = await this.#outcomeOf(term, step);
    term.scheduler.settle(step, outcome, performance.now());
    const isHosted = step.subscription.kind === "stream";
    if (isHosted) this.#options.onHosted(step, outcome);
    if (!isHosted && outcome.kind === "deposed" && this.#term === term) this.#options.onRefused();
    if (step.kind !== "fetch" && isRetry(step)) {
      this.#pumpSoon();
      return;
    }
    if (step.kind === "batch" && (outcome.kind === "committed" || outcome.kind === "partly")) {
      const done = outcome.kind === "committed" ? step.messages.length : outcome.committed;
      if (done > 0) this.#options.onBatch(done, outcome.durationMs);
      const deleted = Math.min(done, step.savedIds.length);
      this.#options.saved.finished(step.subscription.id, step.messages.slice(0, deleted));
    }
    if (step.kind === "dead_letter" && outcome.kind === "committed") {
      if (step.savedId !== undefined) this.#options.saved.finished(step.subscription.id, [step.message]);
      this.#options.onDeadLettered(step);
    }
    this.#pumpSoon();
  }

  #outcomeOf({ epoch }: Term, step: Step): Promise<Outcome> {
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

/** About a dead letter that was to be tried again: it counts as no other message. */
function isRetry(step: BatchStep | DeadLetterStep): boolean {
  return (step.kind === "batch" ? step.messages[0] : step.message)?.deadLetterId !== undefined;
}

/** Adds to the list of the key. */
function addTo<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

function eachSubscription({ message, subscriptions }: KeptMessage): Unsaved[] {
  return subscriptions.map((subscription) => ({ subscription, message }));
}
