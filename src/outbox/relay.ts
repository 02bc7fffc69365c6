/**
 * The relay of the outbox as a pure state machine: what is read from the outbox next, what is published next, and what
 * follows from how that went. It runs nothing itself and has no clock.
 *
 * Two kinds of steps are out at the same time: one **turn** in Postgres, which saves the position, writes dead letters and
 * reads, and any number of **publishes**.
 *
 * What was read, and the position, is in `reading.ts`: main, and the series of roles and routes that are not as far. What can be
 * published is in `publish-window.ts`. A **route** is what can be away while other parts of NATS are there.
 *
 * Rules:
 * - The position passes a message only when NATS has it, or when it is a dead letter. The turn that writes dead letters says
 *   which they are, so that the next relay skips those of them that are still in the outbox.
 * - Nothing is published before the turn that read it is committed durably: with it, everything that the snapshot saw is.
 * - Of one lane (a role, a destination and a key) one message is under way at a time. So a refused one is never overtaken,
 *   before it has been written down as a dead letter.
 * - Publishing ends when no turn has been answered for `publishWithinMs`: another relay may be at work.
 * - A message that is refused is tried again after a pause, `tries` times. While a destination refuses everything that a role
 *   sends there, each of these messages has one try. So has each message of a role after `maxRefused` refusals in a row, until
 *   one is taken.
 * - A route that has answered nothing for `awayMs`, while the connection is there, is **away**: its messages leave memory, and
 *   its position waits alone. One of them is tried now and then. When NATS takes or refuses it, the others are read again.
 * - Memory and what is under way are shared by roles, and looks and pages take turns: a role, a destination or a domain that is
 *   slow, or has many messages, delays only itself.
 * - A message whose stream is missing is tried for `missingStreamMs` after it was enqueued: until then its route is away. It is
 *   refused at once if its role has `maxAwayRoutes` others that are.
 * - A message of which nobody can tell whether its stream has it is given up: it is not published again (`doubt.ts`).
 * - No message is given up as long as the relay before may still be publishing it.
 * - A message that was written again is left out while the first one is not done: that is published anyway.
 * - Messages that are due later are in a table of their own. Each look tells when the first of those is due that it sees and the
 *   look before did not, so that none is missed, whatever the order of commits. Then a turn brings in what is due.
 */
import type { ServeSettings } from "../../generated/ts/settings/nats.js";
import type { OutboxConstants } from "../../generated/ts/settings/outbox.js";
import { backoffMs, type DueFound, Fifo, LookPace, type PaceSettings } from "../runtime/index.js";
import type { Doubt } from "./doubt.js";
import type { OutboxMessage, OutboxPosition, Refusal } from "./position.js";
import { PublishWindow, type WindowSettings } from "./publish-window.js";
import {
  type Entry,
  type LookFound,
  type LookRead,
  OutboxReading,
  type PageFound,
  type PageRead,
  type ReadingSettings,
} from "./reading.js";

export type { OutboxMessage, OutboxPosition, Refusal, SeriesPosition, Snapshot } from "./position.js";
export type { LookFound, LookRead, PageFound, PageRead, SeriesName } from "./reading.js";

/** A message that is given up. */
export interface DeadOutboxMessage<M> {
  readonly message: M;
  readonly refusal: Refusal;
  readonly attempts: number;
}

/** What a turn reads. */
export type OutboxRead = LookRead | PageRead;

/** In Postgres, in one transaction. */
export interface TurnStep<M> {
  readonly kind: "turn";
  /** Its number, if it writes anything. It does if `mustSave`, or if it finds a message. */
  readonly turn: bigint;
  readonly position: OutboxPosition;
  /** How many messages are done at that position, since the relay began. */
  readonly done: number;
  readonly mustSave: boolean;
  readonly dead: readonly DeadOutboxMessage<M>[];
  readonly read: OutboxRead | undefined;
  /** Before it reads: what is due is brought in. None of it is due before this time, of the clock of Postgres. */
  readonly dueFrom: number | undefined;
  /** Before it reads: whether those who enqueue have to notify from now on; undefined: as before. */
  readonly asleep: boolean | undefined;
}

/** To NATS. */
export interface PublishStep<M> {
  readonly kind: "publish";
  readonly message: M;
  /** undefined: it was not published before. */
  readonly doubt: Doubt | undefined;
  /** When it is published now. */
  readonly at: number;
}

