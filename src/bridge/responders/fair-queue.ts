/**
 * Whose turn it is: requests of many responders, of which only so many run at once. Pure: no clock, no I/O.
 *
 * Each responder has a lane. Lanes with waiting requests take turns; within a lane it is first in, first out. So that a
 * slow responder does not hold every slot while the others wait for one, a lane that runs something already starts more
 * only if afterwards it holds at most twice as many slots as stay free: the last slot is always for a lane that runs
 * nothing. Where there is one lane only, it has all slots.
 */

/** How many, and how much. */
export interface FairQueueLimits {
  /** Slots. */
  readonly maxRunning: number;
  /** For each lane. */
  readonly maxWaiting: number;
  /** For each lane, in bytes; one item always fits. */
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

/** What a lane holds. */
export interface LaneLoad {
  readonly waiting: number;
  readonly waitingBytes: number;
  readonly running: number;
}

interface Lane<Item> {
  readonly waiting: Item[];
  waitingBytes: number;
  running: number;
}

/** See above. `Key` names a lane. */
export class FairQueue<Key, Item extends Waiting> {
  readonly #limits: FairQueueLimits;
  readonly #lanes = new Map<Key, Lane<Item>>();
  /** Lanes with waiting items, in the order of their turns. */
  readonly #turns = new Set<Lane<Item>>();
  #running = 0;

  constructor(limits: FairQueueLimits) {
    this.#limits = limits;
  }

  /** Items that hold a slot, those of lanes that were removed included. */
  get running(): number {
    return this.#running;
  }

  get isIdle(): boolean {
    return this.#running === 0 && this.#turns.size === 0;
  }

  /** What the lane of the key holds. */
  loadOf(key: Key): LaneLoad {
    const { waiting, waitingBytes, running } = this.#lanes.get(key) ?? { waiting: [], waitingBytes: 0, running: 0 };
    return { waiting: waiting.length, waitingBytes, running };
  }

  /** Opens a lane; does nothing if there is one of this key. */
  open(key: Key): void {
    if (!this.#lanes.has(key)) this.#lanes.set(key, { waiting: [], waitingBytes: 0, running: 0 });
  }

  /** Removes a lane. What runs goes on. @returns what was waiting */
  remove(key: Key): readonly Item[] {
    const lane = this.#lanes.get(key);
    if (lane === undefined) return [];
    this.#lanes.delete(key);
    this.#turns.delete(lane);
    return lane.waiting;
  }

  /** True if the lane takes an item of that size. */
  hasRoom(key: Key, bytes: number): boolean {
    const lane = this.#lanes.get(key);
    if (lane === undefined) return false;
    const { maxWaiting, maxWaitingBytes } = this.#limits;
    if (lane.waiting.length === 0) return true;
    return lane.waiting.length < maxWaiting && lane.waitingBytes + bytes <= maxWaitingBytes;
  }

  /** Puts an item at the end of the lane, for which there must be room. */
  push(key: Key, item: Item): void {
    const lane = this.#lanes.get(key)!;
    lane.waiting.push(item);
    lane.waitingBytes += item.bytes;
    this.#turns.add(lane);
  }

  /** The item whose turn it is; undefined if there is none, or no slot for it. */
  next(): Turn<Item> | undefined {
    for (const lane of this.#turns) {
      if (!this.#mayStart(lane)) continue;
      const item = this.#shift(lane);
      // To the end of the line.
      if (this.#turns.delete(lane) && lane.waiting.length > 0) this.#turns.add(lane);
      lane.running += 1;
      this.#running += 1;
      return { item, end: () => this.#end(lane) };
    }
    return undefined;
  }

  /** Takes out what has waited too long at the front of its lane. */
  expire(now: number): readonly Item[] {
    const expired: Item[] = [];
    for (const lane of [...this.#turns]) {
      while (lane.waiting.length > 0 && lane.waiting[0]!.deadlineAt <= now) expired.push(this.#shift(lane));
      if (lane.waiting.length === 0) this.#turns.delete(lane);
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

  #mayStart(lane: Lane<Item>): boolean {
    const free = this.#limits.maxRunning - this.#running;
    if (free <= 0) return false;
    if (lane.running === 0 || this.#lanes.size === 1) return true;
    return lane.running + 1 <= 2 * (free - 1);
  }

  #shift(lane: Lane<Item>): Item {
    const item = lane.waiting.shift()!;
    lane.waitingBytes -= item.bytes;
    return item;
  }

  #end(lane: Lane<Item>): void {
    lane.running -= 1;
    this.#running -= 1;
  }
}
