/**
 * Whose turn it is: requests of many responders, of which only so many run at once. Pure: no clock, no I/O.
 *
 * Each responder has a queue. Queues with waiting requests take turns; within a queue it is first in, first out. So that a
 * slow responder does not hold every slot while the others wait for one, a queue that runs something already starts more
 * only if afterwards it holds at most twice as many slots as stay free: the last slot is always for a queue that runs
 * nothing. Where there is one queue only, it has all slots.
 */

/** What may run, and what may wait. */
export interface FairQueueLimits {
  /** Slots. */
  readonly maxRunning: number;
  /** For each queue. */
  readonly maxWaiting: number;
  /** For each queue, in bytes; one item always fits. */
  readonly maxWaitingBytes: number;
}

/** Something that waits for its turn. */
export interface Waiting {
  readonly bytes: number;
  /** When it need not be started any more. */
  readonly deadlineAt: number;
}

/** An item whose turn it is. It holds a slot until `end`, which is to be called once. */
export interface Turn<Item> {
  readonly item: Item;
  end(): void;
}

/** What a queue holds. */
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

/** Items in the queues of many responders. `Key` names a queue. */
export class FairQueue<Key, Item extends Waiting> {
  readonly #limits: FairQueueLimits;
  readonly #queues = new Map<Key, ResponderQueue<Item>>();
  /** Queues with waiting items, in the order of their turns. */
  readonly #turns = new Set<ResponderQueue<Item>>();
  #running = 0;

  constructor(limits: FairQueueLimits) {
    this.#limits = limits;
  }

  /** Items that hold a slot, those of queues that were removed included. */
  get running(): number {
    return this.#running;
  }

  get isIdle(): boolean {
    return this.#running === 0 && this.#turns.size === 0;
  }

  /** What the queue of the key holds. */
  loadOf(key: Key): QueueLoad {
    const { waiting, waitingBytes, running } = this.#queues.get(key) ?? { waiting: [], waitingBytes: 0, running: 0 };
    return { waiting: waiting.length, waitingBytes, running };
  }

  /** Opens a queue; does nothing if there is one of this key. */
  open(key: Key): void {
    if (!this.#queues.has(key)) this.#queues.set(key, { waiting: [], waitingBytes: 0, running: 0 });
  }

  /** Removes a queue. What runs goes on. @returns what was waiting */
  remove(key: Key): readonly Item[] {
    const queue = this.#queues.get(key);
    if (queue === undefined) return [];
    this.#queues.delete(key);
    this.#turns.delete(queue);
    return queue.waiting;
  }

  /** True if the queue takes an item of that size. */
  hasRoom(key: Key, bytes: number): boolean {
    const queue = this.#queues.get(key);
    if (queue === undefined) return false;
    const { maxWaiting, maxWaitingBytes } = this.#limits;
    if (queue.waiting.length === 0) return true;
    return queue.waiting.length < maxWaiting && queue.waitingBytes + bytes <= maxWaitingBytes;
  }

  /** Puts an item at the end of the queue, for which there must be room. */
  push(key: Key, item: Item): void {
    const queue = this.#queues.get(key)!;
    queue.waiting.push(item);
    queue.waitingBytes += item.bytes;
    this.#turns.add(queue);
  }

  /** The item whose turn it is; undefined if there is none, or no slot for it. */
  next(): Turn<Item> | undefined {
    for (const queue of this.#turns) {
      if (!this.#mayStart(queue)) continue;
      const item = this.#shift(queue);
      // To the end of the line.
      if (this.#turns.delete(queue) && queue.waiting.length > 0) this.#turns.add(queue);
      queue.running += 1;
      this.#running += 1;
      return { item, end: () => this.#end(queue) };
    }
    return undefined;
  }

  /** Takes out what has waited too long at the front of its queue. */
  expire(now: number): readonly Item[] {
    const expired: Item[] = [];
    for (const queue of [...this.#turns]) {
      while (queue.waiting.length > 0 && queue.waiting[0]!.deadlineAt <= now) expired.push(this.#shift(queue));
      if (queue.waiting.length === 0) this.#turns.delete(queue);
    }
    return expired;
  }

  /** When the next item expires; undefined if none waits. */
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
