/**
 * The relay of the outbox as a pure state machine: what is read from the outbox next, what is published next, and what
 * follows from how that went. It runs nothing itself and has no clock.
 *
 * Two kinds of steps are out at the same time: one **turn** in Postgres, which saves the position, writes dead letters and
 * reads, and any number of **publishes**.
 *
 * A **position** is a snapshot of Postgres: everything that it sees is done. What is new is what a later snapshot sees, and
 * it does not: a **set**. A set is read in pages, in the order of ids. A set that is not done has a place, the id up to which
 * all of it is done. Sets follow each other without a gap, so that the position is that of the oldest set that is not done.
 *
 * Rules:
 * - The position passes a message only when NATS has it, or when it is a dead letter. The turn that writes dead letters says
 *   which they are, so that the next relay skips those of them that are still in the outbox.
 * - Nothing is published before the turn that read it is committed durably: with it, everything that the snapshot saw is.
 * - Of one lane (a destination and a key) one message is under way at a time. So a refused one is never overtaken, before it
 *   has been written down as a dead letter.
 * - Publishing ends when no turn has been answered for `publishWithinMs`: another relay may be at work.
 * - A message that is refused is tried again after a pause, `tries` times. While a destination refuses everything, each of
 *   its messages has one try.
 * - No message is given up as long as the relay before may still be publishing it.
 * - A message that was written again is left out while the first one is not done: that is published anyway.
 * - Messages that are due later are in a table of their own. Each look tells when the first of those is due that it sees and the
 *   look before did not, so that none is missed, whatever the order of commits. Then a turn brings in what is due.
 */
import { backoffMs, Fifo } from "../runtime/index.js";

/** A snapshot as `pg_snapshot` is written: `xmin:xmax:xip,…`. */
export type Snapshot = string;

/** Up to where everything is done. */
export interface OutboxPosition {
  /** Everything that it sees is done. */
  readonly from: Snapshot;
  /** The oldest set that is not done is what this sees and `from` does not; undefined: none was begun. */
  readonly to: Snapshot | undefined;
  /** Of that set everything is done up to this id. */
  readonly after: bigint;
  /** Of what is behind that: messages that are dead letters already. */
  readonly skipped: readonly bigint[];
}

/** A message of the outbox. */
export interface OutboxMessage {
  /** Grows; within a lane in the order of commits. */
  readonly id: bigint;
  /** What is published one by one, in the order of ids; undefined: the message has no key. */
  readonly lane: string | undefined;
  /** Where it goes to: what is refused for one message may be refused for the next. */
  readonly destination: string;
  /** Its memory. */
  readonly bytes: number;
  /** It was written again, because its stream may have lost it: the id of the first one. */
  readonly copyOf: bigint | undefined;
}

/** Why NATS does not take a message. */
interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** A message that is given up. */
export interface DeadOutboxMessage<M> {
  readonly message: M;
  readonly refusal: Refusal;
  readonly attempts: number;
}

/** What a turn reads. */
export interface OutboxRead {
  readonly from: Snapshot;
  /** undefined: a snapshot of this moment. */
  readonly to: Snapshot | undefined;
  readonly after: bigint;
  readonly maxMessages: number;
  readonly maxBytes: number;
  /** A look tells of messages due later that this does not see; undefined: of all. */
  readonly laterFrom: Snapshot | undefined;
}

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
  /**
   * It may have been published before: until this time by this relay without an answer, or by the one before, which had not
   * saved that (0). undefined: it was not.
   */
  readonly doubtfulSince: number | undefined;
}

/** How a turn went. */
export type TurnOutcome<M> =
  | {
      readonly kind: "done";
      /** It has written something, and its number is used. */
      readonly isSaved: boolean;
      /** undefined: nothing was read, because the turn had been saved before. */
      readonly found?: {
        /** Up to where it was read. */
        readonly to: Snapshot;
        readonly messages: readonly M[];
        /** The set has more. */
        readonly hasMore: boolean;
      };
      /** undefined: the turn had been saved before. */
      readonly due?: {
        /** How many messages were brought in. */
        readonly brought: number;
        /**
         * When the first one is due that the look has found, and, if due ones were brought in, of those that are left: of the clock
         * of Postgres, and in how many milliseconds.
         */
        readonly next: { readonly from: number; readonly inMs: number } | undefined;
      };
    }
  /** Postgres did not answer: it may have been committed, and is repeated as it is. */
  | { readonly kind: "unavailable" }
  /** Another relay has taken over, or the server is not the one that this relay has begun on. */
  | { readonly kind: "deposed" };

