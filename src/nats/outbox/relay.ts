/**
 * The relay of the outbox as a pure state machine. It decides what is read next, what is published next, and how
 * results are handled. It performs no I/O and has no clock.
 *
 * Two kinds of steps can run at the same time: one **turn** in Postgres, which saves the position, writes dead letters
 * and reads; and any number of **publishes**.
 *
 * `reading.ts` keeps the messages read and the position: the main series, and the series of roles and routes that lag
 * behind it. `publish-window.ts` keeps the messages that can be published. A **route** is a part of NATS that can be
 * unavailable on its own.
 *
 * Rules:
 * - The position passes a message only when NATS has it or when it is a dead letter. A turn that writes dead letters
 * also saves their ids, so that the next relay skips those that are still in the outbox.
 * - No message is published before the turn that read it has durably committed. Then everything that the snapshot saw
 * is durable, too.
 * - At most one message of a lane (a role, a destination and a key) is in flight. A refused message is therefore never
 * overtaken before it is written as a dead letter.
 * - Publishing stops when no turn was answered for `publishWithinMs`, since another relay may be active.
 * - A refused message is retried after a pause, up to `tries` times. While a destination refuses all messages of a
 * role, each of them has one try. After `maxRefused` refusals in a row, each message of the role has one try, until one
 * is accepted.
 * - A route that has not answered for `awayMs` although NATS is connected is **away**. Its messages leave memory, and
 * its position waits on its own. One of its messages is retried periodically as a probe. When NATS accepts or refuses
 * the probe, the others are read again.
 * - Roles share memory and the publishes in flight, and polls alternate with pages. A slow or busy role, destination or
 * domain therefore delays only itself.
 * - A message whose stream does not exist is retried for `missingStreamMs` after it was enqueued; its route is away
 * until then. It is refused at once if its role already has `maxAwayRoutes` other routes away.
 * - A message becomes a dead letter if it cannot be determined whether its stream has it (`doubt.ts`).
 * - A message that ends its connection is no outage. All messages in flight at the end of a connection are **suspects**.
 * They are tried first on the next one: a **trial** of a single suspect, then of twice as many, as long as NATS
 * answers. Nothing else is sent during a trial, at most for `trialMs`. A message in whose own trial the connection ends
 * pauses, so that the connection lasts for others, and is tried alone again. If NATS could be reached again at once, it
 * has had one of its `tries`, and its role pauses for half that time. Otherwise there was an outage.
 * - A message is never dead-lettered while the previous relay may still be publishing it.
 * - A replayed message is skipped while its original is unfinished, because the original will be published.
 * - Messages due later are in a table of their own. Each poll reports the earliest due time of each role among those
 * that the previous poll did not see, so that none is missed, in any order of commits. A turn then moves the due
 * messages to the outbox, some of each role.
 */
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import { backoffMs, Fifo } from "../../foundation/runtime/index.js";
import type { Doubt } from "./doubt.js";
import { type DueFound, type DueTimes, type PaceSettings, PollPace, paceDefaults } from "./poll-pace.js";
import type { OutboxMessage, OutboxPosition, PublishRefusal } from "./position.js";
import { PublishWindow, windowDefaults } from "./publish-window.js";
import {
  type Entry,
  OutboxReading,
  type PageFound,
  type PageRead,
  type PollFound,
  type PollRead,
  readingDefaults,
} from "./reading.js";

export type { OutboxMessage, OutboxPosition, PublishRefusal, Snapshot } from "./position.js";
export type { PageFound, PageRead, PollFound, PollRead, SeriesName } from "./reading.js";

/** Message that becomes a dead letter. */
export interface DeadOutboxMessage<M> {
  readonly message: M;
  readonly refusal: PublishRefusal;
  readonly attempts: number;
}

/** Read of a turn. */
export type OutboxRead = PollRead | PageRead;

