/**
 * Messages that a relay has read from the outbox, their completion, and the resulting position. Pure.
 *
 * A **series** is a part of the messages with its own position: the messages of a role, or of one route of a role. All
 * other messages form the **main** series. A message belongs to the most specific open series. A series is opened when
 * its part exceeds what one poll may read, has no space in memory, or goes to a route that is away, so that it does not
 * delay others.
 *
 * A **set** contains the messages of one series that one snapshot sees and the previous one does not. The sets of a
 * series are contiguous, so that its position is that of its oldest unfinished set. A poll reads the next set of main
 * completely, together with the next sets of the series that join the poll. If they exceed the limit of a poll, it
 * reads the roles with the fewest messages or, if no role fits, the oldest messages. The remaining messages are the
 * rest: their series reads them in pages. A series is closed when it has caught up and has no rest in a poll that it
 * joins; new messages belong to main again. Its position stays saved until all messages are done that it has read, and
 * that main had read when it was closed, because main's position may be behind.
 *
 * **Dropped** messages leave memory without being done. Their sets are read again from the first dropped message. In
 * the range that had been read before, only dropped messages enter memory again: all others are done or in memory
 * already.
 */
import { outboxConstants } from "../../../generated/ts/settings/outbox.js";
import { shareOf } from "../../foundation/runtime/index.js";
import type { Doubt } from "./doubt.js";
import type { OutboxMessage, OutboxPosition, SeriesPosition, Snapshot } from "./position.js";

/** Number of polls for which a role counts as active after its last message. */
const rememberedPolls = 200;

/** Series other than main. */
export interface SeriesName {
  readonly role: string;
  /** Undefined for all routes of the role that have no series of their own. */
  readonly route: string | undefined;
}

/**
 * Poll: takes a snapshot, and reads the messages that the snapshot sees, in the order of ids, for main and for the
 * series that join.
 */
export interface PollRead {
  readonly kind: "poll";
  /** Previous snapshot of main. The poll reads the messages that this snapshot does not see. */
  readonly from: Snapshot;
  /** Open series. Messages of a series that does not join are excluded. */
  readonly series: readonly (SeriesName & { readonly from: Snapshot; readonly joins: boolean })[];
  /**
   * Previous snapshot of main. The poll reports the scheduled messages that this snapshot does not see; undefined to
   * report all.
   */
  readonly laterFrom: Snapshot | undefined;
  readonly maxMessages: number;
  readonly maxBytes: number;
}

/** Page: reads more messages of a set, in the order of ids. */
export interface PageRead {
  readonly kind: "page";
  /** Undefined for main. */
  readonly role: string | undefined;
  readonly route: string | undefined;
  /** More specific series, whose messages are excluded. */
  readonly excluded: readonly SeriesName[];
  readonly from: Snapshot;
  readonly to: Snapshot;
  readonly after: bigint;
  readonly maxMessages: number;
  readonly maxBytes: number;
}

export interface PollFound<M> {
  readonly kind: "poll";
  /** Snapshot of the poll. */
  readonly to: Snapshot;
  readonly messages: readonly M[];
  /** Series with more messages after id `after`: series that join, or that must be opened. */
  readonly rest: readonly (SeriesName & { readonly after: bigint })[];
}

export interface PageFound<M> {
  readonly kind: "page";
  readonly messages: readonly M[];
  /** True if the set has more messages. After a full page it may have none, so that the next page is empty. */
  readonly hasMore: boolean;
}

/** Publish attempts of a message. */
export interface PublishState {
  /** Undefined if the message was not published. */
  doubt: Doubt | undefined;
  /** Number of refusals, and of connections that ended while the message alone was tried. */
  attempts: number;
  /** Number of consecutive publishes without an answer. */
  unanswered: number;
}

const neverPublished: PublishState = { doubt: undefined, attempts: 0, unanswered: 0 };

