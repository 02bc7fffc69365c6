/**
 * What a relay has read of the outbox, what of that is done, and the position that follows from it. Pure.
 *
 * A **series** is a part of the messages that has a position of its own: those of a role, or those of one route of a role. All
 * others are **main**. A message belongs to the most specific series that is open. A series is opened when its part has more than
 * one look may read, has no room in memory, or goes to a route that is away: so nobody waits for it.
 *
 * A **set** is what one snapshot sees and the one before does not, of one series. The sets of a series follow each other
 * without a gap, so that its position is that of its oldest set that is not done. A look reads main's next set completely, and with
 * it those of the series that join. If that is more than a look may read, it reads the roles with the fewest messages, or, if no role
 * fits, the oldest messages. What is left is the rest: its series reads it in pages. A series that has caught up, and has no rest in
 * a look that it joins, is closed: what is new belongs to main again. Its position is saved until all that it had read is done, and
 * all that main had read by then: main's position may be behind.
 *
 * Messages that are **dropped** leave memory without being done. Their sets are read again from the first of them. What comes
 * then and was not dropped, up to where the set had been read, is done or in memory already.
 */
import type { OutboxConstants } from "../../generated/ts/settings/outbox.js";
import type { Doubt } from "./doubt.js";
import type { OutboxMessage, OutboxPosition, SeriesPosition, Snapshot } from "./position.js";
import { shareOf } from "./shares.js";

/** A role takes part for so many looks after its last message. */
const rememberedLooks = 200;

/** A series that is not main. */
export interface SeriesName {
  readonly role: string;
  /** undefined: all routes of the role that have no series of their own. */
  readonly route: string | undefined;
}

/** A snapshot of this moment is taken, and what it sees is read in the order of ids: main's messages, and those of series that join. */
export interface LookRead {
  readonly kind: "look";
  /** Main's messages are those that this does not see. */
  readonly from: Snapshot;
  /** Those that are open. Messages of a series that does not join are left out. */
  readonly series: readonly (SeriesName & { readonly from: Snapshot; readonly joins: boolean })[];
  /** It tells of messages due later that this does not see; undefined: of all. */
  readonly laterFrom: Snapshot | undefined;
  /** One message is read whatever its size. */
  readonly maxMessages: number;
  readonly maxBytes: number;
}

/** More messages of a set, in the order of ids. */
export interface PageRead {
  readonly kind: "page";
  /** undefined: main. */
  readonly role: string | undefined;
  readonly route: string | undefined;
  /** Messages of these are left out: they are more specific series. */
  readonly excluded: readonly SeriesName[];
  readonly from: Snapshot;
  readonly to: Snapshot;
  readonly after: bigint;
  readonly maxMessages: number;
  readonly maxBytes: number;
}

export interface LookFound<M> {
  readonly kind: "look";
  /** The snapshot that was taken. */
  readonly to: Snapshot;
  readonly messages: readonly M[];
  /** Series that have more messages, behind `after`: that join, or are to be opened. */
  readonly rest: readonly (SeriesName & { readonly after: bigint })[];
}

export interface PageFound<M> {
  readonly kind: "page";
  readonly messages: readonly M[];
  /** The set has more. After a full page it may have none: then the next page is empty. */
  readonly hasMore: boolean;
}

/** What is known of the publishes of a message. */
export interface PublishState {
  /** undefined: it was not published. */
  doubt: Doubt | undefined;
  /** How often it was refused. */
  attempts: number;
  /** How often no answer came, in a row. */
  silences: number;
}

const neverPublished: PublishState = { doubt: undefined, attempts: 0, silences: 0 };

/** A message in memory. */
export interface Entry<M> extends PublishState {
  readonly message: M;
  set: ReadSet<M>;
  /** Behind another one of its lane, ready to be published, and so on. */
  place: "waiting" | "ready" | "under way" | "pausing" | "given up";
}