/** Step that runs in Postgres, in one transaction. */
export interface TurnStep<M> {
  readonly kind: "turn";
  /** Number of the turn, if it writes. It writes if `mustSave` is set or if it finds a message. */
  readonly turn: bigint;
  readonly position: OutboxPosition;
  /** Number of messages done at that position since the relay started. */
  readonly done: number;
  readonly mustSave: boolean;
  readonly dead: readonly DeadOutboxMessage<M>[];
  readonly read: OutboxRead | undefined;
  /** Due times of the scheduled messages that the turn moves to the outbox before the read; undefined to move none. */
  readonly dueFrom: DueTimes | undefined;
  /** True if enqueueing transactions must notify from now on, written before the read; undefined if unchanged. */
  readonly asleep: boolean | undefined;
}

/** Step that runs in NATS. */
export interface PublishStep<M> {
  readonly kind: "publish";
  readonly message: M;
  /** Undefined if the message was not published before. */
  readonly doubt: Doubt | undefined;
  /** Time of this publish. */
  readonly at: number;
}

/** Result of a turn. */
export type TurnOutcome<M> =
  | {
      readonly kind: "done";
      /** True if the turn has written, so that its number is used. */
      readonly isSaved: boolean;
      /** Result of the requested read; undefined if the turn had already been saved, so that nothing was read. */
      readonly found?: PollFound<M> | PageFound<M>;
      /** Undefined if the turn had already been saved. */
      readonly due?: DueFound;
    }
  /** Postgres did not answer. The turn may have committed, so it is repeated unchanged. */
  | { readonly kind: "unavailable" }
  /** Another relay has taken over, or this is not the server on which this relay started. */
  | { readonly kind: "deposed" };

/** Result of a publish. */
export type PublishOutcome =
  | {
      readonly kind: "published";
      /**
       * `known`: a message in doubt was already in its stream. `dropped`: the stream dropped it because it knows the id
       * of another message.
       */
      readonly as: "stored" | "known" | "dropped";
    }
  /**
   * NATS is unavailable or did not answer. `connection`: NATS as a whole. `route`: the message's domain, stream or
   * subject does not answer or is full, while the connection works.
   */
  | {
      readonly kind: "unavailable";
      readonly scope: "connection" | "route";
      /** True if the message was sent, so that NATS may have it. */
      readonly mayBeThere: boolean;
    }
  | ({ readonly kind: "refused" } & PublishRefusal)
  /** The message may be in its stream, which cannot be determined: it must not be published again. */
  | ({ readonly kind: "undecided" } & PublishRefusal)
  /** The stream does not exist now. */
  | ({
      readonly kind: "missing";
      /** True if the message was sent, so that a stream may have stored it. */
      readonly mayBeThere: boolean;
    } & PublishRefusal);

/** Settings of {@link OutboxRelay} by default. */
export const relayDefaults = {
  ...readingDefaults,
  ...windowDefaults,
  ...paceDefaults,
  /** Interval at which the position is saved while there is no memory to read more. */
  saveMs: 25,
  /** Time without an answer of Postgres after which a relay stops publishing. */
  publishWithinMs: 5_000,
  /** Maximum number of tries of a message that NATS refuses, before it becomes a dead letter. */
  tries: 5,
  /** Maximum number of dead letters that a turn writes, since other messages wait for the turn. */
  deadMessages: 50,
  /** Maximum number of remembered destinations that refuse all messages, whose next messages have one try. */
  maxRefusing: 1_000,
  /** Number of consecutive refused messages after which each further message of their role is tried once. */
  maxRefused: 100,
  /** First pause after a failure. Pauses double. */
  retryMinMs: 50,
  /** Maximum pause after a failure. */
  retryMaxMs: 2_000,
  /**
   * Time without an answer, while NATS is connected, after which a route (a JetStream domain or a destination) of a
   * role is away: only one of its messages is tried.
   */
  awayMs: 2_000,
  /** Maximum pause between two tries of a route that is away. */
  probeMaxMs: 30_000,
  /** Maximum number of routes of a role that are away. Messages of further ones fill the role's share of memory. */
  maxAwayRoutes: 16,
  /** Maximum duration of a trial. A message that ends its connection does so when the server reads it. */
  trialMs: 1_000,
  /**
   * Pause of a role after one of its messages has ended the connection; the message pauses for twice as long. Longer
   * than a connection must last to be made again without a pause (`connector.ts`).
   */
  suspectPauseMs: 6_000,
};