/** How a publish went. */
export type PublishOutcome =
  | { readonly kind: "published" }
  /** NATS is away, or has not answered: it may have it. */
  | { readonly kind: "unavailable" }
  | ({ readonly kind: "refused" } & Refusal);

export interface RelaySettings {
  /** How many messages are read and not done, and how much memory they have. */
  readonly maxMessages: number;
  readonly maxBytes: number;
  /** How many messages are read in a turn. */
  readonly pageMessages: number;
  /** How many are under way to NATS, and how much memory they have. */
  readonly maxUnderWay: number;
  readonly maxUnderWayBytes: number;
  /** From one look to the next, while there is something to do. */
  readonly lookMs: number;
  /** From one look to the next at the most, while nothing comes. */
  readonly slowLookMs: number;
  /** It is quiet so long after the last message. */
  readonly awakeMs: number;
  /** Those who enqueue can notify: they are asked to while it is quiet. */
  readonly canBeNotified: boolean;
  /** How often the position is saved at least, while there is no room to look. */
  readonly saveMs: number;
  readonly publishWithinMs: number;
  /** It asks so often for messages that are due, at least, if there are any: the clock of Postgres may be set. */
  readonly dueCheckMs: number;
  /** So long after it has taken over it gives no message up. */
  readonly lateMs: number;
  readonly tries: number;
  /** How many destinations are known that refuse everything. */
  readonly maxRefusing: number;
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
}

/** A message in memory. */
interface Entry<M> {
  readonly message: M;
  readonly set: MessageSet<M>;
  doubtfulSince: number | undefined;
  /** How often it was refused. */
  attempts: number;
  /** How often no answer came, in a row. */
  silences: number;
}

/** What one snapshot sees and the one before does not. */
interface MessageSet<M> {
  /** Grows. */
  readonly nth: number;
  readonly from: Snapshot;
  readonly to: Snapshot;
  /** Everything up to this id has been read. */
  readTo: bigint;
  isRead: boolean;
  /** Read and not done, in the order of ids. */
  readonly undone: Map<bigint, Entry<M>>;
  readonly isInDoubt: boolean;
}

export class OutboxRelay<M extends OutboxMessage> {
  readonly #settings: RelaySettings;
  readonly #givesUpFrom: number;
  /** The last snapshot of a look; undefined: the set of the position goes on. */
  #last: Snapshot;
  /** Those that are not done, the oldest first. */
  #sets: readonly MessageSet<M>[] = [];
  #begun = 0;
  #turn: bigint;
  /** Messages that are done, ever, and as far as the position is saved. */
  #done = 0;
  #saved = 0;
  #turnOut: TurnStep<M> | undefined;
  /** Was not answered, and is repeated as it is. */
  #unanswered: TurnStep<M> | undefined;
  #turnFailures = 0;
  #turnFrom = 0;
  /** When the last turn was begun that has been answered. */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #foundAt = Number.NEGATIVE_INFINITY;
  #lookPauseMs = 0;
  #wasNotified = true;
  #hasLooked = false;
  #isQuiet = false;
  /** No known message is due before this time, of the clock of Postgres, and here not before `at`; undefined: none is known. */
  #due: { readonly from: number; readonly at: number } | undefined;
  /** What those who enqueue were last told; undefined: not known. */
  #isAsleep: boolean | undefined;
  #isDeposed = false;
  #isEnding = false;
  /** Of each lane the messages that wait for the first, which is ready, under way, or pausing. */
  readonly #lanes = new Map<string, Fifo<Entry<M>>>();
  readonly #ready = new Fifo<Entry<M>>();
  readonly #underWay = new Map<PublishStep<M>, Entry<M>>();
  #pausing: { readonly entry: Entry<M>; readonly until: number; readonly isRefused: boolean }[] = [];
  /** Destinations whose last message was given up. */
  readonly #refusing = new Set<string>();
  /** Given up, and not written down yet. */
  #dead: (DeadOutboxMessage<M> & { readonly entry: Entry<M> })[] = [];
  /** Dead letters that the position has not passed, with their set if this relay has read them. */
  readonly #skipped: Map<bigint, MessageSet<M> | undefined>;
  #isConnected = true;
  #bytes = 0;
  #messages = 0;
  #underWayBytes = 0;

  /**
   * @param position as saved by the relay before
   * @param turn the number of the turn that has taken over
   * @param now when it has
   */
  constructor(position: OutboxPosition, turn: bigint, now: number, settings: RelaySettings) {
    this.#settings = settings;
    this.#givesUpFrom = now + settings.lateMs;
    this.#last = position.to ?? position.from;
    this.#turn = turn;
    this.#skipped = new Map(position.skipped.map((id) => [id, undefined]));
    if (position.to !== undefined) this.#begin(position.from, position.to, position.after, true);
  }

