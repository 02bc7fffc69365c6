/**
 * Concurrency limits of handlers, over all channels and requests of a peer, and lists of the items that wait for them.
 *
 * An item takes its place when it starts; places are never reserved. So a channel that also waits for something else,
 * such as a commit, holds no place meanwhile, and two waits cannot block each other.
 */

/** Channel or request queue with items that wait for their start. */
export interface Waiter {
  /** Starts waiting items as far as their limits allow. */
  run(): void;
  /** Called when a full limit with waiting items has a free place: its `runWaiters` must be called soon. */
  limitFreed(limit: ConcurrencyLimit): void;
}

/** Item that waits for its start or runs. */
export interface Limited {
  /** Limit under which the item waits, or whose place it has taken. */
  limit: ConcurrencyLimit | undefined;
}

/** Maximum number of parallel calls of one handler. Each item that runs has one of its places. */
export class ConcurrencyLimit {
  #max: number;
  #running = 0;
  /** Number of waiting items by waiter, in the order of the waiters' turns. */
  readonly #waiting = new Map<Waiter, number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Number of items that can run at a time. */
  get max(): number {
    return this.#max;
  }

  /** New limit of the same size, for the next run of a peer: items that the last run abandoned do not count. */
  renewed(): ConcurrencyLimit {
    return new ConcurrencyLimit(this.#max);
  }

  get isFull(): boolean {
    return this.#running >= this.#max;
  }

  /** Number of further items that can start now. */
  get free(): number {
    return Math.max(0, this.#max - this.#running);
  }

  /** Takes a place for an item that starts now. */
  take(): void {
    this.#running += 1;
  }

  /**
   * Frees the place of an item that has ended. Its waiter moves behind the others.
   *
   * @param continues whether the waiter starts its next items by itself, if no other one waits
   */
  release(waiter: Waiter, continues: boolean): void {
    const wasFull = this.isFull;
    this.#running -= 1;
    const waits = this.#moveBack(waiter);
    if (wasFull && this.#waiting.size > (waits && continues ? 1 : 0)) waiter.limitFreed(this);
  }

  /** Admits all waiting items, because their handler was replaced or removed; they then move to another limit. */
  open(): void {
    this.#max = Number.POSITIVE_INFINITY;
  }

  /** Records a waiting item. */
  join(waiter: Waiter): void {
    this.#waiting.set(waiter, this.waitingOf(waiter) + 1);
  }

  /** Records that an item no longer waits. */
  leave(waiter: Waiter): void {
    const left = this.waitingOf(waiter) - 1;
    if (left > 0) this.#waiting.set(waiter, left);
    else this.#waiting.delete(waiter);
  }

  /** Number of waiting items of a waiter. */
  waitingOf(waiter: Waiter): number {
    return this.#waiting.get(waiter) ?? 0;
  }

  /**
   * Runs the waiters one after another, each once at most, until the limit is full.
   *
   * @param hasSlot returns whether the peer can start a handler
   * @returns false if the run ended because the peer cannot start a handler
   */
  runWaiters(hasSlot: () => boolean): boolean {
    let left = this.#waiting.size;
    for (const waiter of this.#waiting.keys()) {
      if (left === 0 || this.isFull) return true;
      if (!hasSlot()) return false;
      left -= 1;
      this.#moveBack(waiter);
      waiter.run();
    }
    return true;
  }

  #moveBack(waiter: Waiter): boolean {
    const items = this.#waiting.get(waiter);
    if (items === undefined) return false;
    this.#waiting.delete(waiter);
    this.#waiting.set(waiter, items);
    return true;
  }
}

/**
 * Moves a running item to another limit.
 *
 * @returns false if the new limit is full; the item then keeps its place
 */
export function changeLimit(item: Limited, to: ConcurrencyLimit | undefined, waiter: Waiter): boolean {
  const from = item.limit;
  if (to === from) return true;
  if (to?.isFull) return false;
  to?.take();
  item.limit = to;
  from?.release(waiter, false);
  return true;
}

/** Items under the same limit, in the order in which they were added. */
class Group<Item> {
  readonly items = new Set<Item>();
  /** Keeps its position, because a new iterator would skip over all removed items. */
  #iterator = this.items.values();
  #first: Item | undefined;

  get first(): Item | undefined {
    if (this.#first === undefined && this.items.size > 0) {
      let next = this.#iterator.next();
      if (next.done) {
        this.#iterator = this.items.values();
        next = this.#iterator.next();
      }
      this.#first = next.value;
    }
    return this.#first;
  }

  delete(item: Item): boolean {
    if (item === this.#first) this.#first = undefined;
    return this.items.delete(item);
  }
}

/** Items that wait for their start, grouped by limit. Groups take turns; a full limit delays only its own group. */
export class Waitlist<Item extends Limited> implements Iterable<Item> {
  readonly #unlimited = new Group<Item>();
  readonly #limited = new Map<ConcurrencyLimit, Group<Item>>();
  /** True if an item with a limit is next: items with and without a limit alternate. */
  #limitedIsNext = false;
  /** Number of items. */
  size = 0;

  readonly #waiter: Waiter;

  constructor(waiter: Waiter) {
    this.#waiter = waiter;
  }

  /** Number of items that can start now. */
  get startable(): number {
    let startable = this.#unlimited.items.size;
    for (const [limit, { items }] of this.#limited) startable += Math.min(items.size, limit.free);
    return startable;
  }

  /** Next item that can start. */
  get first(): Item | undefined {
    if (this.size === 0) return undefined;
    const { first } = this.#unlimited;
    if (this.#limited.size === 0 || (first !== undefined && !this.#limitedIsNext)) return first;
    for (const [limit, group] of this.#limited) if (!limit.isFull) return group.first;
    return first;
  }

  /** Items without a limit, and items whose limit is not full; {@link first} comes first. */
  *allStartable(): Generator<Item, void> {
    if (!this.#limitedIsNext) yield* this.#unlimited.items;
    for (const [limit, { items }] of this.#limited) if (!limit.isFull) yield* items;
    if (this.#limitedIsNext) yield* this.#unlimited.items;
  }

  *[Symbol.iterator](): Generator<Item, void> {
    yield* this.#unlimited.items;
    for (const { items } of this.#limited.values()) yield* items;
  }

  has(item: Item): boolean {
    return this.#groupOf(item)?.items.has(item) === true;
  }

  /** Adds an item to the group of its limit, which stays the same until {@link delete}. */
  add(item: Item): void {
    const { limit } = item;
    let group = this.#groupOf(item);
    if (group === undefined) {
      group = new Group();
      this.#limited.set(limit!, group);
    }
    if (group.items.has(item)) return;
    group.items.add(item);
    this.size += 1;
    limit?.join(this.#waiter);
  }

  /** @returns false if the item was not there */
  delete(item: Item): boolean {
    const { limit } = item;
    const group = this.#groupOf(item);
    if (group?.delete(item) !== true) return false;
    this.size -= 1;
    this.#limitedIsNext = limit === undefined;
    if (limit === undefined) return true;
    limit.leave(this.#waiter);
    this.#limited.delete(limit);
    if (group.items.size > 0) this.#limited.set(limit, group);
    return true;
  }

  clear(): void {
    for (const item of this) this.delete(item);
  }

  #groupOf({ limit }: Item): Group<Item> | undefined {
    return limit === undefined ? this.#unlimited : this.#limited.get(limit);
  }
}
