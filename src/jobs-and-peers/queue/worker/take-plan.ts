/**
 * Plan of a worker of the queue: which topics it looks at next, and from which message on at each place.
 *
 * Messages may commit in another order than that of their ranks. So after a notification that finds nothing in front, and with
 * each poll, a topic is looked at again from its first message on. Pure: `takes.ts` sends the statements and has the timers.
 */
import type { Looked, QueuePlace } from "../../store/index.js";

/** Time until messages of a topic with limits are looked at again that were passed. */
const passedLimitMs = 1_000;

/** Interval of looks at all messages of a topic with a backlog: as a rule, and as long as something asks for one. */
const wholeMs = 1_000;
const leastWholeMs = 250;
/**
 * Least interval as a multiple of what the last of these looks took. Beside an old snapshot, messages that are gone stay in front of
 * those that wait, and each of these looks passes all of them.
 */
const wholeShare = 10;
/** Longest interval of these looks. */
const longestWholeMs = 30_000;

interface Backlog {
  /** Time of the last look at all messages. */
  readonly wholeAt: number;
  /** Time in ms that this look took; undefined while it is under way. */
  tookMs: number | undefined;
}

/** Topics to take messages of, and their maximum number. */
export interface Take {
  readonly topics: readonly string[];
  readonly most: number;
}

/**
 * Result of a take. `more`: there may be more messages. `passed`: the take left messages that another worker looks at, or
 * whose key another worker has. `all`: it has looked at all messages.
 */
type Found = "more" | "passed" | "all";

export class TakePlan {
  /** Ranks up to which the worker has looked, by topic, recipient and role. */
  readonly #after = new Map<string, Record<string, Record<string, string>>>();
  /** The same for topics of which it looks at all messages again: up to where it had looked before. */
  readonly #behind = new Map<string, Looked[string]>();
  /** Topics that may have messages behind {@link #after}. */
  readonly wanted = new Set<string>();
  /** Topics of which all rows are to be looked at, since some may have committed late. */
  readonly #late = new Set<string>();
  /** Topics of which messages were passed. */
  readonly #left = new Set<string>();
  /** Topics with a backlog, which are wanted. */
  readonly #backlogs = new Map<string, Backlog>();
  /** Topics with limits, and the time from which more of their messages may start. */
  readonly #limited = new Map<string, number>();

  /** Notes that a topic may have messages. @param isNotified true if those who enqueue notify now */
  wants(topic: string, isNotified: boolean): void {
    // The transaction with the lower ranks may be the one that has committed last.
    if (isNotified && this.wanted.has(topic)) this.wantsAll(topic);
    this.wanted.add(topic);
  }

  /** All messages of a topic are to be looked at. */
  wantsAll(topic: string): void {
    this.#late.add(topic);
    this.wanted.add(topic);
  }