/** How a turn went. */
export type TurnOutcome<M> =
  | {
      readonly kind: "done";
      /** It has written something, and its number is used. */
      readonly isSaved: boolean;
      /** Of the kind that was to be read; undefined: nothing was read, because the turn had been saved before. */
      readonly found?: LookFound<M> | PageFound<M>;
      /** undefined: the turn had been saved before. */
      readonly due?: DueFound;
    }
  /** Postgres did not answer: it may have been committed, and is repeated as it is. */
  | { readonly kind: "unavailable" }
  /** Another relay has taken over, or the server is not the one that this relay has begun on. */
  | { readonly kind: "deposed" };

/** How a publish went. */
export type PublishOutcome =
  | {
      readonly kind: "published";
      /**
       * `known`: its stream had it already, which was in doubt. `dropped`: its stream has, or had, another one with its id, and has
       * not stored it.
       */
      readonly as: "stored" | "known" | "dropped";
    }
  /**
   * NATS is away, or has not answered. `connection`: nothing is known of NATS at all. `route`: the connection is there, and the
   * domain, stream or subject of the message does not answer, or has no room.
   */
  | {
      readonly kind: "unavailable";
      readonly scope: "connection" | "route";
      /** It was sent, and NATS may have it. */
      readonly mayBeThere: boolean;
    }
  | ({ readonly kind: "refused" } & Refusal)
  /** It may be in its stream, and nobody can tell: it must not be published again. */
  | ({ readonly kind: "undecided" } & Refusal)
  /** There is no stream for it now. */
  | ({
      readonly kind: "missing";
      /** True if the message was sent, so that a stream may have had it. */
      readonly mayBeThere: boolean;
    } & Refusal);

export interface RelaySettings
  extends ReadingSettings,
    WindowSettings,
    PaceSettings,
    Pick<ServeSettings, "missingStreamMs">,
    Pick<
      OutboxConstants,
      | "saveMs"
      | "publishWithinMs"
      | "tries"
      | "deadMessages"
      | "maxRefusing"
      | "maxRefused"
      | "retryMinMs"
      | "retryMaxMs"
      | "awayMs"
      | "probeMaxMs"
      | "maxAwayRoutes"
    > {
  /** So long after it has taken over it gives no message up. */
  readonly lateMs: number;
}

/** A message that is published again later. */
interface Pausing<M> {
  readonly entry: Entry<M>;
  readonly until: number;
  readonly isRefused: boolean;
}

/** A route that is away. */
interface AwayRoute<M> {
  readonly role: string;
  failures: number;
  /** The message that is tried. */
  probe: Entry<M>;
}

export class OutboxRelay<M extends OutboxMessage> {
  readonly #settings: RelaySettings;
  readonly #givesUpFrom: number;
  readonly #reading: OutboxReading<M>;
  readonly #window: PublishWindow<Entry<M>>;
  readonly #pace: LookPace;
  #turn: bigint;
  /** Messages that are done, ever, and as far as the position is saved. */
  #done = 0;
  #saved = 0;
  #turnOut: TurnStep<M> | undefined;
  /** Was not answered, and is repeated as it is. */
  #unanswered: TurnStep<M> | undefined;
  #turnFailures = 0;
  #turnFrom = 0;
  /** The last turn that has read was a look. */
  #hasJustLooked = false;
  /** When the last turn was begun that has been answered. */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  isDeposed = false;
  isEnding = false;
  /** Of each lane the messages that wait for the first, which is ready, under way, or pausing. */
  readonly #lanes = new Map<string, Fifo<Entry<M>>>();
  readonly #underWay = new Map<PublishStep<M>, Entry<M>>();
  #pausing: Pausing<M>[] = [];
  /** When the first of their pauses is over. */
  #pausingUntil = Number.POSITIVE_INFINITY;
  /** Roles with destinations whose last message was given up. */
  readonly #refusing = new Set<string>();
  /** Of roles, how many messages in a row were refused. */
  readonly #refusals = new Map<string, number>();
  /** Since when routes of roles have answered nothing. */
  readonly #silentSince = new Map<string, number>();
  readonly #away = new Map<string, AwayRoute<M>>();
  /** Given up, and not written down yet. */
  #dead: (DeadOutboxMessage<M> & { readonly entry: Entry<M> })[] = [];
  #isConnected = true;

