/**
 * Ownership: what one process at a time may have, decided in Postgres. A peer owns its name, `hawser serve` owns leadership
 * of the subscriptions.
 *
 * No process can know that it is the only one: it may stand still for a minute, and go on where it was. So ownership has
 * two halves. *Who may go on* is decided by a strategy:
 *
 * - **a session that is alive, with a token** (`src/store/leases.ts`): the row names the session, and the session shows that it
 *   lives by a lock on a random key, which Postgres frees with it. It passes on at once when its owner dies, as soon as the
 *   server notices. A token tells whether an answer that was lost was ours.
 * - **a heartbeat** (`src/bridge/leadership/`): it passes on when the heartbeat has not changed for a while, or the owner has
 *   given it back. It needs no session that lives on, and the row carries what the others need to take over.
 *
 * *Whose writes count* is decided by an **epoch**, which grows with each owner, and a **fence**: whatever an owner writes is
 * written in a transaction that first checks its epoch and holds off the next owner until it ends. The next owner raises the
 * epoch, then waits at the fence. So a former owner can do no harm, however late it is.
 *
 * Both halves are rows of `hawser.owners` and `hawser.fences`. Neither depends on a lock that any login can take: these tables have
 * no grants, and only functions of ours lock them.
 *
 *     waiting ──taken──▶ held ──the session is lost──▶ suspended ──confirmed again──▶ held
 *        ▲                │                                └──another has the epoch──▶ lost (leadership: waiting)
 *        └────────────────┴──release──▶ released
 *
 * While it is suspended its writes may still count, as nobody knows of another owner; after an expiry of silence it is not
 * writable any more: by then another process may have it.
 */

/** `lost` and `released` are final. */
export type OwnershipState = "waiting" | OwnedState;

/** State from the time on at which it was taken. */
export type OwnedState = "held" | "suspended" | "lost" | "released";

/** What one process may have at a time, as the process sees it. */
export interface Ownership {
  readonly state: OwnershipState;
  /** Grows with each owner; all that the owner writes is fenced by it. Undefined while this process is not the owner. */
  readonly epoch: number | bigint | undefined;
  /**
   * False when it is not owned, or Postgres has not confirmed it for longer than its expiry: nothing may be written or
   * acknowledged. What is written all the same is held up by the fence; this is about what cannot be.
   */
  readonly isWritable: boolean;
  /**
   * Ends it, and gives it to the next process. Never rejects: if Postgres cannot be told, the next one waits for the end of
   * the session, or for the expiry.
   *
   * @param options.clean the owner ends in good order; the next one need not expect work that was cut off
   */
  release(options: { readonly clean: boolean }): Promise<void>;
}

/** Life of an owner, by which it knows how long nobody else may have what it owns. */
export interface Life {
  /** Clock of the process, in milliseconds. */
  now(): number;
  /** It may be another's when the server was not heard from for as long. */
  readonly expiryMs: number;
  /** When the server was last heard from over the session that owns it; undefined: when it was last confirmed. */
  readonly heardAt?: () => number;
}

/** What this process has taken: the state of an {@link Ownership} from then on, for both strategies. */
export class Owner<Epoch extends number | bigint> {
  #state: OwnedState = "held";
  #epoch: Epoch;
  readonly #life: Life;
  /** When the server was heard from, as long as the session does not tell. */
  #heardAt: number;
  readonly #callbacks = new Set<(state: OwnedState) => void>();

  constructor(epoch: Epoch, life: Life) {
    this.#epoch = epoch;
    this.#life = life;
    this.#heardAt = life.now();
  }

  /** Grows with each owner; what this process writes is fenced by it. */
  get epoch(): Epoch {
    return this.#epoch;
  }

  get state(): OwnedState {
    return this.#state;
  }

  /** False when the server was not heard from for `expiryMs`, or the ownership has ended. */
  get isWritable(): boolean {
    if (this.#hasEnded) return false;
    const heardAt = (this.#state === "held" ? this.#life.heardAt?.() : undefined) ?? this.#heardAt;
    return this.#life.now() - heardAt < this.#life.expiryMs;
  }

  /** Calls back after each change of the state. Returns what ends that. */
  onChange(callback: (state: OwnedState) => void): () => void {
    this.#callbacks.add(callback);
    return () => this.#callbacks.delete(callback);
  }

  /** Postgres has just said that it is still owned. */
  confirm(): void {
    this.#heardAt = this.#life.now();
    this.enter("held");
  }

  /** It is owned anew, under a greater epoch. */
  protected raise(epoch: Epoch): void {
    this.#epoch = epoch;
  }

  /** Moves to another state, unless the ownership has ended. */
  enter(state: OwnedState): void {
    if (this.#state === state || this.#hasEnded) return;
    if (state === "suspended") this.#heardAt = this.#life.heardAt?.() ?? this.#heardAt;
    this.#state = state;
    for (const callback of [...this.#callbacks]) callback(state);
  }

  get #hasEnded(): boolean {
    return this.#state === "lost" || this.#state === "released";
  }
}