interface ReadSet<M> {
  /** The number of the look that has taken `to`; 0: it was taken by the relay before. */
  readonly nth: number;
  readonly series: Series<M>;
  readonly from: Snapshot;
  readonly to: Snapshot;
  /** Everything up to this id has been read. */
  readTo: bigint;
  isRead: boolean;
  /** Read and not done, in the order of ids. */
  undone: Map<bigint, Entry<M>>;
  readonly isInDoubt: boolean;
  /** Up to `upTo` the set is read again: of that, those that were dropped are not done. */
  again: { readonly upTo: bigint; readonly dropped: Map<bigint, PublishState> } | undefined;
}

interface Series<M> {
  /** undefined: main. */
  readonly role: string | undefined;
  readonly route: string | undefined;
  /** The end of the last set. */
  frontier: Snapshot;
  /** This relay has taken that snapshot: nobody has published what comes behind it. */
  isFrontierOwn: boolean;
  /** Those that are not done, the oldest first. */
  sets: ReadSet<M>[];
  isOpen: boolean;
  /** It is not read. */
  isAway: boolean;
  /** The last look has left it out. */
  isLeftOut: boolean;
  /** The number of the look that has closed it. */
  closedAt: number;
}

export type ReadingSettings = Pick<OutboxConstants, "maxMessages" | "maxBytes" | "pageMessages" | "sharedPageMessages">;

/** A dead letter that the position may not have passed. */
interface Skipped {
  readonly role: string;
  readonly route: string;
  readonly nth: number;
}

export class OutboxReading<M extends OutboxMessage> {
  readonly #settings: ReadingSettings;
  readonly #main: Series<M>;
  /** The series that are saved. They are read in turns, in this order. */
  readonly #series = new Map<string, Series<M>>();
  readonly #entries = new Map<bigint, Entry<M>>();
  /** What roles have in memory. */
  readonly #roles = new Map<string, { messages: number; bytes: number }>();
  #looks = 0;
  /** The last looks that have found messages of roles, the oldest first. */
  readonly #seen = new Map<string, number>();
  /** Dead letters that the position has not passed; undefined: this relay has not read the message. */
  readonly #skipped: Map<bigint, Skipped | undefined>;
  /** Of what the relay before may have published. */
  readonly #inDoubt: PublishState;

  /** @param now when this relay has taken over */
  constructor(position: OutboxPosition, now: number, settings: ReadingSettings) {
    this.#settings = settings;
    this.#inDoubt = { ...neverPublished, doubt: { from: Number.NEGATIVE_INFINITY, until: now } };
    this.#main = seriesFrom(undefined, undefined, position);
    this.#skipped = new Map(position.skipped.map((id) => [id, undefined]));
    for (const each of position.series) {
      const { role, route } = each;
      this.#series.set(keyOf(role, route), seriesFrom(role, route, each));
    }
  }