  /** Everything that was read is done, and the position saved. */
  get isIdle(): boolean {
    return this.#messages === 0 && this.#turnOut === undefined && !this.#hasProgress;
  }

  get isDeposed(): boolean {
    return this.#isDeposed;
  }

  /** Read and not done. */
  get waiting(): number {
    return this.#messages;
  }

  /** The first message that the position has not passed. */
  get oldest(): M | undefined {
    const [first] = this.#sets[0]?.undone.values() ?? [];
    return first?.message;
  }

  /** Where everything is done up to. */
  get position(): OutboxPosition {
    const [oldest] = this.#sets;
    const [first] = oldest?.undone.keys() ?? [];
    const after = first === undefined ? (oldest?.readTo ?? 0n) : first - 1n;
    const skipped = [...this.#skipped].flatMap(([id, set]) => {
      const isBehind =
        set === undefined || (oldest !== undefined && set.nth > oldest.nth) || (set === oldest && id > after);
      return isBehind ? [id] : [];
    });
    return { from: oldest?.from ?? this.#last, to: oldest?.to, after, skipped };
  }

  /** Somebody has enqueued: looks at once. */
  wake(): void {
    this.#wasNotified = true;
  }

  /** Whether there is a connection to NATS. With a new one, what was not answered is published again at once. */
  set isConnected(isConnected: boolean) {
    this.#isConnected = isConnected;
    if (isConnected) this.#endPauses(({ isRefused }) => !isRefused);
  }

  /** Reads nothing more; what is read is published, and the position saved. */
  end(): void {
    this.#isEnding = true;
  }