/** Message in memory. */
export interface Entry<M> extends PublishState {
  readonly message: M;
  set: ReadSet<M>;
  /** True if the connection ended while the message was in flight, until it is answered. */
  isSuspect: boolean;
  /** True if the message was tried alone then. */
  wasAlone: boolean;
  /** State of the message. `waiting`: behind another message of its lane. */
  place: "waiting" | "ready" | "in flight" | "pausing" | "dead";
}

interface ReadSet<M> {
  /** Number of the poll that took the snapshot `to`; 0 for the previous relay. */
  readonly nth: number;
  readonly series: Series<M>;
  readonly from: Snapshot;
  readonly to: Snapshot;
  /** Id up to which all messages have been read. */
  readTo: bigint;
  isRead: boolean;
  /** Messages read and not done, in the order of ids. */
  undone: Map<bigint, Entry<M>>;
  readonly isInDoubt: boolean;
  /** While the set is read again, up to id `upTo`: only the `dropped` messages of that range are not done. */
  again: { readonly upTo: bigint; readonly dropped: Map<bigint, PublishState> } | undefined;
}

interface Series<M> {
  /** Undefined for main. */
  readonly role: string | undefined;
  readonly route: string | undefined;
  /** Snapshot at the end of the last set. */
  frontier: Snapshot;
  /** True if this relay took that snapshot, so that no other relay has published messages beyond it. */
  isFrontierOwn: boolean;
  /** Unfinished sets, the oldest first. */
  sets: ReadSet<M>[];
  isOpen: boolean;
  /** True while its route is away: it is not read. */
  isAway: boolean;
  /** True if the last poll excluded this series. */
  isExcluded: boolean;
  /** Number of the poll that closed this series. */
  closedAt: number;
}

/** Settings of {@link OutboxReading} by default. */
export const readingDefaults = {
  /** Maximum number of messages of one read. */
  pageMessages: outboxConstants.pageMessages as number,
  /**
   * Maximum number of unfinished messages of one role in the memory of a relay if it is the only role; with k roles,
   * each has twice that divided by k + 1.
   */
  maxMessages: 10_000,
  /** Maximum memory of these messages; a single message always fits. */
  maxBytes: 64 * 1024 * 1024,
  /** Maximum number of messages of one read while several roles enqueue, since the others wait for the page of one. */
  sharedPageMessages: 100,
};

export type ReadingSettings = Readonly<typeof readingDefaults>;

/** Dead letter that the position may not have passed. */
interface Skipped {
  readonly role: string;
  readonly route: string;
  readonly nth: number;
}

export class OutboxReading<M extends OutboxMessage> {
  readonly #settings: ReadingSettings;
  readonly #main: Series<M>;
  /** Saved series. They are paged round-robin, in this order. */
  readonly #series = new Map<string, Series<M>>();
  readonly #entries = new Map<bigint, Entry<M>>();
  /** Memory use by role. */
  readonly #roles = new Map<string, { messages: number; bytes: number }>();
  #polls = 0;
  /** Number of the last poll with messages, by role, in the order of these numbers. */
  readonly #activeRoles = new Map<string, number>();
  /** Dead letters that the position has not passed; undefined if this relay has not read the message. */
  readonly #skipped: Map<bigint, Skipped | undefined>;
  /** Initial publish state of messages that the previous relay may have published. */
  readonly #publishedBefore: PublishState;

  /** @param now time at which this relay took over */
  constructor(position: OutboxPosition, now: number, settings: ReadingSettings) {
    this.#settings = settings;
    this.#publishedBefore = { ...neverPublished, doubt: { from: Number.NEGATIVE_INFINITY, until: now } };
    this.#main = seriesFrom(undefined, undefined, position);
    this.#skipped = new Map(position.skipped.map((id) => [id, undefined]));
    for (const each of position.series) {
      const { role, route } = each;
      this.#series.set(keyOf(role, route), seriesFrom(role, route, each));
    }
  }