export interface RelaySettings
  extends Readonly<typeof relayDefaults>,
    PaceSettings,
    Pick<ServeSettings, "missingStreamMs"> {
  /** Time after the takeover during which no message becomes a dead letter. */
  readonly lateMs: number;
}

/** Message that is published again later. */
interface Pausing<M> {
  readonly entry: Entry<M>;
  readonly until: number;
  /** True if a new connection ends the pause. */
  readonly endsOnConnect: boolean;
}

/** Messages during which no others are sent: those of a trial, or those that were in flight before it. */
interface Hold<M> {
  /** Maximum number of messages of the trial; 0 before it. */
  readonly size: number;
  started: number;
  readonly unanswered: Set<PublishStep<M>>;
  until: number;
}

/** Route that is away. */
interface AwayRoute<M> {
  readonly role: string;
  failures: number;
  /** Message that is retried to find out whether the route answers. */
  probe: Entry<M>;
}

export class OutboxRelay<M extends OutboxMessage> {
  readonly #settings: RelaySettings;
  readonly #deadLettersFrom: number;
  readonly #reading: OutboxReading<M>;
  readonly #window: PublishWindow<Entry<M>>;
  readonly #pace: PollPace;
  #turn: bigint;
  /** Number of messages done since the relay started. */
  #done = 0;
  #saved = 0;
  #pendingTurn: TurnStep<M> | undefined;
  /** Turn without an answer, to be repeated unchanged. */
  #unanswered: TurnStep<M> | undefined;
  #turnFailures = 0;
  #turnFrom = 0;
  /** True if the last turn that read was a poll. */
  #hasJustPolled = false;
  /** Start time of the last completed turn (performance.now(), ms). */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  isDeposed = false;
  isEnding = false;
  /** Messages of each lane that wait for its first message, which is ready, in flight, or pausing. */
  readonly #lanes = new Map<string, Fifo<Entry<M>>>();
  readonly #inFlight = new Map<PublishStep<M>, Entry<M>>();
  #pausing: Pausing<M>[] = [];
  /** End of the shortest pause. */
  #pausingUntil = Number.POSITIVE_INFINITY;
  /** Destinations, by role, whose last message was refused for good: keys of {@link targetOf}. */
  readonly #refusing = new Set<string>();
  /** Number of consecutive refused messages by role. */
  readonly #refusals = new Map<string, number>();
  /** Start of the time without an answer, by route: keys of {@link routeOf}. */
  readonly #unansweredSince = new Map<string, number>();
  readonly #away = new Map<string, AwayRoute<M>>();
  /** Suspects that can be tried, the next one last. */
  #suspects: Entry<M>[] = [];
  #hold: Hold<M> | undefined;
  /** Number of suspects in the next trial. */
  #trialSize = 1;
  /** Message in whose trial the connection ended, until NATS is connected again. */
  #accused: Entry<M> | undefined;
  /** True if an attempt to connect has failed since then. */
  #isOutage = false;
  /** Text for the end of the last connection. */
  #endReason = "";
  /** End of the pause of roles one of whose messages has ended the connection. */
  readonly #rolePauses = new Map<string, number>();
  /** Dead letters that are not written yet. */
  #dead: (DeadOutboxMessage<M> & { readonly entry: Entry<M> })[] = [];
  #isConnected = true;

  /**
   * @param position position saved by the previous relay
   * @param turn number of the turn that took over
   * @param now time of the takeover
   */
  constructor(position: OutboxPosition, turn: bigint, now: number, settings: RelaySettings) {
    this.#settings = settings;
    this.#deadLettersFrom = now + settings.lateMs;
    this.#turn = turn;
    this.#reading = new OutboxReading(position, now, settings);
    this.#window = new PublishWindow(settings);
    this.#pace = new PollPace(settings, undefined);
  }

  /** True if all messages read are done, except those of routes that are away, and the position is saved. */
  get isIdle(): boolean {
    const probes = this.#pausing.filter(({ entry }) => this.#away.get(routeOf(entry.message))?.probe === entry);
    return this.#reading.messages === probes.length && this.#pendingTurn === undefined && !this.#hasProgress;
  }

  /** Number of messages read and not done. */
  get waiting(): number {
    return this.#reading.waiting;
  }

