interface Waiter {
  readonly count: number;
  readonly admit: () => void;
}

/**
 * Returns true if a party may hold `held` permits, when `free` permits are free before it takes more, and `parties`
 * parties hold permits or wait, this one included.
 */
type PartyRule = (held: number, free: number, parties: number) => boolean;

/** Permits and waiters of the callers that name the same party. */
interface Party {
  acquired: number;
  readonly waiting: Set<Waiter>;
}

/**
 * Counting semaphore. Of several parties with waiters that may hold more, the one with the fewest permits is served
 * next; the waiters of a party, and parties with as many permits, are served first come, first served. A party can be
 * any value.
 */
export class Semaphore {
  #limit: number;
  #acquired = 0;
  readonly #mayHold: PartyRule;
  /** Parties with permits or waiters, in the order in which they were served last. */
  readonly #parties = new Map<unknown, Party>();

  /**
   * @param limit number of permits, at least 1; Infinity if only the rule limits them
   * @param mayHold rule that leaves permits to other parties. Default: none
   */
  constructor(limit: number, mayHold: PartyRule = () => true) {
    this.#limit = limit;
    this.#mayHold = mayHold;
  }

  /** Number of permits. */
  get limit(): number {
    return this.#limit;
  }

  /** Sets the number of permits. A smaller limit revokes no permit. */
  set limit(limit: number) {
    this.#limit = limit;
    this.admit();
  }

  /** Number of acquired permits. */
  get acquired(): number {
    return this.#acquired;
  }

  /** Number of callers that wait. */
  get waiting(): number {
    return [...this.#parties.values()].reduce((count, { waiting }) => count + waiting.size, 0);
  }

  /** Number of permits of a party. */
  acquiredBy(party: unknown): number {
    return this.#parties.get(party)?.acquired ?? 0;
  }

  /**
   * Acquires `count` permits if they are free, the party may hold them, and no other caller waits for them. Whoever acquires
   * permits releases each of them once, for the same party.
   */
  tryAcquire(count = 1, party?: unknown): boolean {
    const known = this.#partyOf(party);
    const isFree = this.#acquired + count <= this.#limit && this.#mayTake(known, count) && this.#next() === undefined;
    if (isFree) this.#take(known, count);
    else this.#forget(party);
    return isFree;
  }

  /**
   * Waits for `count` permits.
   *
   * @param count at most the limit
   * @param signal ends the wait
   * @throws (as a rejection) the signal's reason
   */
  async acquire(count = 1, signal?: AbortSignal, party?: unknown): Promise<void> {
    signal?.throwIfAborted();
    if (this.tryAcquire(count, party)) return;
    await new Promise<void>((resolve, reject) => {
      const { waiting } = this.#partyOf(party);
      const leave = (): void => {
        waiting.delete(waiter);
        this.#forget(party);
        reject(signal!.reason);
        this.admit();
      };
      const admit = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const waiter: Waiter = { count, admit };
      signal?.addEventListener("abort", leave, { once: true });
      waiting.add(waiter);
    });
  }

  release(count = 1, party?: unknown): void {
    this.#acquired -= count;
    this.#partyOf(party).acquired -= count;
    this.#forget(party);
    this.admit();
  }

  /** Does work with one permit of a party, when it has it. Settles as the work does. */
  async run<T>(party: unknown, work: () => Promise<T>): Promise<T> {
    await this.acquire(1, undefined, party);
    try {
      return await work();
    } finally {
      this.release(1, party);
    }
  }

  /** Serves the waiters that can be served. Called by the owner after a change of what its rule depends on. */
  admit(): void {
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const [name, party] = next;
      const [waiter] = party.waiting;
      if (waiter === undefined || this.#acquired + waiter.count > this.#limit) return;
      party.waiting.delete(waiter);
      this.#take(party, waiter.count);
      this.#parties.delete(name);
      this.#parties.set(name, party);
      waiter.admit();
    }
  }

  #take(party: Party, count: number): void {
    party.acquired += count;
    this.#acquired += count;
  }

  #mayTake({ acquired }: Party, count: number): boolean {
    return this.#mayHold(acquired + count, this.#limit - this.#acquired, this.#parties.size);
  }

  #partyOf(name: unknown): Party {
    let party = this.#parties.get(name);
    if (party === undefined) {
      party = { acquired: 0, waiting: new Set() };
      this.#parties.set(name, party);
    }
    return party;
  }

  #forget(name: unknown): void {
    const party = this.#parties.get(name);
    if (party?.acquired === 0 && party.waiting.size === 0) this.#parties.delete(name);
  }

  /** Party that is served next. */
  #next(): [unknown, Party] | undefined {
    let next: [unknown, Party] | undefined;
    for (const entry of this.#parties) {
      const [, party] = entry;
      const [waiter] = party.waiting;
      if (waiter === undefined || !this.#mayTake(party, waiter.count)) continue;
      if (next === undefined || party.acquired < next[1].acquired) next = entry;
    }
    return next;
  }
}