  /** All messages of the topics are to be looked at of which some were passed. */
  wantsPassed(): void {
    for (const topic of this.#left) this.wantsAll(topic);
    this.#left.clear();
  }

  /** A key of a topic is free again. */
  keyFreed(topic: string): void {
    if (this.#left.delete(topic)) this.wantsAll(topic);
  }

  /** Sets the topics with limits. @returns those that had none before */
  setLimited(topics: readonly string[]): string[] {
    for (const topic of this.#limited.keys()) if (!topics.includes(topic)) this.#limited.delete(topic);
    const added = topics.filter((topic) => !this.#limited.has(topic));
    for (const topic of added) this.#limited.set(topic, 0);
    return added;
  }

  isLimited(topic: string): boolean {
    return this.#limited.has(topic);
  }

  /** True while the limits of the topic let nothing start. */
  isWaiting(topic: string, now: number): boolean {
    return (this.#limited.get(topic) ?? 0) > now;
  }

  /** Topics with limits that are to be looked at now. */
  *limitedToTake(now: number): Generator<string> {
    for (const topic of this.#limited.keys()) if (this.wanted.has(topic) && !this.isWaiting(topic, now)) yield topic;
  }

  /** More messages of a topic with limits may start: one has ended, or the limits are others. */
  mayStart(topic: string): void {
    if (!this.#limited.has(topic)) return;
    this.#limited.set(topic, 0);
    this.#left.delete(topic);
    this.wantsAll(topic);
  }

  /** Time until which topics with limits have to wait, the first of them; Infinity if none has to. */
  deadline(now: number): number {
    let deadline = Number.POSITIVE_INFINITY;
    for (const [topic, at] of this.#limited) if (at > now && this.wanted.has(topic)) deadline = Math.min(deadline, at);
    return deadline;
  }

  /** Begins to take messages of topics. @returns from where on */
  begin(topics: readonly string[], now: number): Looked {
    for (const topic of topics) {
      // Of a topic with limits few are looked at.
      const backlog = this.#limited.has(topic) ? undefined : this.#backlogs.get(topic);
      const isLate = this.#late.has(topic);
      if (backlog === undefined ? !isLate : now < nextWholeAt(backlog, isLate)) continue;
      this.#late.delete(topic);
      if (backlog !== undefined) this.#backlogs.set(topic, { wholeAt: now, tookMs: undefined });
      // What was seen, up to where nothing was left.
      if (!this.#behind.has(topic)) this.#behind.set(topic, this.#after.get(topic) ?? {});
      this.#after.delete(topic);
    }
    return Object.fromEntries(topics.map((topic) => [topic, this.#after.get(topic) ?? {}]));
  }

  /** Notes how far was looked. */
  seen(looked: readonly QueuePlace[]): void {
    for (const row of looked) this.#seenTo(row);
  }

  /**
   * Decides what is to be taken next. Follows {@link seen}.
   *
   * @param isNotified true if those who enqueue notify now
   * @param limited of topics with limits the time in ms after which more may start
   * @param hasMore true if the limit of bytes has left messages
   * @returns what the answer says, and whether {@link wantsPassed} is to be called after a while
   */
  taken(
    { topics, most }: Take,
    rows: readonly QueuePlace[],
    looked: readonly QueuePlace[],
    isNotified: boolean,
    limited: ReadonlyMap<string, number> = new Map(),
    now = 0,
    hasMore = false,
  ): { readonly found: Found; readonly hasPassed: boolean } {
    for (const topic of topics) {
      const backlog = this.#backlogs.get(topic);
      if (backlog !== undefined) backlog.tookMs ??= now - backlog.wholeAt;
      const waitMs = limited.get(topic);
      if (waitMs === undefined) this.#limited.delete(topic);
      else this.#limited.set(topic, now + waitMs);
      // There may be more, or it was asked for with others.
      if (waitMs !== undefined && (waitMs > 0 || topics.length > 1)) this.wanted.add(topic);
    }
    if (topics.length === 1 && this.isWaiting(topics[0]!, now)) return { found: "more", hasPassed: false };
    if (rows.length >= most || (hasMore && rows.length > 0) || this.#mayHaveMore(topics, rows, most)) {
      for (const topic of topics) {
        this.wanted.add(topic);
        if (!this.#backlogs.has(topic)) this.#backlogs.set(topic, { wholeAt: now, tookMs: 0 });
      }
      return { found: "more", hasPassed: false };
    }
    const ranks = new Set(rows.map(({ rank }) => rank));
    const found = new Set(rows.map(({ topic }) => topic));
    // There may be more behind them.
    const passed = new Set(looked.filter(({ rank }) => !ranks.has(rank)).map(({ topic }) => topic));
    let hasPassed = false;
    for (const topic of topics) {
      if (this.#backlogs.delete(topic) && isNotified) this.wantsAll(topic);
      if (passed.has(topic)) {
        this.#left.add(topic);
        this.wanted.add(topic);
      } else if (!this.#endBehind(topic) && isNotified && !found.has(topic)) {
        // What has committed late is in front of what was seen.
        if (this.#left.has(topic) && this.#limited.has(topic)) {
          this.keyFreed(topic);
          this.#limited.set(topic, now + passedLimitMs);
        } else if (this.#left.has(topic)) hasPassed = true;
        else this.#late.add(topic);
        if (this.#late.has(topic)) this.wanted.add(topic);
      }
    }
    return { found: passed.size > 0 ? "passed" : "all", hasPassed };
  }

  /** Nothing is left of a topic that is looked at again. @returns false if it is not */
  #endBehind(topic: string): boolean {
    const before = this.#behind.get(topic);
    if (before === undefined) return false;
    this.#behind.delete(topic);
    for (const [recipient, roles] of Object.entries(before))
      for (const [role, rank] of Object.entries(roles)) this.#seenTo({ topic, recipient, role, rank: BigInt(rank) });
    return true;
  }

  /** True if one of the places and roles may have had more than its part of a take. */
  #mayHaveMore(topics: readonly string[], rows: readonly QueuePlace[], most: number): boolean {
    const counts = new Map<string, number>();
    const count = (topic: string, recipient: string, role: string, more: number): void => {
      const place = `${topic}\u0001${recipient}\u0001${role}`;
      counts.set(place, (counts.get(place) ?? 0) + more);
    };
    for (const topic of topics)
      for (const [recipient, roles] of Object.entries(this.#after.get(topic) ?? {}))
        for (const role of Object.keys(roles)) count(topic, recipient, role, 0);
    for (const { topic, recipient, role } of rows) count(topic, recipient, role, 1);
    const parts = counts.size;
    if (parts < 2 || rows.length * parts <= most) return false;
    // Each has had at least twice its share, as far as there were messages.
    return Math.max(...counts.values()) * parts > most;
  }

  #seenTo({ topic, recipient, role, rank }: QueuePlace): void {
    // Without a prototype: a role may be named "constructor".
    const places = this.#after.get(topic) ?? Object.create(null);
    this.#after.set(topic, places);
    places[recipient] ??= Object.create(null);
    const ranks = places[recipient];
    if (BigInt(ranks[role] ?? 0) < rank) ranks[role] = String(rank);
  }
}

function nextWholeAt({ wholeAt, tookMs = 0 }: Backlog, isLate: boolean): number {
  return wholeAt + Math.max(isLate ? leastWholeMs : wholeMs, Math.min(tookMs * wholeShare, longestWholeMs));
}