  /** First message that the position has not passed. */
  get oldest(): M | undefined {
    return this.#reading.oldest;
  }

  /** Position up to which all messages are done. */
  get position(): OutboxPosition {
    return this.#reading.position;
  }

  /** Polls at once, since a message was enqueued. */
  wake(): void {
    this.#pace.notified();
  }

  /** Called when NATS is connected. Unanswered messages are published again at once. */
  connected(now: number): void {
    if (!this.#isConnected && this.#accused !== undefined) this.#endTrialOf(this.#accused, now);
    this.#accused = undefined;
    this.#isOutage = false;
    this.#isConnected = true;
    this.#unansweredSince.clear();
    this.#endPauses(({ endsOnConnect }) => endsOnConnect);
  }

  /** Called when the connection has ended. @param reason text for dead letters */
  disconnected(reason: string): void {
    this.#isConnected = false;
    this.#endReason = reason;
  }

  /** Called when an attempt to connect failed: the connection has ended because of an outage. */
  unreachable(): void {
    this.#isOutage = true;
  }

  /**
   * Next step; undefined if there is none until {@link readyAt} or until a running step completes. Call it until it
   * returns undefined.
   */
  next(now: number): TurnStep<M> | PublishStep<M> | undefined {
    if (this.isDeposed) return undefined;
    if (this.#pausingUntil <= now) this.#endPauses(({ until }) => until <= now);
    if (this.#hold !== undefined && this.#hold.until <= now) {
      this.#hold.unanswered.clear();
      this.#hold.until = Number.POSITIVE_INFINITY;
    }
    return this.#nextTurn(now) ?? this.#nextPublish(now);
  }

  /** Time from which {@link next} has a step even if no running step completes; Infinity if there is none. */
  get readyAt(): number {
    if (this.isDeposed) return Number.POSITIVE_INFINITY;
    const publishAt = Math.min(this.#pausingUntil, this.#hold?.until ?? Number.POSITIVE_INFINITY);
    return this.#pendingTurn === undefined ? Math.min(publishAt, this.#turnAt) : publishAt;
  }

  completeTurn(step: TurnStep<M>, outcome: TurnOutcome<M>, startedAt: number, now: number): void {
    if (step !== this.#pendingTurn) return;
    this.#pendingTurn = undefined;
    if (outcome.kind === "deposed") {
      this.isDeposed = true;
      return;
    }
    if (outcome.kind === "unavailable") {
      this.#unanswered = step;
      this.#turnFailures += 1;
      this.#turnFrom = now + this.#pauseAfter(this.#turnFailures);
      return;
    }
    this.#unanswered = undefined;
    this.#turnFailures = 0;
    this.#turnFrom = 0;
    this.#confirmedAt = Math.max(this.#confirmedAt, startedAt);
    if (outcome.isSaved) {
      this.#turn = step.turn;
      this.#saved = step.done;
      this.#deadLettersSaved(step.dead.length);
    }
    if (outcome.due !== undefined) this.#pace.endDue(now, step.dueFrom, outcome.due);
    this.#take(step.read, outcome.found, now);
  }

  completePublish(step: PublishStep<M>, outcome: PublishOutcome, now: number): void {
    const entry = this.#inFlight.get(step);
    if (entry === undefined) return;
    this.#inFlight.delete(step);
    const isConnectionLost = outcome.kind === "unavailable" && outcome.scope === "connection";
    const { isSuspect } = entry;
    const isAlone = this.#hold?.started === 1 && this.#hold.unanswered.has(step);
    this.#hold?.unanswered.delete(step);
    entry.isSuspect = isConnectionLost;
    entry.wasAlone = isConnectionLost && (isAlone || entry.wasAlone);
    if (!isSuspect) this.#window.complete(entry, isConnectionLost ? undefined : outcome.kind === "published");
    if (isConnectionLost) {
      this.#hold = undefined;
      this.#trialSize = 1;
    }
    if ((outcome.kind === "unavailable" || outcome.kind === "missing") && outcome.mayBeThere) {
      entry.doubt = { from: Math.min(entry.doubt?.from ?? step.at, step.at), until: now };
    }
    if (outcome.kind === "unavailable") {
      entry.unanswered += 1;
      this.#onUnanswered(entry, outcome.scope, now);
      if (isConnectionLost && isAlone && entry.place === "pausing") this.#accused = entry;
      return;
    }
    if (outcome.kind === "missing" && this.#waitsForStream(entry, now)) return;
    entry.unanswered = 0;
    this.#onAnswered(entry);
    const { role } = entry.message;
    if (outcome.kind === "published") {
      this.#refusing.delete(targetOf(entry.message));
      this.#refusals.delete(role);
      this.#finish(entry);
      return;
    }
    const isRefused = outcome.kind !== "undecided";
    if (isRefused) this.#countRefusal(entry);
    entry.attempts += 1;
    const { code, message } = outcome;
    if (entry.attempts >= this.#triesOf(entry)) this.#deadLetter(entry, { code, message }, now, isRefused);
    else this.#pause(entry, now + this.#pauseAfter(entry.attempts));
  }

  // ---- turns ----

  get #hasProgress(): boolean {
    return this.#done > this.#saved;
  }

  /** Time of the next turn, if none is pending. */
  get #turnAt(): number {
    if (this.#unanswered !== undefined) return this.#turnFrom;
    const mayRead = !this.isEnding;
    if (mayRead && (this.#reading.canPage || this.#reading.canJoin)) return this.#turnFrom;
    const { saveMs, publishWithinMs } = this.#settings;
    const readAt = mayRead ? this.#pace.at : Number.POSITIVE_INFINITY;
    const saveAt = this.#hasProgress || this.#dead.length > 0 ? this.#confirmedAt + saveMs : Number.POSITIVE_INFINITY;
    // A relay must stop publishing without a recent answer from Postgres, so it makes a turn in time.
    const renewAt = this.#reading.messages > 0 ? this.#confirmedAt + publishWithinMs / 3 : Number.POSITIVE_INFINITY;
    return Math.max(this.#turnFrom, Math.min(readAt, saveAt, renewAt));
  }

  #nextTurn(now: number): TurnStep<M> | undefined {
    if (this.#pendingTurn !== undefined || this.#turnAt > now) return undefined;
    this.#pendingTurn = this.#unanswered ?? this.#makeTurn(now);
    return this.#pendingTurn;
  }

  #makeTurn(now: number): TurnStep<M> {
    const reading = this.#reading;
    // The number is limited, because a turn with very many dead letters would delay all messages.
    const dead = this.#dead.slice(0, this.#settings.deadMessages);
    const dueFrom = this.isEnding ? undefined : this.#pace.dueFrom(now);
    let asleep: boolean | undefined;
    let read: OutboxRead | undefined;
    if (!this.isEnding) {
      const isPollDue = reading.canPoll && (this.#pace.pollAt <= now || reading.canJoin);
      if (isPollDue && !(this.#hasJustPolled && reading.canPage)) {
        asleep = this.#pace.startPoll(now);
        read = reading.poll();
      } else read = reading.page();
    }
    if (read !== undefined) this.#hasJustPolled = read.kind === "poll";
    // The position is read after the poll was created, because `poll` may open series.
    const { position } = reading;
    return {
      kind: "turn",
      turn: this.#turn + 1n,
      position: { ...position, skipped: [...position.skipped, ...dead.map(({ message }) => message.id)] },
      done: this.#done,
      mustSave: this.#hasProgress || dead.length > 0 || dueFrom !== undefined,
      dead,
      read,
      dueFrom,
      asleep,
    };
  }

  #take(read: OutboxRead | undefined, found: PollFound<M> | PageFound<M> | undefined, now: number): void {
    if (read?.kind === "poll") {
      if (found?.kind !== "poll") {
        // Polls again, since the result of the repeated turn is unknown.
        this.#pace.notified();
        return;
      }
      this.#pace.endPoll(now, found.messages.length, found.to);
      this.#enqueue(this.#reading.takePoll(read, found));
    } else if (read !== undefined && found?.kind === "page") this.#enqueue(this.#reading.takePage(read, found));
  }

  // ---- publishes ----

  #nextPublish(now: number): PublishStep<M> | undefined {
    if (!this.#isConnected || now - this.#confirmedAt >= this.#settings.publishWithinMs) return undefined;
    const suspect = this.#nextSuspect(now);
    if (suspect !== undefined) {
      const step = this.#start(suspect, now);
      this.#hold!.started += 1;
      this.#hold!.unanswered.add(step);
      return step;
    }
    if (this.#hold !== undefined) return undefined;
    for (let entry = this.#window.take(); entry !== undefined; entry = this.#window.take()) {
      const { refusal } = entry.message;
      const isPausing = this.#pauseWithRole(entry, now);
      if (refusal === undefined && !isPausing) return this.#start(entry, now);
      this.#window.complete(entry);
      if (refusal !== undefined && !isPausing) this.#deadLetter(entry, refusal, now, false);
    }
    return undefined;
  }

  #start(entry: Entry<M>, now: number): PublishStep<M> {
    const step: PublishStep<M> = { kind: "publish", message: entry.message, doubt: entry.doubt, at: now };
    entry.place = "in flight";
    if (entry === this.#accused) this.#accused = undefined;
    this.#inFlight.set(step, entry);
    return step;
  }

  /** Queues messages that were read. The first message of each lane is ready. */
  #enqueue(entries: readonly Entry<M>[]): void {
    for (const entry of entries) {
      const { lane } = entry.message;
      const waiting = lane === undefined ? undefined : this.#lanes.get(lane);
      if (waiting !== undefined) waiting.push(entry);
      else {
        if (lane !== undefined) this.#lanes.set(lane, new Fifo());
        this.#ready(entry);
      }
    }
  }

  #ready(entry: Entry<M>): void {
    entry.place = "ready";
    this.#window.push(entry);
  }

  /** Makes the next message of the lane ready. */
  #leaveLane({ message: { lane } }: Entry<M>): void {
    if (lane === undefined) return;
    const next = this.#lanes.get(lane)!.shift();
    if (next === undefined) this.#lanes.delete(lane);
    else this.#ready(next);
  }

  #finish(entry: Entry<M>): void {
    this.#done += 1;
    this.#reading.finish(entry);
    this.#leaveLane(entry);
  }

  #countRefusal({ attempts, message: { role } }: Entry<M>): void {
    if (attempts === 0) this.#refusals.set(role, (this.#refusals.get(role) ?? 0) + 1);
  }

  #triesOf({ message }: Entry<M>): number {
    const { tries, maxRefused } = this.#settings;
    const isRefusedAnyway = (this.#refusals.get(message.role) ?? 0) >= maxRefused;
    return isRefusedAnyway || this.#refusing.has(targetOf(message)) ? 1 : tries;
  }

  /** Makes the message a dead letter. @param isRefused true if its destination refused it */
  #deadLetter(entry: Entry<M>, refusal: PublishRefusal, now: number, isRefused: boolean): void {
    if (now < this.#deadLettersFrom) {
      const mayRepeat = entry.message.refusal === undefined && !entry.isSuspect;
      this.#pause(entry, mayRepeat ? now + this.#pauseAfter(Math.max(1, entry.attempts)) : this.#deadLettersFrom);
      return;
    }
    const { message } = entry;
    if (isRefused) this.#addRefusing(targetOf(message));
    entry.place = "dead";
    this.#dead.push({ message, refusal, attempts: Math.max(1, entry.attempts), entry });
  }

  /** Records a destination that refuses messages. Keeps the last `maxRefusing`. */
  #addRefusing(target: string): void {
    this.#refusing.add(target);
    const [first] = this.#refusing;
    if (this.#refusing.size > this.#settings.maxRefusing) this.#refusing.delete(first!);
  }

  /** Records that the oldest `count` dead letters are written, so that the messages behind them can proceed. */
  #deadLettersSaved(count: number): void {
    for (const { entry } of this.#dead.splice(0, count)) {
      this.#done += 1;
      this.#reading.skip(entry);
      this.#leaveLane(entry);
    }
  }

  // ---- pauses ----

  #pause(entry: Entry<M>, until: number, endsOnConnect = false): void {
    entry.place = "pausing";
    this.#pausing.push({ entry, until, endsOnConnect });
    this.#pausingUntil = Math.min(this.#pausingUntil, until);
  }

  /** Makes pausing messages ready again, before messages that were read later. */
  #endPauses(isOver: (pausing: Pausing<M>) => boolean): void {
    const over = this.#pausing.filter(isOver).map(({ entry }) => entry);
    this.#filterPausing((pausing) => !isOver(pausing));
    for (const entry of over) entry.place = "ready";
    this.#window.pushRetries(over.filter(({ isSuspect }) => !isSuspect));
    const suspects = over.filter(({ isSuspect }) => isSuspect);
    if (suspects.length > 0) this.#suspects = [...this.#suspects, ...suspects].sort(this.#byTrial);
  }

