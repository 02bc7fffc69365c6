/**
 * A lease: the right to write in a name.
 *
 *     held ──session lost──▶ suspended ──lock taken again, epoch unchanged──▶ held
 *       │                        └──────another epoch in the catalog────────▶ lost
 *       └──release──▶ released
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";

/** `lost` and `released` are final. */
export type LeaseState = "held" | "suspended" | "lost" | "released";

/** A name that was taken, with the epoch that everything written in it carries. */
export interface Lease {
  readonly name: string;
  readonly epoch: number;
  /** The holder before gave the name back in good order, or there was none. */
  readonly wasClean: boolean;
  readonly state: LeaseState;
  /**
   * False when the session was not heard from for `leaseExpiryMs`, or the lease has ended: then nothing may be written
   * and nothing acknowledged. What is written all the same is held up by the fence; this is about what cannot be.
   */
  readonly isWritable: boolean;
  /** Calls back after each change of the state. Returns what ends that. */
  onChange(callback: (state: LeaseState) => void): () => void;
  /**
   * Gives the name back. It never throws: if Postgres cannot be told, the lock ends with its session.
   *
   * @param options.clean the holder ends in good order: the next one need not expect a message whose handling was cut off
   */
  release(options: { readonly clean: boolean }): Promise<void>;
}

/** The lease as its keeper (leases.ts) moves it. */
export class HeldLease implements Lease {
  readonly name: string;
  readonly epoch: number;
  readonly wasClean: boolean;
  readonly #now: () => number;
  readonly #sessionHeardAt: () => number;
  readonly #giveBack: (clean: boolean) => Promise<void>;
  readonly #callbacks = new Set<(state: LeaseState) => void>();
  #state: LeaseState = "held";
  /** The last beat before the session was lost. */
  #heardAt = 0;
  #released: Promise<void> | undefined;

  constructor(
    taken: { readonly name: string; readonly epoch: number; readonly wasClean: boolean },
    keeper: {
      now(): number;
      sessionHeardAt(): number;
      giveBack(lease: HeldLease, clean: boolean): Promise<void>;
    },
  ) {
    this.name = taken.name;
    this.epoch = taken.epoch;
    this.wasClean = taken.wasClean;
    this.#now = () => keeper.now();
    this.#sessionHeardAt = () => keeper.sessionHeardAt();
    this.#giveBack = (clean) => keeper.giveBack(this, clean);
  }

  get state(): LeaseState {
    return this.#state;
  }

  get isWritable(): boolean {
    if (this.#state !== "held" && this.#state !== "suspended") return false;
    const heardAt = this.#state === "held" ? this.#sessionHeardAt() : this.#heardAt;
    return this.#now() - heardAt < storeConstants.leaseExpiryMs;
  }

  onChange(callback: (state: LeaseState) => void): () => void {
    this.#callbacks.add(callback);
    return () => this.#callbacks.delete(callback);
  }

  release({ clean }: { readonly clean: boolean }): Promise<void> {
    this.#released ??= this.#giveBack(clean);
    return this.#released;
  }

  /** Moves to another state, unless the lease has ended. */
  enter(state: LeaseState): void {
    if (this.#state === state || this.#state === "lost" || this.#state === "released") return;
    if (state === "suspended") this.#heardAt = this.#sessionHeardAt();
    this.#state = state;
    for (const callback of [...this.#callbacks]) callback(state);
  }
}
