/**
 * Ownership: exclusive right of one process at a time, decided in Postgres. A peer owns its name, `hawser serve` owns
 * the leadership of the subscriptions.
 *
 * No process can know that it is the only owner, because it may be suspended for a minute and then resume. So ownership
 * has two parts. A strategy decides *which process is the owner*:
 *
 * - **a session with a token** (`src/jobs-and-peers/store/leases.ts`): the row names the session, and the session proves that it lives
 * by a lock on a random key, which Postgres releases with it. Ownership passes on as soon as the server notices that
 * the owner is dead. After a request without an answer, the token in the row shows whether this process took the
 * ownership.
 * - **a heartbeat** (`src/nats/bridge/leadership/`): ownership passes on when the heartbeat has not changed for a while, or
 * when the owner has released it. This needs no continuous session, and the row contains what a successor needs.
 *
 * An **epoch** and a **fence** decide *whose writes count*. The epoch grows with each owner. An owner writes only in
 * transactions that first check its epoch and block the next owner until they end. The next owner raises the epoch and
 * then waits at the fence. So a former owner can do no harm, however late its writes are.
 *
 * Both parts are rows of `hawser_data.owners` and `hawser_data.fences`. Neither depends on locks that any login can take: these
 * tables have no grants, and only our SQL functions lock them.
 *
 *     waiting ──taken──▶ held ──the session is lost──▶ suspended ──confirmed again──▶ held
 *        ▲                │                                └──another has the epoch──▶ lost (leadership: waiting)
 *        └────────────────┴──release──▶ released
 *
 * While ownership is suspended, writes may still count, since no other owner is known. After `expiryMs` without an
 * answer of the server, `isWritable` becomes false, because another process may be the owner by then.
 */

/** State of an ownership. `lost` and `released` are final. */
export type OwnershipState = "waiting" | OwnedState;

/** State from the time at which ownership was taken. */
export type OwnedState = "held" | "suspended" | "lost" | "released";

/** Exclusive right of one process at a time, as seen by this process. */
export interface Ownership {
  readonly state: OwnershipState;
  /** Epoch, which grows with each owner and fences its writes. Undefined while this process is not the owner. */
  readonly epoch: number | bigint | undefined;
  /**
   * False if this process is not the owner, or if Postgres has not confirmed it within its expiry: nothing may be
   * written or acknowledged then. The fence stops late writes; this flag covers everything that has no fence.
   */
  readonly isWritable: boolean;
  /**
   * Releases ownership for the next process. Never rejects: if Postgres is unreachable, the next process waits for the
   * end of the session or for the expiry.
   *
   * @param options.clean true for a graceful shutdown; the next owner then expects no interrupted work
   */
  release(options: { readonly clean: boolean }): Promise<void>;
}

/** Time source of an owner, from which it derives how long its ownership is certain. */
export interface Life {
  /** Time in ms. */
  now(): number;
  /** Time without an answer of the server after which another process may be the owner. */
  readonly expiryMs: number;
  /** Time of the last answer on the owning session; default: time of the last confirmation. */
  readonly lastAnswerAt?: () => number;
}

/** Taken ownership: the state of an {@link Ownership} from then on, for both strategies. */
export class Owner<Epoch extends number | bigint> {
  #state: OwnedState = "held";
  #epoch: Epoch;
  readonly #life: Life;
  /** Time of the last confirmation, used while the session provides none. */
  #confirmedAt: number;
  readonly #callbacks = new Set<(state: OwnedState) => void>();

  constructor(epoch: Epoch, life: Life) {
    this.#epoch = epoch;
    this.#life = life;
    this.#confirmedAt = life.now();
  }

  /** Epoch, which grows with each owner and fences the writes of this process. */
  get epoch(): Epoch {
    return this.#epoch;
  }

  get state(): OwnedState {
    return this.#state;
  }

  /** False if the server has not answered for `expiryMs`, or if the ownership has ended. */
  get isWritable(): boolean {
    return this.remainingMs > 0;
  }

  /** Time in ms for which the ownership is certain without a further answer; 0 if it is not {@link isWritable}. */
  get remainingMs(): number {
    if (this.#hasEnded) return 0;
    const lastAnswerAt = (this.#state === "held" ? this.#life.lastAnswerAt?.() : undefined) ?? this.#confirmedAt;
    return Math.max(0, this.#life.expiryMs - (this.#life.now() - lastAnswerAt));
  }

  /**
   * Adds a callback for state changes. If the ownership has ended already, the callback is called soon. Returns a function
   * that removes it.
   */
  onChange(callback: (state: OwnedState) => void): () => void {
    this.#callbacks.add(callback);
    if (this.#hasEnded) queueMicrotask(() => this.#callbacks.has(callback) && callback(this.#state));
    return () => this.#callbacks.delete(callback);
  }

  /** Records that Postgres has confirmed the ownership. */
  confirm(): void {
    this.#confirmedAt = this.#life.now();
    this.enter("held");
  }

  /** Records a new, greater epoch. */
  protected raise(epoch: Epoch): void {
    this.#epoch = epoch;
  }

  /** Changes the state, unless the ownership has ended. */
  enter(state: OwnedState): void {
    if (this.#state === state || this.#hasEnded) return;
    if (state === "suspended") this.#confirmedAt = this.#life.lastAnswerAt?.() ?? this.#confirmedAt;
    this.#state = state;
    for (const callback of [...this.#callbacks]) callback(state);
  }

  get #hasEnded(): boolean {
    return this.#state === "lost" || this.#state === "released";
  }
}