  #filterPausing(isKept: (pausing: Pausing<M>) => boolean): void {
    this.#pausing = this.#pausing.filter(isKept);
    this.#pausingUntil = this.#pausing.reduce((least, { until }) => Math.min(least, until), Number.POSITIVE_INFINITY);
  }

  #pauseAfter(failures: number): number {
    const { retryMinMs, retryMaxMs } = this.#settings;
    return backoffMs({ minMs: retryMinMs, maxMs: retryMaxMs }, failures);
  }

  // ---- messages that end their connection ----

  /** Next suspect to try; undefined if there is none, or while there is a hold. */
  #nextSuspect(now: number): Entry<M> | undefined {
    const { trialMs } = this.#settings;
    let isQuiet = this.#inFlight.size === 0;
    if (this.#hold !== undefined) {
      const { size, started, unanswered } = this.#hold;
      if (started < size && this.#firstSuspect(now)?.wasAlone === false) return this.#suspects.pop();
      if (unanswered.size > 0) return undefined;
      if (size > 0) this.#trialSize = size * 2;
      this.#hold = undefined;
      isQuiet = true;
    }
    const first = this.#firstSuspect(now);
    if (first === undefined) return undefined;
    const size = first.wasAlone ? 1 : this.#trialSize;
    const unanswered = isQuiet ? [] : this.#inFlight.keys();
    this.#hold = { size: isQuiet ? size : 0, started: 0, unanswered: new Set(unanswered), until: now + trialMs };
    return isQuiet ? this.#suspects.pop() : undefined;
  }

  /** Suspect that is tried next. Those whose role pauses leave the suspects for that time. */
  #firstSuspect(now: number): Entry<M> | undefined {
    for (let first = this.#suspects.at(-1); first !== undefined; first = this.#suspects.at(-1)) {
      if (!this.#pauseWithRole(first, now)) return first;
      this.#suspects.pop();
    }
    return undefined;
  }

  /** Pauses the message if its role does. */
  #pauseWithRole(entry: Entry<M>, now: number): boolean {
    const { role } = entry.message;
    const until = this.#rolePauses.get(role);
    if (until === undefined) return false;
    if (until > now) this.#pause(entry, until);
    else this.#rolePauses.delete(role);
    return until > now;
  }

  /** Reverse order of trials: messages that were tried alone, probes of routes that are away, and others, by ids. */
  readonly #byTrial = (one: Entry<M>, other: Entry<M>): number =>
    this.#rankOf(other) - this.#rankOf(one) || Number(other.message.id - one.message.id);

  #rankOf(entry: Entry<M>): number {
    if (entry.wasAlone) return 2;
    return this.#away.get(routeOf(entry.message))?.probe === entry ? 1 : 0;
  }

  /** Pauses the message in whose trial the connection ended. Counts the try, unless there was an outage. */
  #endTrialOf(entry: Entry<M>, now: number): void {
    this.#filterPausing((pausing) => pausing.entry !== entry);
    this.#suspects = this.#suspects.filter((suspect) => suspect !== entry);
    const { suspectPauseMs, retryMaxMs } = this.#settings;
    if (this.#isOutage) {
      this.#pause(entry, now + retryMaxMs);
      return;
    }
    this.#countRefusal(entry);
    entry.attempts += 1;
    this.#rolePauses.set(entry.message.role, now + suspectPauseMs);
    const refusal = {
      code: "nats_failed",
      message:
        `The connection to NATS ended ${entry.attempts} times while this message alone was published: ${this.#endReason}. ` +
        "The log of the NATS server may tell more. A retry publishes the message again.",
    };
    if (entry.attempts >= this.#triesOf(entry)) this.#deadLetter(entry, refusal, now, true);
    else this.#pause(entry, now + 2 * suspectPauseMs);
  }

  // ---- routes that are away ----

  /** Handles a publish without an answer. */
  #onUnanswered(entry: Entry<M>, scope: "connection" | "route", now: number): void {
    const route = routeOf(entry.message);
    const away = this.#away.get(route);
    if (away !== undefined && away.probe !== entry) {
      this.#drop(entry);
      return;
    }
    const again = now + this.#pauseAfter(entry.unanswered);
    if (scope === "connection") {
      this.#pause(entry, again, true);
      return;
    }
    if (away !== undefined) {
      away.failures += 1;
      this.#pause(entry, this.#probeAt(away, now), true);
      return;
    }
    const since = this.#unansweredSince.get(route) ?? now;
    this.#unansweredSince.set(route, since);
    if (now - since >= this.#settings.awayMs && this.#canSuspend(entry)) this.#suspend(entry, now);
    else this.#pause(entry, again, true);
  }

  /** Handles a missing stream, which may still be created. @returns false if the message is to be refused */
  #waitsForStream(entry: Entry<M>, now: number): boolean {
    const { message } = entry;
    const away = this.#away.get(routeOf(message));
    const isEarly = now - message.enqueuedBy < this.#settings.missingStreamMs;
    if (!isEarly || (away === undefined && !this.#canSuspend(entry))) return false;
    if (away === undefined) this.#suspend(entry, now);
    else this.#onUnanswered(entry, "route", now);
    return true;
  }

  #canSuspend({ message }: Entry<M>): boolean {
    const others = [...this.#away.values()].filter(({ role }) => role === message.role);
    return others.length < this.#settings.maxAwayRoutes;
  }

  #suspend(probe: Entry<M>, now: number): void {
    const { message } = probe;
    const away: AwayRoute<M> = { role: message.role, failures: 1, probe };
    this.#away.set(routeOf(message), away);
    this.#unansweredSince.delete(routeOf(message));
    const isKept = (entry: Entry<M>): boolean =>
      entry === probe || entry.place === "in flight" || entry.place === "dead";
    const dropped = this.#reading.suspend(message, isKept);
    this.#window.clear(message.role, message.route);
    const gone = new Set(dropped);
    this.#filterPausing(({ entry }) => !gone.has(entry));
    this.#suspects = this.#suspects.filter((entry) => !gone.has(entry));
    if (this.#accused !== undefined && gone.has(this.#accused)) this.#accused = undefined;
    // Lanes whose first message was kept have no waiting messages any more.
    for (const { message, place } of dropped) {
      const { lane } = message;
      if (lane === undefined) continue;
      if (place === "waiting") this.#lanes.get(lane)?.clear();
      else this.#lanes.delete(lane);
    }
    this.#pause(probe, this.#probeAt(away, now), true);
  }

  /** Handles an unanswered message of a route that is away. Its waiting messages have already left memory. */
  #drop(entry: Entry<M>): void {
    this.#reading.drop(entry);
    const { lane } = entry.message;
    if (lane !== undefined) this.#lanes.delete(lane);
  }

  #probeAt({ failures }: AwayRoute<M>, now: number): number {
    const { retryMaxMs, probeMaxMs } = this.#settings;
    return now + backoffMs({ minMs: retryMaxMs, maxMs: probeMaxMs }, failures);
  }

  /** Records that NATS answered for the route of a message. */
  #onAnswered({ message }: Entry<M>): void {
    const route = routeOf(message);
    this.#unansweredSince.delete(route);
    const away = this.#away.get(route);
    if (away === undefined) return;
    this.#away.delete(route);
    this.#reading.resume(message);
    this.#endPauses(({ entry }) => entry === away.probe);
  }
}

/** Key of a role's route. */
function routeOf({ role, route }: OutboxMessage): string {
  return `${role}\0${route}`;
}

/** Key of a role's destination. */
function targetOf({ role, destination }: OutboxMessage): string {
  return `${role}\0${destination}`;
}
