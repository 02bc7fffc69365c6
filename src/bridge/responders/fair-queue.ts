/**
 * Fair queue of requests of many responders, with a limit of running ones. Pure: no clock, no I/O.
 *
 * Each responder has a queue (first in, first out); queues with waiting requests take turns. A slow responder must not
 * hold all slots while others wait. So a queue that already runs requests starts another one only if afterwards it
 * holds at most twice as many slots as are free; a queue without running requests may always take a free slot. If there
 * is only one queue, it may use all slots.
 */

/** Limits of running and waiting items. */
export interface FairQueueLimits {
  /** Number of slots. */
  readonly maxRunning: number;
  /** Maximum of waiting items of a queue. */
  readonly maxWaiting: number;
  /** Maximum of waiting bytes of a queue; one item always fits. */
  readonly maxWaitingBytes: number;
}

/** Item of a queue. */
export interface QueuedItem {
  readonly bytes: number;
  /** Time after which the item must not start. */
  readonly deadlineAt: number;
}

/** Item that starts now. It holds a slot until `end`, which must be called once. */
export interface Turn<Item> {
  readonly item: Item;
  end(): void;
}

/** Waiting and running items of a queue. */
export interface QueueLoad {
  readonly waiting: number;
  readonly waitingBytes: number;
  readonly running: number;
}

interface ResponderQueue<Item> {
  readonly waiting: Item[];
  waitingBytes: number;
  running: number;
}

/** Queues of items, identified by `Key`. */
export class FairQueue<Key, Item extends QueuedItem> {
  readonly #limits: FairQueueLimits;
  readonly #queues = new Map<Key, ResponderQueue<Item>>();
  /** Queues with waiting items, in the order of their next turns. */
  readonly #turns = new Set<ResponderQueue<Item>>();
  #running = 0;

  constructor(limits: FairQueueLimits) {
    this.#limits = limits;
  }

  /** Number of occupied slots, including those of removed queues. */
  get running(): number {
    return this.#running;
  }

  get isIdle(): boolean {
    return this.#running === 0 && this.#turns.size === 0;
  }

  loadOf(key: Key): QueueLoad {
    const { waiting, waitingBytes, running } = this.#queues.get(key) ?? { waiting: [], waitingBytes: 0, running: 0 };
    return { waiting: waiting.length, waitingBytes, running };
  }

  /** Adds a queue, unless it exists. */
  open(key: Key): void {
    if (!this.#queues.has(key)) this.#queues.set(key, { waiting: [], waitingBytes: 0, running: 0 });
  }

  /** Removes a queue. Running items continue. @returns the waiting items */
  remove(key: Key): readonly Item[] {
    const queue = this.#queues.get(key);
    if (queue === undefined) return [];
    this.#queues.delete(key);
    this.#turns.delete(queue);
    return queue.waiting;
  }

  /** True if the queue has room for an item of that size. */
  hasRoom(key: Key, bytes: number): boolean {
    const queue = this.#queues.get(key);
    if (queue === undefined) return false;
    const { maxWaiting, maxWaitingBytes } = this.#limits;
    if (queue.waiting.length === 0) return true;
    return queue.waiting.length < maxWaiting && queue.waitingBytes + bytes <= maxWaitingBytes;
  }

  /** Appends an item, for which there must be room. */
  push(key: Key, item: Item): void {
    const queue = this.#queues.get(key)!;
    queue.waiting.push(item);
    queue.waitingBytes += item.bytes;
    this.#turns.add(queue);
  }

  /** Starts the next item; undefined if none waits, or no slot is free for it. */
  next(): Turn<Item> | undefined {
    for (const queue of this.#turns) {
      if (!this.#mayStart(queue)) continue;
      const item = this.#shift(queue);
      // The queue's next turn comes after those of all others.
      if (this.#turns.delete(queue) && queue.waiting.length > 0) this.#turns.add(queue);
      queue.running += 1;
      this.#running += 1;
      return { item, end: () => this.#end(queue) };
    }
    return undefined;
  }

  /**
   * Removes and returns the items whose deadline has passed, up to the first item of each queue that still has time.
   */
  expire(now: number): readonly Item[] {
    const expired: Item[] = [];
    for (const queue of [...this.#turns]) {
      while (queue.waiting.length > 0 && queue.waiting[0]!.deadlineAt <= now) expired.push(this.#shift(queue));
      if (queue.waiting.length === 0) this.#turns.delete(queue);
    }
    return expired;
  }

  /** Earliest deadline of the first items of the queues; undefined if no item waits. */
  get nextDeadline(): number | undefined {
    let next: number | undefined;
    for (const { waiting } of this.#turns) {
      const { deadlineAt } = waiting[0]!;
      if (next === undefined || deadlineAt < next) next = deadlineAt;
    }
    return next;
  }

  #mayStart(queue: ResponderQueue<Item>): boolean {
    const free = this.#limits.maxRunning - this.#running;
    if (free <= 0) return false;
    if (queue.running === 0 || this.#queues.size === 1) return true;
    return queue.running + 1 <= 2 * (free - 1);
  }

  #shift(queue: ResponderQueue<Item>): Item {
    const item = queue.waiting.shift()!;
    queue.waitingBytes -= item.bytes;
    return item;
  }

  #end(queue: ResponderQueue<Item>): void {
    queue.running -= 1;
    this.#running -= 1;
  }
}