  /**
   * @param position as saved by the relay before
   * @param turn the number of the turn that has taken over
   * @param now when it has
   */
  constructor(position: OutboxPosition, turn: bigint, now: number, settings: RelaySettings) {
    this.#settings = settings;
    this.#givesUpFrom = now + settings.lateMs;
    this.#turn = turn;
    this.#reading = new OutboxReading(position, now, settings);
    this.#window = new PublishWindow(settings);
    this.#pace = new LookPace(settings, undefined);
  }

  /** Everything that was read is done, except for what is away, and the position saved. */
  get isIdle(): boolean {
    const probes = this.#pausing.filter(({ entry }) => this.#away.get(routeOf(entry.message))?.probe === entry);
    return this.#reading.messages === probes.length && this.#turnOut === undefined && !this.#hasProgress;
  }

  /** Read and not done. */
  get waiting(): number {
    return this.#reading.waiting;
  }

  /** The first message that the position has not passed. */
  get oldest(): M | undefined {
    return this.#reading.oldest;
  }

  /** Where everything is done up to. */
  get position(): OutboxPosition {
    return this.#reading.position;
  }

  /** Somebody has enqueued: looks at once. */
  wake(): void {
    this.#pace.notified();
  }

  /** Whether there is a connection to NATS. With a new one, what was not answered is published again at once. */
  set isConnected(isConnected: boolean) {
    this.#isConnected = isConnected;
    if (!isConnected) return;
    this.#silentSince.clear();
    this.#endPauses(({ isRefused }) => !isRefused);
  }

