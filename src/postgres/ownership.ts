/**
 * Ownership: what one process at a time may have, decided in Postgres. A peer owns its name, `hawser serve` owns leadership
 * of the subscriptions.
 *
 * No process can know that it is the only one: it may stand still for a minute, and go on where it was. So ownership has
 * two halves. *Who may go on* is decided by a strategy:
 *
 * - **a session that is alive, with a token** (`src/store/leases.ts`): a row names the session, and the session shows that it
 *   lives by a lock on a random key, which Postgres frees with it. It passes on at once when its owner dies, as soon as the
 *   server notices. A token tells whether an answer that was lost was ours.
 * - **a row with expiry** (`src/bridge/leadership/`): an owner, and a heartbeat. It passes on when the heartbeat has not
 *   changed for a while, or the owner has given it back. It needs no session that lives on, and the row carries what the
 *   others need to take over.
 *
 * *Whose writes count* is decided by an **epoch**, which grows with each owner, and a **fence**: whatever an owner writes is
 * written in a transaction that first checks its epoch and holds off the next owner until it ends. The next owner raises the
 * epoch, then waits at the fence. So a former owner can do no harm, however late it is.
 *
 * Neither half depends on a lock that any login can take: rows of owners and fences are in tables without grants, and only
 * functions of ours lock them.
 *
 *     waiting ──taken──▶ held ──the session is lost──▶ suspended ──confirmed again──▶ held
 *        ▲                │                                └──another has the epoch──▶ lost (leadership: waiting)
 *        └────────────────┴──release──▶ released
 *
 * While it is suspended its writes may still count, as nobody knows of another owner; after an expiry of silence it is not
 * writable any more: by then another process may have it.
 */

/** `lost` and `released` are final. */
export type OwnershipState = "waiting" | "held" | "suspended" | "lost" | "released";

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
