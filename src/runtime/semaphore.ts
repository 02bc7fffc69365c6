interface Waiting {
  readonly count: number;
  readonly admit: () => void;
}

/** Permits and waiters of the callers that name the same party. */
interface Party {
  acquired: number;
  readonly waiting: Set<Waiting>;
}

/**
 * Counting semaphore. Of several parties with waiters, the one with the fewest permits is served next; the waiters of a
 * party, and parties with as many permits, are served first come, first served.
 */
export class Semaphore {
  #limit: number;
  #acquired = 0;
  /** Parties with permits or waiters, in the order in which they were served last. */
  readonly #parties = new Map<string, Party>();

  /** @param limit number of permits, at least 1 */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Number of permits. */
  get limit(): number {
    return this.#limit;
  }

  /** Sets the number of permits. A smaller limit revokes no permit. */
  set limit(limit: number) {
    this.#limit = limit;
    this.#admit();
  }

  /**
   * Acquires `count` permits if they are free and nobody waits. The caller must release each of them once, and name the
   * same party.
   */
  tryAcquire(count = 1, party = ""): boolean {
    if (this.#acquired + count > this.#limit || this.#next() !== undefined) return false;
    this.#partyOf(party).acquired += count;
    this.#acquired += count;
    return true;
  }

  /**
   * Waits for `count` permits.
   *
   * @param count at most the limit
   * @param signal ends the wait
   * @throws (as a rejection) the signal's reason
   */
  async acquire(count = 1, signal?: AbortSignal, party = ""): Promise<void> {
    signal?.throwIfAborted();
    if (this.tryAcquire(count, party)) return;
    await new Promise<void>((resolve, reject) => {
      const { waiting } = this.#partyOf(party);
      const leave = (): void => {
        waiting.delete(waiter);
        this.#forget(party);
        reject(signal!.reason);
        this.#admit();
      };
      const admit = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const waiter: Waiting = { count, admit };
      signal?.addEventListener("abort", leave, { once: true });
      waiting.add(waiter);
    });
  }

  release(count = 1, party = ""): void {
    this.#acquired -= count;
    this.#partyOf(party).acquired -= count;
    this.#forget(party);
    this.#admit();
  }

  #partyOf(name: string): Party {
    let party = this.#parties.get(name);
    if (party === undefined) {
      party = { acquired: 0, waiting: new Set() };
      this.#parties.set(name, party);
    }
    return party;
  }

  #forget(name: string): void {
    const party = this.#parties.get(name);
    if (party?.acquired === 0 && party.waiting.size === 0) this.#parties.delete(name);
  }

  #next(): [string, Party] | undefined {
    let next: [string, Party] | undefined;
    for (const entry of this.#parties) {
      const [, party] = entry;
      if (party.waiting.size > 0 && (next === undefined || party.acquired < next[1].acquired)) next = entry;
    }
    return next;
  }

  #admit(): void {
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const [name, party] = next;
      const [waiter] = party.waiting;
      if (waiter === undefined || this.#acquired + waiter.count > this.#limit) return;
      party.waiting.delete(waiter);
      party.acquired += waiter.count;
      this.#acquired += waiter.count;
      this.#parties.delete(name);
      this.#parties.set(name, party);
      waiter.admit();
    }
  }
}