  /** The next step; undefined: none before {@link readyAt}, or something settles. To be called until then. */
  next(now: number): TurnStep<M> | PublishStep<M> | undefined {
    if (this.isDeposed) return undefined;
    if (this.#pausingUntil <= now) this.#endPauses(({ until }) => until <= now);
    return this.#nextTurn(now) ?? this.#nextPublish(now);
  }

  /** From when on {@link next} may have a step though nothing settles until then; Infinity: never. */
  get readyAt(): number {
    if (this.isDeposed) return Number.POSITIVE_INFINITY;
    return this.#turnOut === undefined ? Math.min(this.#pausingUntil, this.#turnAt) : this.#pausingUntil;
  }

  settleTurn(step: TurnStep<M>, outcome: TurnOutcome<M>, begunAt: number, now: number): void {
    if (step !== this.#turnOut) return;
    this.#turnOut = undefined;
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
    this.#confirmedAt = Math.max(this.#confirmedAt, begunAt);
    if (outcome.isSaved) {
      this.#turn = step.turn;
      this.#saved = step.done;
      this.#writtenDown(step.dead.length);
    }
    if (outcome.due !== undefined) this.#pace.endDue(now, step.dueFrom, outcome.due);
    this.#take(step.read, outcome.found, now);
  }

  settlePublish(step: PublishStep<M>, outcome: PublishOutcome, now: number): void {
    const entry = this.#underWay.get(step);
    if (entry === undefined) return;
    this.#underWay.delete(step);
    const isConnectionLost = outcome.kind === "unavailable" && outcome.scope === "connection";
    this.#window.settle(entry, isConnectionLost ? undefined : outcome.kind === "published");
    if ((outcome.kind === "unavailable" || outcome.kind === "missing") && outcome.mayBeThere) {
      entry.doubt = { from: Math.min(entry.doubt?.from ?? step.at, step.at), until: now };
    }
    if (outcome.kind === "unavailable") {
      entry.silences += 1;
      this.#silent(entry, outcome.scope, now);
      return;
    }
    if (outcome.kind === "missing" && this.#waitsForStream(entry, now)) return;
    entry.silences = 0;
    this.#answers(entry);
    const { role } = entry.message;
    if (outcome.kind === "published") {
      this.#refusing.delete(targetOf(entry.message));
      this.#refusals.delete(role);
      this.#finish(entry);
      return;
    }
    const isRefused = outcome.kind !== "undecided";
    if (isRefused && entry.attempts === 0) this.#refusals.set(role, (this.#refusals.get(role) ?? 0) + 1);
    entry.attempts += 1;
    const { code, message } = outcome;
    if (entry.attempts >= this.#triesOf(entry)) this.#giveUp(entry, { code, message }, now, isRefused);
    else this.#pause(entry, now + this.#pauseAfter(entry.attempts), true);
  }

  // ---- turns ----

  get #hasProgress(): boolean {
    return this.#done > this.#saved;
  }

  /** When the next turn may begin, if none is out. */
  get #turnAt(): number {
    if (this.#unanswered !== undefined) return this.#turnFrom;
    const mayRead = !this.isEnding;
    if (mayRead && (this.#reading.canPage || this.#reading.canJoin)) return this.#turnFrom;
    const { saveMs, publishWithinMs } = this.#settings;
    const readAt = mayRead ? this.#pace.at : Number.POSITIVE_INFINITY;
    const saveAt = this.#hasProgress || this.#dead.length > 0 ? this.#confirmedAt + saveMs : Number.POSITIVE_INFINITY;
    // A relay that hears nothing from Postgres has to end publishing.
    const renewAt = this.#reading.messages > 0 ? this.#confirmedAt + publishWithinMs / 3 : Number.POSITIVE_INFINITY;
    return Math.max(this.#turnFrom, Math.min(readAt, saveAt, renewAt));
  }

  #nextTurn(now: number): TurnStep<M> | undefined {
    if (this.#turnOut !== undefined || this.#turnAt > now) return undefined;
    this.#turnOut = this.#unanswered ?? this.#makeTurn(now);
    return this.#turnOut;
  }

  #makeTurn(now: number): TurnStep<M> {
    const reading = this.#reading;
    // A turn with very many would take long, for all.
    const dead = this.#dead.slice(0, this.#settings.deadMessages);
    const dueFrom = this.isEnding ? undefined : this.#pace.dueFrom(now);
    let asleep: boolean | undefined;
    let read: OutboxRead | undefined;
    if (!this.isEnding) {
      const isLookDue = reading.canLook && (this.#pace.lookAt <= now || reading.canJoin);
      if (isLookDue && !(this.#hasJustLooked && reading.canPage)) {
        asleep = this.#pace.beginLook(now);
        read = reading.look();
      } else read = reading.page();
    }
    if (read !== undefined) this.#hasJustLooked = read.kind === "look";
    // Behind the look, which may open series.
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

  #take(read: OutboxRead | undefined, found: LookFound<M> | PageFound<M> | undefined, now: number): void {
    if (read?.kind === "look") {
      if (found?.kind !== "look") {
        // It looks again: what the turn has found is not known.
        this.#pace.notified();
        return;
      }
      this.#pace.endLook(now, found.messages.length, found.to);
      this.#line(this.#reading.takeLook(read, found));
    } else if (read !== undefined && found?.kind === "page") this.#line(this.#reading.takePage(read, found));
  }

  // ---- publishes ----

  #nextPublish(now: number): PublishStep<M> | undefined {
    if (!this.#isConnected || now - this.#confirmedAt >= this.#settings.publishWithinMs) return undefined;
    for (let entry = this.#window.take(); entry !== undefined; entry = this.#window.take()) {
      const { refusal } = entry.message;
      if (refusal === undefined) {
        const step: PublishStep<M> = { kind: "publish", message: entry.message, doubt: entry.doubt, at: now };
        entry.place = "under way";
        this.#underWay.set(step, entry);
        return step;
      }
      this.#window.settle(entry);
      this.#giveUp(entry, refusal, now, false);
    }
    return undefined;
  }

  /** Messages that were read: the first of each lane is ready. */
  #line(entries: readonly Entry<M>[]): void {
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

  /** The next of its lane is ready. */
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

  #triesOf({ message }: Entry<M>): number {
    const { tries, maxRefused } = this.#settings;
    const isRefusedAnyway = (this.#refusals.get(message.role) ?? 0) >= maxRefused;
    return isRefusedAnyway || this.#refusing.has(targetOf(message)) ? 1 : tries;
  }

  /** @param isRefused its destination refuses it */
  #giveUp(entry: Entry<M>, refusal: Refusal, now: number, isRefused: boolean): void {
    if (now < this.#givesUpFrom) {
      const until = now + this.#pauseAfter(Math.max(1, entry.attempts));
      this.#pause(entry, entry.message.refusal === undefined ? until : this.#givesUpFrom, true);
      return;
    }
    const { message } = entry;
    if (isRefused) this.#refuses(targetOf(message));
    entry.place = "given up";
    this.#dead.push({ message, refusal, attempts: Math.max(1, entry.attempts), entry });
  }

  /** Remembers a destination that refuses; only the last `maxRefusing` are remembered. */
  #refuses(target: string): void {
    this.#refusing.add(target);
    const [first] = this.#refusing;
    if (this.#refusing.size > this.#settings.maxRefusing) this.#refusing.delete(first!);
  }

  /** The oldest of those that were given up are written down: what follows them may go on. */
  #writtenDown(count: number): void {
    for (const { entry } of this.#dead.splice(0, count)) {
      this.#done += 1;
      this.#reading.skip(entry);
      this.#leaveLane(entry);
    }
  }

  // ---- pauses ----

  #pause(entry: Entry<M>, until: number, isRefused: boolean): void {
    entry.place = "pausing";
    this.#pausing.push({ entry, until, isRefused });
    this.#pausingUntil = Math.min(this.#pausingUntil, until);
  }

  /** They come before those that were read later. */
  #endPauses(isOver: (pausing: Pausing<M>) => boolean): void {
    const over = this.#pausing.filter(isOver).map(({ entry }) => entry);
    this.#keepPausing((pausing) => !isOver(pausing));
    for (const entry of over) entry.place = "ready";
    this.#window.pushAgain(over);
  }

  #keepPausing(isKept: (pausing: Pausing<M>) => boolean): void {
    this.#pausing = this.#pausing.filter(isKept);
    this.#pausingUntil = this.#pausing.reduce((least, { until }) => Math.min(least, until), Number.POSITIVE_INFINITY);
  }

  #pauseAfter(failures: number): number {
    const { retryMinMs, retryMaxMs } = this.#settings;
    return backoffMs({ minMs: retryMinMs, maxMs: retryMaxMs }, failures);
  }

  // ---- routes that are away ----

  /** No answer came. */
  #silent(entry: Entry<M>, scope: "connection" | "route", now: number): void {
    const route = routeOf(entry.message);
    const away = this.#away.get(route);
    if (away !== undefined && away.probe !== entry) {
      this.#drop(entry);
      return;
    }
    const again = now + this.#pauseAfter(entry.silences);
    if (scope === "connection") {
      this.#pause(entry, again, false);
      return;
    }
    if (away !== undefined) {
      away.failures += 1;
      this.#pause(entry, this.#probeAt(away, now), false);
      return;
    }
    const since = this.#silentSince.get(route) ?? now;
    this.#silentSince.set(route, since);
    if (now - since >= this.#settings.awayMs && this.#canSuspend(entry)) this.#suspend(entry, now);
    else this.#pause(entry, again, false);
  }

  /** There is no stream for a message: one may be made yet. @returns false: it is refused */
  #waitsForStream(entry: Entry<M>, now: number): boolean {
    const { message } = entry;
    const away = this.#away.get(routeOf(message));
    const isEarly = now - message.enqueuedBy < this.#settings.missingStreamMs;
    if (!isEarly || (away === undefined && !this.#canSuspend(entry))) return false;
    if (away === undefined) this.#suspend(entry, now);
    else this.#silent(entry, "route", now);
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
    this.#silentSince.delete(routeOf(message));
    const isKept = (entry: Entry<M>): boolean =>
      entry === probe || entry.place === "under way" || entry.place === "given up";
    const dropped = this.#reading.suspend(message, isKept);
    this.#window.clear(message.role, message.route);
    const gone = new Set(dropped);
    this.#keepPausing(({ entry }) => !gone.has(entry));
    // Those whose first message is kept wait for nothing more.
    for (const { message, place } of dropped) {
      const { lane } = message;
      if (lane === undefined) continue;
      if (place === "waiting") this.#lanes.get(lane)?.clear();
      else this.#lanes.delete(lane);
    }
    this.#pause(probe, this.#probeAt(away, now), false);
  }

  /** A message of a route that is away has come back without an answer. All that waited for it have left memory. */
  #drop(entry: Entry<M>): void {
    this.#reading.drop(entry);
    const { lane } = entry.message;
    if (lane !== undefined) this.#lanes.delete(lane);
  }

  #probeAt({ failures }: AwayRoute<M>, now: number): number {
    const { retryMaxMs, probeMaxMs } = this.#settings;
    return now + backoffMs({ minMs: retryMaxMs, maxMs: probeMaxMs }, failures);
  }

  /** NATS has answered for the route of a message. */
  #answers({ message }: Entry<M>): void {
    const route = routeOf(message);
    this.#silentSince.delete(route);
    const away = this.#away.get(route);
    if (away === undefined) return;
    this.#away.delete(route);
    this.#reading.resume(message);
    this.#endPauses(({ entry }) => entry === away.probe);
  }
}

/** A route of a role. */
function routeOf({ role, route }: OutboxMessage): string {
  return `${role}\0${route}`;
}

/** A destination of a role. */
function targetOf({ role, destination }: OutboxMessage): string {
  return `${role}\0${destination}`;
}