  /** Position up to which all messages are done. */
  get position(): OutboxPosition {
    const series = [...this.#series.values()].map((each): SeriesPosition => {
      return { role: each.role!, route: each.route, ...placeOf(each) };
    });
    const skipped = [...this.#skipped].flatMap(([id, known]) => (this.#isPassed(id, known) ? [] : [id]));
    return { ...placeOf(this.#main), series, skipped };
  }

  /** Number of messages in memory. */
  get messages(): number {
    return this.#entries.size;
  }

  /** Number of messages read and not done, including dropped ones. */
  get waiting(): number {
    const sets = [...this.#series.values()].flatMap((series) => series.sets);
    return sets.reduce((sum, { again }) => sum + (again?.dropped.size ?? 0), this.#entries.size);
  }

  /** Oldest message in memory that a position waits for. */
  get oldest(): M | undefined {
    let oldest: M | undefined;
    for (const { sets } of [this.#main, ...this.#series.values()]) {
      const [first] = sets[0]?.undone.values() ?? [];
      if (first !== undefined && (oldest === undefined || first.message.id < oldest.id)) oldest = first.message;
    }
    return oldest;
  }

  // ---- reads ----

  /** True if main has read the set that the previous relay started. */
  get canPoll(): boolean {
    return isCaughtUp(this.#main);
  }

  /** True if a series that the last poll excluded could join the next one. */
  get canJoin(): boolean {
    if (!this.canPoll) return false;
    for (const series of this.#series.values()) if (series.isExcluded && this.#joins(series)) return true;
    return false;
  }

  /** True if {@link page} returns a read. */
  get canPage(): boolean {
    return this.#nextToPage !== undefined;
  }

  poll(): PollRead {
    this.#openFullRoles();
    const series = [...this.#series.values()].filter(({ isOpen }) => isOpen);
    const { maxBytes } = this.#settings;
    return {
      kind: "poll",
      from: this.#main.frontier,
      laterFrom: this.#polls > 0 ? this.#main.frontier : undefined,
      series: series.map((each) => {
        const joins = this.#joins(each);
        each.isExcluded = !joins;
        return { role: each.role!, route: each.route, from: each.frontier, joins };
      }),
      maxMessages: this.#pageMessages,
      maxBytes: shareOf(maxBytes * 2, Math.max(1, this.#roles.size)),
    };
  }

  /** Next page, of the series that has waited longest. */
  page(): PageRead | undefined {
    const series = this.#nextToPage;
    if (series === undefined) return undefined;
    const { role, route } = series;
    if (role === undefined) this.#openFullRoles();
    else {
      const key = keyOf(role, route);
      this.#series.delete(key);
      this.#series.set(key, series);
    }
    const { from, to, readTo } = series.sets.find(({ isRead }) => !isRead)!;
    const free = this.#freeMemoryOf(role);
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
      maxMessages: Math.min(this.#pageMessages, free.messages),
      maxBytes: free.bytes,
    };
  }

  /** Adds the result of a poll. @returns the new messages, in the order of ids */
  takePoll(read: PollRead, { to, messages, rest }: PollFound<M>): readonly Entry<M>[] {
    this.#polls += 1;
    const nth = this.#polls;
    const last = messages.at(-1)?.id ?? 0n;
    // A series that was suspended during the poll reads the messages later, from its own position.
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
      this.#markActive(message.role);
      const series = this.#seriesOf(message);
      const entry = reads.has(series) ? this.#add(setOf(series), message) : undefined;
      if (entry !== undefined) added.push(entry);
    }
    for (const { role, route, after } of rest) {
      let series = this.#series.get(keyOf(role, route));
      if (series?.isOpen !== true) {
        // A route without an open series belongs to the series of its role.
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
      series.isExcluded = false;
    }
    this.#close(joined);
    for (const series of reads) this.#dropDone(series);
    this.#removeSkipped();
    return added;
  }

  /** Adds the result of a page. @returns the new messages, in the order of ids */
  takePage(read: PageRead, { messages, hasMore }: PageFound<M>): readonly Entry<M>[] {
    const series = read.role === undefined ? this.#main : this.#series.get(keyOf(read.role, read.route));
    const set = series?.sets.find(({ isRead }) => !isRead);
    // The set may have been dropped during the read.
    if (series === undefined || series.isAway || set === undefined || set.to !== read.to || set.readTo !== read.after)
      return [];
    const added: Entry<M>[] = [];
    for (const message of messages) {
      // A series was opened for the route during the read.
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
    this.#removeSkipped();
    return added;
  }

  // ---- completion ----

  /** Records that a message is done. */
  finish(entry: Entry<M>): void {
    const { set } = entry;
    this.#remove(entry);
    if (!set.isRead || set.undone.size > 0) return;
    this.#dropDone(set.series);
    this.#removeSkipped();
  }

  /** Records that a message is a dead letter. The position contains its id until it has passed it. */
  skip(entry: Entry<M>): void {
    const { id, role, route } = entry.message;
    this.#skipped.set(id, { role, route, nth: entry.set.nth });
    this.finish(entry);
  }

  /**
   * Suspends a route of a role: its own series is not read until {@link resume}, and its messages leave memory.
   *
   * @returns the removed messages
   */
  suspend({ role, route }: M, isKept: (entry: Entry<M>) => boolean): readonly Entry<M>[] {
    const series = this.#open(role, route);
    series.isAway = true;
    series.isExcluded = true;
    return series.sets.flatMap((set) => {
      const dropped = [...set.undone.values()].filter((entry) => !isKept(entry));
      this.#drop(set, dropped);
      return dropped;
    });
  }

  /** Removes a message of a suspended route from memory. */
  drop(entry: Entry<M>): void {
    this.#drop(entry.set, [entry]);
  }

  /** Ends the suspension of a route. */
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
    return series.isOpen && !series.isAway && isCaughtUp(series) && this.#hasMemory(series.role!);
  }

  get #nextToPage(): Series<M> | undefined {
    if (!this.canPoll) return this.#main;
    for (const series of this.#series.values()) {
      if (!series.isAway && !isCaughtUp(series) && this.#hasMemory(series.role!)) return series;
    }
    return undefined;
  }

  /** Opens a series for each role that has no space in memory. */
  #openFullRoles(): void {
    for (const role of this.#roles.keys()) if (!this.#hasMemory(role)) this.#open(role, undefined);
  }

  /** Opens a series for unfinished messages that belonged to main or to the series of their role. */
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

  /** Closes series that were read completely. Their new messages belong to the series of the role or to main again. */
  #close(joined: readonly Series<M>[]): void {
    for (const isRoute of [false, true]) {
      for (const series of joined) {
        if ((series.route !== undefined) !== isRoute || !isCaughtUp(series)) continue;
        // The series of the role may lag behind, so the series stays open.
        const isWithin = isRoute && this.#series.get(keyOf(series.role!, undefined))?.isOpen === true;
        if (!isWithin) {
          series.isOpen = false;
          series.closedAt = this.#polls;
        }
        this.#dropDone(series);
      }
    }
  }

  #dropDone(series: Series<M>): void {
    series.sets = series.sets.filter(({ isRead, undone }) => !isRead || undone.size > 0);
    // A closed series is kept until main has finished the messages that it had read when the series was closed, because
    // the position of main may be behind.
    for (const [key, { isOpen, sets, route, role, closedAt }] of this.#series) {
      const before = [this.#main, route === undefined ? undefined : this.#series.get(keyOf(role!, undefined))];
      const isBehind = before.some((each) => each?.sets.some(({ nth }) => nth <= closedAt));
      if (!isOpen && sets.length === 0 && !isBehind) this.#series.delete(key);
    }
  }

  // ---- messages ----

  /** Adds a message. @returns undefined if it is a dead letter or need not be published */
  #add(set: ReadSet<M>, message: M, dropped?: PublishState): Entry<M> | undefined {
    const { id, role, route, bytes, copyOf } = message;
    if (this.#skipped.has(id)) {
      this.#skipped.set(id, { role, route, nth: set.nth });
      return undefined;
    }
    // A replay is not needed while its original is unfinished, because the original will be published.
    if (this.#entries.has(id) || (copyOf !== undefined && this.#isUndone(copyOf))) return undefined;
    const { doubt, attempts, unanswered } = dropped ?? (set.isInDoubt ? this.#publishedBefore : neverPublished);
    const entry: Entry<M> = {
      message,
      set,
      place: "waiting",
      isSuspect: false,
      wasAlone: false,
      doubt,
      attempts,
      unanswered,
    };
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
      const { doubt, attempts, unanswered } = entry;
      dropped.set(id, { doubt, attempts, unanswered });
      if (id <= set.readTo) set.readTo = id - 1n;
    }
    set.again = { upTo, dropped };
    set.isRead = false;
  }

  // ---- memory ----

  #markActive(role: string): void {
    if (this.#activeRoles.get(role) === this.#polls) return;
    this.#activeRoles.delete(role);
    this.#activeRoles.set(role, this.#polls);
    for (const [known, poll] of this.#activeRoles) {
      if (this.#polls - poll <= rememberedPolls) break;
      this.#activeRoles.delete(known);
    }
  }

  get #pageMessages(): number {
    const { pageMessages, sharedPageMessages } = this.#settings;
    return this.#activeRoles.size > 1 ? sharedPageMessages : pageMessages;
  }

  /** Free memory of a role. @param role undefined for a role that has nothing in memory */
  #freeMemoryOf(role: string | undefined): { messages: number; bytes: number } {
    const { messages = 0, bytes = 0 } = (role === undefined ? undefined : this.#roles.get(role)) ?? {};
    const users = this.#roles.size + (messages === 0 ? 1 : 0);
    const { maxMessages, maxBytes } = this.#settings;
    return { messages: shareOf(maxMessages * 2, users) - messages, bytes: shareOf(maxBytes * 2, users) - bytes };
  }

  /** True if a role has memory for at least half a page, because each read costs a turn, however small. */
  #hasMemory(role: string): boolean {
    const { maxMessages, pageMessages } = this.#settings;
    const { messages, bytes } = this.#freeMemoryOf(role);
    const page = Math.min(pageMessages, shareOf(maxMessages * 2, Math.max(1, this.#roles.size)));
    return messages > 0 && messages * 2 >= page && bytes > 0;
  }

  // ---- dead letters ----

  /** Returns true if the positions of main and of all series that may contain the message have passed it. */
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
   * Removes dead letters that the position has passed. When this relay has read everything that the previous relay may
   * have read, also removes the dead letters of the previous relay that did not appear: they were truncated with their
   * segment.
   */
  #removeSkipped(): void {
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
  return {
    role,
    route,
    frontier,
    isFrontierOwn: false,
    sets: [],
    isOpen,
    isAway: false,
    isExcluded: true,
    closedAt: 0,
  };
}

/** Restores a saved series. */
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

/** Id up to which all messages of the set are done. */
function doneUpTo<M>({ readTo, undone }: ReadSet<M>): bigint {
  const [first] = undone.keys();
  return first === undefined || first > readTo ? readTo : first - 1n;
}

function placeOf<M>({ frontier, sets: [oldest] }: Series<M>): Pick<OutboxPosition, "from" | "to" | "after"> {
  if (oldest === undefined) return { from: frontier, to: undefined, after: 0n };
  return { from: oldest.from, to: oldest.to, after: doneUpTo(oldest) };
}