  /** Where everything is done up to. */
  get position(): OutboxPosition {
    const series = [...this.#series.values()].map((each): SeriesPosition => {
      return { role: each.role!, route: each.route, ...placeOf(each) };
    });
    const skipped = [...this.#skipped].flatMap(([id, known]) => (this.#isPassed(id, known) ? [] : [id]));
    return { ...placeOf(this.#main), series, skipped };
  }

  /** How many messages are in memory. */
  get messages(): number {
    return this.#entries.size;
  }

  /** How many messages were read and are not done, also those that were dropped. */
  get waiting(): number {
    const sets = [...this.#series.values()].flatMap((series) => series.sets);
    return sets.reduce((sum, { again }) => sum + (again?.dropped.size ?? 0), this.#entries.size);
  }

  /** The message in memory that was enqueued first, of those that positions wait for. */
  get oldest(): M | undefined {
    let oldest: M | undefined;
    for (const { sets } of [this.#main, ...this.#series.values()]) {
      const [first] = sets[0]?.undone.values() ?? [];
      if (first !== undefined && (oldest === undefined || first.message.id < oldest.id)) oldest = first.message;
    }
    return oldest;
  }

  // ---- what is read ----

  /** What the relay before has begun to read of main was read. */
  get canLook(): boolean {
    return isCaughtUp(this.#main);
  }

  /** A series was left out of the last look, and could join the next one. */
  get canJoin(): boolean {
    if (!this.canLook) return false;
    for (const series of this.#series.values()) if (series.isLeftOut && this.#joins(series)) return true;
    return false;
  }

  /** {@link page} has one. */
  get canPage(): boolean {
    return this.#nextToPage !== undefined;
  }

  look(): LookRead {
    this.#openFull();
    const series = [...this.#series.values()].filter(({ isOpen }) => isOpen);
    const { maxBytes } = this.#settings;
    return {
      kind: "look",
      from: this.#main.frontier,
      laterFrom: this.#looks > 0 ? this.#main.frontier : undefined,
      series: series.map((each) => {
        const joins = this.#joins(each);
        each.isLeftOut = !joins;
        return { role: each.role!, route: each.route, from: each.frontier, joins };
      }),
      maxMessages: this.#pageMessages,
      maxBytes: shareOf(maxBytes * 2, Math.max(1, this.#roles.size)),
    };
  }

  /** Of the series that has waited longest. */
  page(): PageRead | undefined {
    const series = this.#nextToPage;
    if (series === undefined) return undefined;
    const { role, route } = series;
    if (role === undefined) this.#openFull();
    else {
      const key = keyOf(role, route);
      this.#series.delete(key);
      this.#series.set(key, series);
    }
    const { from, to, readTo } = series.sets.find(({ isRead }) => !isRead)!;
    const room = this.#roomOf(role);
    const isWithin = (other: Series<M>): boolean =>
      other !== series && other.isOpen && route === undefined && (role === undefined || other.role === role);
    const excluded = [...this.#series.values()].filter(isWithin);
    return {
      kind: "page",
      role,
      route,
      excluded: excluded.map((each) => ({ role: each.role!, route: each.route })),
      from,
      to,
      after: readTo,
      maxMessages: Math.min(this.#pageMessages, room.messages),
      maxBytes: room.bytes,
    };
  }

  /** @returns the new messages, in the order of ids */
  takeLook(read: LookRead, { to, messages, rest }: LookFound<M>): readonly Entry<M>[] {
    this.#looks += 1;
    const nth = this.#looks;
    const last = messages.at(-1)?.id ?? 0n;
    // One that went away since then is read from where it was.
    const joined = read.series.flatMap(({ role, route, joins }) => {
      const series = this.#series.get(keyOf(role, route));
      return joins && series?.isOpen && !series.isAway && isCaughtUp(series) ? [series] : [];
    });
    const reads = new Set([this.#main, ...joined]);
    const setOf = (series: Series<M>): ReadSet<M> => {
      const known = series.sets.at(-1);
      if (known?.nth === nth) return known;
      const set = newSet<M>(series, nth, series.frontier, to, { readTo: last, isRead: true });
      series.sets.push(set);
      return set;
    };
    const added: Entry<M>[] = [];
    for (const message of messages) {
      this.#see(message.role);
      const series = this.#seriesOf(message);
      const entry = reads.has(series) ? this.#add(setOf(series), message) : undefined;
      if (entry !== undefined) added.push(entry);
    }
    for (const { role, route, after } of rest) {
      let series = this.#series.get(keyOf(role, route));
      if (series?.isOpen !== true) {
        // A route that has no series any more is its role's.
        series = this.#open(role, undefined);
        reads.add(series);
      }
      if (!reads.has(series)) continue;
      const set = setOf(series);
      set.readTo = set.isRead || after < set.readTo ? after : set.readTo;
      set.isRead = false;
    }
    for (const series of reads) {
      series.frontier = to;
      series.isFrontierOwn = true;
      series.isLeftOut = false;
    }
    this.#close(joined);
    for (const series of reads) this.#dropDone(series);
    this.#forgetSkipped();
    return added;
  }

  /** @returns the new messages, in the order of ids */
  takePage(read: PageRead, { messages, hasMore }: PageFound<M>): readonly Entry<M>[] {
    const series = read.role === undefined ? this.#main : this.#series.get(keyOf(read.role, read.route));
    const set = series?.sets.find(({ isRead }) => !isRead);
    // Otherwise it was dropped meanwhile.
    if (series === undefined || series.isAway || set === undefined || set.to !== read.to || set.readTo !== read.after)
      return [];
    const added: Entry<M>[] = [];
    for (const message of messages) {
      // Its route has a series since then.
      if (this.#seriesOf(message) !== series) continue;
      const { again } = set;
      const isAgain = again !== undefined && message.id <= again.upTo;
      const dropped = again?.dropped.get(message.id);
      if (isAgain && dropped === undefined) continue;
      again?.dropped.delete(message.id);
      const entry = this.#add(set, message, dropped);
      if (entry !== undefined) added.push(entry);
    }
    set.readTo = messages.at(-1)?.id ?? set.readTo;
    set.isRead = !hasMore;
    if (set.again !== undefined) {
      set.undone = new Map([...set.undone].sort(([one], [other]) => Number(one - other)));
      if (set.isRead || set.readTo >= set.again.upTo) set.again = undefined;
    }
    this.#dropDone(series);
    this.#forgetSkipped();
    return added;
  }

  // ---- what becomes of it ----

  /** A message is done. */
  finish(entry: Entry<M>): void {
    const { set } = entry;
    this.#remove(entry);
    if (!set.isRead || set.undone.size > 0) return;
    this.#dropDone(set.series);
    this.#forgetSkipped();
  }

  /** A message is a dead letter: the position says so until it has passed it. */
  skip(entry: Entry<M>): void {
    const { id, role, route } = entry.message;
    this.#skipped.set(id, { role, route, nth: entry.set.nth });
    this.finish(entry);
  }

  /**
   * A route of a role is away: it has a series of its own, which is not read until {@link resume}. Its messages leave memory.
   *
   * @returns those that have left
   */
  suspend({ role, route }: M, isKept: (entry: Entry<M>) => boolean): readonly Entry<M>[] {
    const series = this.#open(role, route);
    series.isAway = true;
    series.isLeftOut = true;
    return series.sets.flatMap((set) => {
      const dropped = [...set.undone.values()].filter((entry) => !isKept(entry));
      this.#drop(set, dropped);
      return dropped;
    });
  }

  /** A message of a route that is away leaves memory. */
  drop(entry: Entry<M>): void {
    this.#drop(entry.set, [entry]);
  }

  /** A route is not away any more. */
  resume({ role, route }: M): void {
    const series = this.#series.get(keyOf(role, route));
    if (series !== undefined) series.isAway = false;
  }

  // ---- series ----

  #seriesOf({ role, route }: M): Series<M> {
    const own = this.#series.get(keyOf(role, route));
    if (own?.isOpen === true) return own;
    const ofRole = this.#series.get(keyOf(role, undefined));
    return ofRole?.isOpen === true ? ofRole : this.#main;
  }

  #joins(series: Series<M>): boolean {
    return series.isOpen && !series.isAway && isCaughtUp(series) && this.#hasRoom(series.role!);
  }

  get #nextToPage(): Series<M> | undefined {
    if (!this.canLook) return this.#main;
    for (const series of this.#series.values()) {
      if (!series.isAway && !isCaughtUp(series) && this.#hasRoom(series.role!)) return series;
    }
    return undefined;
  }

  /** Roles that have no room in memory have series of their own. */
  #openFull(): void {
    for (const role of this.#roles.keys()) if (!this.#hasRoom(role)) this.#open(role, undefined);
  }

  /** A series for what belongs to main, or to the series of its role, as far as it is not done. */
  #open(role: string, route: string | undefined): Series<M> {
    const key = keyOf(role, route);
    const known = this.#series.get(key);
    if (known?.isOpen === true) return known;
    const ofRole = route === undefined ? undefined : this.#series.get(keyOf(role, undefined));
    const parent = ofRole?.isOpen === true ? ofRole : this.#main;
    const series = known ?? seriesAt<M>(role, route, parent.frontier);
    this.#series.set(key, series);
    const belongs = ({ message }: Entry<M>): boolean => this.#seriesOf(message) === series;
    series.isOpen = true;
    series.frontier = parent.frontier;
    series.isFrontierOwn = parent.isFrontierOwn;
    const sources = ofRole === undefined ? [this.#main] : [this.#main, ofRole];
    for (const source of sources) {
      for (const set of source.sets) {
        const moved = [...set.undone.values()].filter(belongs);
        if (moved.length === 0 && set.isRead) continue;
        const { nth, from, to, isInDoubt, readTo, isRead } = set;
        const copy = { ...newSet<M>(series, nth, from, to, { readTo, isRead }), isInDoubt };
        for (const entry of moved) {
          set.undone.delete(entry.message.id);
          copy.undone.set(entry.message.id, entry);
          entry.set = copy;
        }
        series.sets.push(copy);
      }
      this.#dropDone(source);
    }
    series.sets.sort((one, other) => one.nth - other.nth);
    return series;
  }

  /** What is new of those that were read completely is their role's again, or main's. */
  #close(joined: readonly Series<M>[]): void {
    for (const isRoute of [false, true]) {
      for (const series of joined) {
        if ((series.route !== undefined) !== isRoute || !isCaughtUp(series)) continue;
        // The role's series may not have been read as far.
        const isWithin = isRoute && this.#series.get(keyOf(series.role!, undefined))?.isOpen === true;
        if (!isWithin) {
          series.isOpen = false;
          series.closedAt = this.#looks;
        }
        this.#dropDone(series);
      }
    }
  }

  #dropDone(series: Series<M>): void {
    series.sets = series.sets.filter(({ isRead, undone }) => !isRead || undone.size > 0);
    // Until main has done what it had read before, main's position may be behind that of a series that was closed.
    for (const [key, { isOpen, sets, route, role, closedAt }] of this.#series) {
      const before = [this.#main, route === undefined ? undefined : this.#series.get(keyOf(role!, undefined))];
      const isBehind = before.some((each) => each?.sets.some(({ nth }) => nth <= closedAt));
      if (!isOpen && sets.length === 0 && !isBehind) this.#series.delete(key);
    }
  }

  // ---- messages ----

  /** @returns undefined: it is a dead letter, or need not be published */
  #add(set: ReadSet<M>, message: M, dropped?: PublishState): Entry<M> | undefined {
    const { id, role, route, bytes, copyOf } = message;
    if (this.#skipped.has(id)) {
      this.#skipped.set(id, { role, route, nth: set.nth });
      return undefined;
    }
    // What was written again is published anyway while the first one is not done.
    if (this.#entries.has(id) || (copyOf !== undefined && this.#isUndone(copyOf))) return undefined;
    const { doubt, attempts, silences } = dropped ?? (set.isInDoubt ? this.#inDoubt : neverPublished);
    const entry: Entry<M> = { message, set, place: "waiting", doubt, attempts, silences };
    set.undone.set(id, entry);
    this.#entries.set(id, entry);
    const memory = this.#roles.get(role) ?? { messages: 0, bytes: 0 };
    this.#roles.set(role, memory);
    memory.messages += 1;
    memory.bytes += bytes;
    return entry;
  }

  #isUndone(id: bigint): boolean {
    if (this.#entries.has(id)) return true;
    for (const { sets } of this.#series.values()) {
      if (sets.some(({ again }) => again?.dropped.has(id) === true)) return true;
    }
    return false;
  }

  #remove({ set, message: { id, role, bytes } }: Entry<M>): void {
    set.undone.delete(id);
    this.#entries.delete(id);
    const memory = this.#roles.get(role)!;
    memory.messages -= 1;
    memory.bytes -= bytes;
    if (memory.messages === 0) this.#roles.delete(role);
  }

  #drop(set: ReadSet<M>, entries: readonly Entry<M>[]): void {
    if (entries.length === 0) return;
    const { upTo = set.readTo, dropped = new Map<bigint, PublishState>() } = set.again ?? {};
    for (const entry of entries) {
      const { id } = entry.message;
      this.#remove(entry);
      const { doubt, attempts, silences } = entry;
      dropped.set(id, { doubt, attempts, silences });
      if (id <= set.readTo) set.readTo = id - 1n;
    }
    set.again = { upTo, dropped };
    set.isRead = false;
  }

  // ---- memory ----

  #see(role: string): void {
    if (this.#seen.get(role) === this.#looks) return;
    this.#seen.delete(role);
    this.#seen.set(role, this.#looks);
    for (const [known, look] of this.#seen) {
      if (this.#looks - look <= rememberedLooks) break;
      this.#seen.delete(known);
    }
  }

  get #pageMessages(): number {
    const { pageMessages, sharedPageMessages } = this.#settings;
    return this.#seen.size > 1 ? sharedPageMessages : pageMessages;
  }

  /** @param role undefined: any that has nothing in memory */
  #roomOf(role: string | undefined): { messages: number; bytes: number } {
    const { messages = 0, bytes = 0 } = (role === undefined ? undefined : this.#roles.get(role)) ?? {};
    const users = this.#roles.size + (messages === 0 ? 1 : 0);
    const { maxMessages, maxBytes } = this.#settings;
    return { messages: shareOf(maxMessages * 2, users) - messages, bytes: shareOf(maxBytes * 2, users) - bytes };
  }

  /** For half a page at least: what comes in drops costs a turn each. */
  #hasRoom(role: string): boolean {
    const { maxMessages, pageMessages } = this.#settings;
    const { messages, bytes } = this.#roomOf(role);
    const page = Math.min(pageMessages, shareOf(maxMessages * 2, Math.max(1, this.#roles.size)));
    return messages > 0 && messages * 2 >= page && bytes > 0;
  }

  // ---- dead letters ----

  /** By the positions of main and of all series that the message may belong to at the next relay. */
  #isPassed(id: bigint, known: Skipped | undefined): boolean {
    if (known === undefined) return false;
    const { role, route, nth } = known;
    const series = [this.#series.get(keyOf(role, undefined)), this.#series.get(keyOf(role, route))];
    return [this.#main, ...series].every((each) => {
      const oldest = each?.sets[0];
      return oldest === undefined || oldest.nth > nth || (oldest.nth === nth && id <= doneUpTo(oldest));
    });
  }

  /**
   * Those that the position has passed. And of the relay before, when all is read that it may have read: what has not come was
   * truncated with its slot.
   */
  #forgetSkipped(): void {
    if (this.#skipped.size === 0) return;
    const isAllRead = [this.#main, ...this.#series.values()].every((each) => each.isFrontierOwn && isCaughtUp(each));
    for (const [id, known] of this.#skipped) {
      if (known === undefined ? isAllRead : this.#isPassed(id, known)) this.#skipped.delete(id);
    }
  }
}

function keyOf(role: string, route: string | undefined): string {
  return route === undefined ? role : `${role}\0${route}`;
}

function seriesAt<M>(role: string | undefined, route: string | undefined, frontier: Snapshot): Series<M> {
  const isOpen = true;
  return { role, route, frontier, isFrontierOwn: false, sets: [], isOpen, isAway: false, isLeftOut: true, closedAt: 0 };
}

/** As the relay before has saved it. */
function seriesFrom<M>(
  role: string | undefined,
  route: string | undefined,
  { from, to, after }: Pick<OutboxPosition, "from" | "to" | "after">,
): Series<M> {
  const series = seriesAt<M>(role, route, to ?? from);
  if (to !== undefined) series.sets = [newSet<M>(series, 0, from, to, { readTo: after, isRead: false })];
  return series;
}

function newSet<M>(
  series: Series<M>,
  nth: number,
  from: Snapshot,
  to: Snapshot,
  read: { readonly readTo: bigint; readonly isRead: boolean },
): ReadSet<M> {
  return { nth, series, from, to, ...read, undone: new Map(), isInDoubt: !series.isFrontierOwn, again: undefined };
}

function isCaughtUp<M>({ sets }: Series<M>): boolean {
  return sets.every(({ isRead }) => isRead);
}

/** Of the set everything is done up to this id. */
function doneUpTo<M>({ readTo, undone }: ReadSet<M>): bigint {
  const [first] = undone.keys();
  return first === undefined || first > readTo ? readTo : first - 1n;
}

function placeOf<M>({ frontier, sets: [oldest] }: Series<M>): Pick<OutboxPosition, "from" | "to" | "after"> {
  if (oldest === undefined) return { from: frontier, to: undefined, after: 0n };
  return { from: oldest.from, to: oldest.to, after: doneUpTo(oldest) };
}