  /** The next step; undefined: none before {@link readyAt}, or something settles. To be called until then. */
  next(now: number): TurnStep<M> | PublishStep<M> | undefined {
    if (this.#isDeposed) return undefined;
    this.#endPauses(({ until }) => until <= now);
    return this.#nextTurn(now) ?? this.#nextPublish(now);
  }

  /** From when on {@link next} may have a step though nothing settles until then; Infinity: never. */
  get readyAt(): number {
    if (this.#isDeposed) return Number.POSITIVE_INFINITY;
    const times = this.#pausing.map(({ until }) => until);
    if (this.#turnOut === undefined) times.push(this.#turnAt);
    return Math.min(Number.POSITIVE_INFINITY, ...times);
  }

  settleTurn(step: TurnStep<M>, outcome: TurnOutcome<M>, begunAt: number, now: number): void {
    if (step !== this.#turnOut) return;
    this.#turnOut = undefined;
    if (outcome.kind === "deposed") {
      this.#isDeposed = true;
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
    if (step.asleep !== undefined) this.#isAsleep = step.asleep;
    if (outcome.isSaved) {
      this.#turn = step.turn;
      this.#saved = step.done;
      this.#writtenDown(step.dead.length);
    }
    this.#takeDue(step, outcome.due, now);
    if (step.read === undefined) return;
    if (outcome.found !== undefined) this.#take(step.read, outcome.found, now);
    else this.#wasNotified = true;
  }

  settlePublish(step: PublishStep<M>, outcome: PublishOutcome, now: number): void {
    const entry = this.#underWay.get(step);
    if (entry === undefined) return;
    this.#underWay.delete(step);
    this.#underWayBytes -= entry.message.bytes;
    if (outcome.kind === "unavailable") {
      entry.silences += 1;
      entry.doubtfulSince = now;
      this.#pausing.push({ entry, until: now + this.#pauseAfter(entry.silences), isRefused: false });
      return;
    }
    entry.silences = 0;
    const { destination } = entry.message;
    if (outcome.kind === "published") {
      this.#refusing.delete(destination);
      this.#finish(entry);
      return;
    }
    entry.attempts += 1;
    const isLast = entry.attempts >= (this.#refusing.has(destination) ? 1 : this.#settings.tries);
    if (isLast && now >= this.#givesUpFrom) {
      this.#refuses(destination);
      const { code, message } = outcome;
      this.#dead.push({ message: entry.message, refusal: { code, message }, attempts: entry.attempts, entry });
    } else this.#pausing.push({ entry, until: now + this.#pauseAfter(entry.attempts), isRefused: true });
  }

  // ---- turns ----

  get #hasProgress(): boolean {
    return this.#done > this.#saved;
  }

  get #reading(): MessageSet<M> | undefined {
    const set = this.#sets.at(-1);
    return set === undefined || set.isRead ? undefined : set;
  }

  get #hasRoom(): boolean {
    const { maxMessages, maxBytes, pageMessages } = this.#settings;
    return this.#messages + pageMessages <= maxMessages && this.#bytes < maxBytes;
  }

  /** When the next turn may begin, if none is out. */
  get #turnAt(): number {
    if (this.#unanswered !== undefined) return this.#turnFrom;
    const mayRead = this.#hasRoom && !this.#isEnding;
    if (mayRead && (this.#reading !== undefined || this.#wasNotified)) return this.#turnFrom;
    const { saveMs, publishWithinMs } = this.#settings;
    const lookAt = mayRead ? this.#lookedAt + this.#lookPauseMs : Number.POSITIVE_INFINITY;
    const saveAt = this.#hasProgress || this.#dead.length > 0 ? this.#confirmedAt + saveMs : Number.POSITIVE_INFINITY;
    // A relay that hears nothing from Postgres has to end publishing.
    const renewAt = this.#messages > 0 ? this.#confirmedAt + publishWithinMs / 3 : Number.POSITIVE_INFINITY;
    const dueAt = this.#isEnding || this.#due === undefined ? Number.POSITIVE_INFINITY : this.#due.at;
    return Math.max(this.#turnFrom, Math.min(lookAt, saveAt, renewAt, dueAt));
  }

  #nextTurn(now: number): TurnStep<M> | undefined {
    if (this.#turnOut !== undefined || this.#turnAt > now) return undefined;
    this.#turnOut = this.#unanswered ?? this.#makeTurn(now);
    return this.#turnOut;
  }

  #makeTurn(now: number): TurnStep<M> {
    const { maxBytes, pageMessages, awakeMs, canBeNotified } = this.#settings;
    const reading = this.#reading;
    const mayRead = this.#hasRoom && !this.#isEnding;
    const isLook = mayRead && reading === undefined;
    let asleep: boolean | undefined;
    if (isLook) {
      this.#wasNotified = false;
      this.#lookedAt = now;
      this.#isQuiet = now - this.#foundAt >= awakeMs;
      const isAsleep = this.#isQuiet && canBeNotified;
      if (isAsleep !== this.#isAsleep) asleep = isAsleep;
    }
    const limits = {
      maxMessages: pageMessages,
      maxBytes: maxBytes - this.#bytes,
      laterFrom: this.#hasLooked ? this.#last : undefined,
    };
    let read: OutboxRead | undefined;
    if (isLook) read = { from: this.#last, to: undefined, after: 0n, ...limits };
    else if (mayRead) read = { from: reading!.from, to: reading!.to, after: reading!.readTo, ...limits };
    const { position } = this;
    const dead = [...this.#dead];
    const isDue = !this.#isEnding && this.#due !== undefined && this.#due.at <= now;
    return {
      kind: "turn",
      turn: this.#turn + 1n,
      position: { ...position, skipped: [...position.skipped, ...dead.map(({ message }) => message.id)] },
      done: this.#done,
      mustSave: this.#hasProgress || dead.length > 0 || isDue,
      dead,
      read,
      dueFrom: isDue ? this.#due!.from : undefined,
      asleep,
    };
  }

  #takeDue({ dueFrom }: TurnStep<M>, due: (TurnOutcome<M> & { readonly kind: "done" })["due"], now: number): void {
    // It asks again.
    if (due === undefined) return;
    const { brought, next } = due;
    if (brought > 0) this.#wasNotified = true;
    const known = dueFrom === undefined ? this.#due : undefined;
    if (next === undefined) this.#due = known;
    else {
      const at = now + Math.min(next.inMs, this.#settings.dueCheckMs);
      this.#due = { from: Math.min(known?.from ?? next.from, next.from), at: Math.min(known?.at ?? at, at) };
    }
  }

  #take(
    read: OutboxRead,
    { to, messages, hasMore }: { readonly to: Snapshot; readonly messages: readonly M[]; readonly hasMore: boolean },
    now: number,
  ): void {
    const { lookMs, slowLookMs } = this.#settings;
    let set = this.#reading;
    if (read.to === undefined) {
      // While nothing comes, each pause is twice the one before: who enqueued before it was told to notify, and commits
      // later, waits about as long as its transaction went on.
      const isFound = messages.length > 0;
      this.#lookPauseMs =
        isFound || !this.#isQuiet ? lookMs : Math.max(lookMs, Math.min(slowLookMs, this.#lookPauseMs * 2));
      if (isFound) this.#foundAt = now;
      this.#last = to;
      const isInDoubt = !this.#hasLooked;
      this.#hasLooked = true;
      if (!isFound) {
        this.#forgetRemoved();
        return;
      }
      set = this.#begin(read.from, to, 0n, isInDoubt);
    }
    for (const message of messages) {
      const { id, copyOf } = message;
      if (this.#skipped.has(id)) this.#skipped.set(id, set);
      else if (copyOf === undefined || !this.#sets.some(({ undone }) => undone.has(copyOf))) this.#add(set!, message);
    }
    set!.readTo = messages.at(-1)?.id ?? set!.readTo;
    set!.isRead = !hasMore;
    this.#dropIfDone(set!);
    this.#forgetRemoved();
  }

  /** Of the relay before: all is read that it may have read, and what has not come was truncated with its slot. */
  #forgetRemoved(): void {
    if (!this.#hasLooked || this.#reading !== undefined) return;
    for (const [id, set] of this.#skipped) if (set === undefined) this.#skipped.delete(id);
  }

  #begin(from: Snapshot, to: Snapshot, readTo: bigint, isInDoubt: boolean): MessageSet<M> {
    this.#begun += 1;
    const set: MessageSet<M> = { nth: this.#begun, from, to, readTo, isRead: false, undone: new Map(), isInDoubt };
    this.#sets = [...this.#sets, set];
    return set;
  }

  #dropIfDone(done: MessageSet<M>): void {
    if (!done.isRead || done.undone.size > 0) return;
    this.#sets = this.#sets.filter((set) => set !== done);
    const oldest = this.#sets[0]?.nth ?? Number.POSITIVE_INFINITY;
    for (const [id, set] of this.#skipped) if (set !== undefined && set.nth < oldest) this.#skipped.delete(id);
  }

  // ---- publishes ----

  get #mayPublishMore(): boolean {
    const { maxUnderWay, maxUnderWayBytes } = this.#settings;
    return (
      this.#isConnected &&
      this.#ready.length > 0 &&
      this.#underWay.size < maxUnderWay &&
      this.#underWayBytes < maxUnderWayBytes
    );
  }

  #nextPublish(now: number): PublishStep<M> | undefined {
    if (!this.#mayPublishMore) return undefined;
    if (now - this.#confirmedAt >= this.#settings.publishWithinMs) return undefined;
    const entry = this.#ready.shift()!;
    const step: PublishStep<M> = { kind: "publish", message: entry.message, doubtfulSince: entry.doubtfulSince };
    this.#underWay.set(step, entry);
    this.#underWayBytes += entry.message.bytes;
    return step;
  }

  #add(set: MessageSet<M>, message: M): void {
    const entry: Entry<M> = { message, set, doubtfulSince: set.isInDoubt ? 0 : undefined, attempts: 0, silences: 0 };
    set.undone.set(message.id, entry);
    this.#messages += 1;
    this.#bytes += message.bytes;
    const { lane } = message;
    const waiting = lane === undefined ? undefined : this.#lanes.get(lane);
    if (waiting !== undefined) waiting.push(entry);
    else {
      if (lane !== undefined) this.#lanes.set(lane, new Fifo());
      this.#ready.push(entry);
    }
  }

  #finish({ message, set }: Entry<M>): void {
    set.undone.delete(message.id);
    this.#done += 1;
    this.#messages -= 1;
    this.#bytes -= message.bytes;
    if (message.lane !== undefined) {
      const next = this.#lanes.get(message.lane)!.shift();
      if (next === undefined) this.#lanes.delete(message.lane);
      else this.#ready.push(next);
    }
    this.#dropIfDone(set);
  }

  /** Of the last ones so many are known. */
  #refuses(destination: string): void {
    this.#refusing.add(destination);
    const [first] = this.#refusing;
    if (this.#refusing.size > this.#settings.maxRefusing) this.#refusing.delete(first!);
  }

  /** The oldest of those that were given up are written down: what follows them may go on. */
  #writtenDown(count: number): void {
    for (const { entry } of this.#dead.splice(0, count)) {
      this.#skipped.set(entry.message.id, entry.set);
      this.#finish(entry);
    }
  }

  /** They come before those that were read later. */
  #endPauses(isOver: (pausing: { readonly until: number; readonly isRefused: boolean }) => boolean): void {
    if (!this.#pausing.some(isOver)) return;
    const ready = this.#pausing.filter(isOver).map(({ entry }) => entry);
    this.#pausing = this.#pausing.filter((pausing) => !isOver(pausing));
    for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) ready.push(next);
    ready.sort((one, other) => Number(one.message.id - other.message.id));
    for (const entry of ready) this.#ready.push(entry);
  }

  #pauseAfter(failures: number): number {
    const { retryMinMs, retryMaxMs } = this.#settings;
    return backoffMs({ minMs: retryMinMs, maxMs: retryMaxMs }, failures);
  }
}
