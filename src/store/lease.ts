/**
 * A lease: the right to write in a name.
 *
 *     held ──session lost──▶ suspended ──lock taken again, epoch unchanged──▶ held
 *       │                        └──────another epoch in the catalog────────▶ lost
 *       └──release──▶ released
 *
 * When the session comes back on another server (a standby that was promoted, a restored copy), that server may have
 * lost the last commits, and among them the epoch of a process that had the name in between and that listeners have
 * heard of. Then the name is taken anew, under a greater epoch, before the lease is held again: it is renewed. The answer
 * to that may be lost. So each renewal leaves a token in the catalog: an epoch beside the token of a renewal that was not
 * answered is nobody else's, and the name is taken once more.
 */
import { randomUUID } from "node:crypto";
import { storeConstants } from "../../generated/ts/settings/peer.js";

/** `lost` and `released` are final. */
export type LeaseState = "held" | "suspended" | "lost" | "released";

/** A name that was taken, with the epoch that everything written in it carries. */
export interface Lease {
  readonly name: string;
  /** Grows when the lease is renewed. */
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
   * Calls back when the lease was renewed, before its state becomes `held` again. Nothing numbered under the old epoch
   * can be confirmed any more. Returns what ends that.
   */
  onRenewed(callback: (epoch: number) => void): () => void;
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
  readonly wasClean: boolean;
  #epoch: number;
  /** The server on which the epoch was taken. */
  #server: string;
  readonly #now: () => number;
  readonly #sessionHeardAt: () => number;
  readonly #giveBack: (clean: boolean) => Promise<void>;
  readonly #callbacks = new Set<(state: LeaseState) => void>();
  readonly #renewalCallbacks = new Set<(epoch: number) => void>();
  #state: LeaseState = "held";
  /** The last beat before the session was lost. */
  #heardAt = 0;
  #renewalToken: string | undefined;
  #released: Promise<void> | undefined;

  constructor(
    taken: { readonly name: string; readonly epoch: number; readonly wasClean: boolean; readonly server: string },
    keeper: {
      now(): number;
      sessionHeardAt(): number;
      giveBack(lease: HeldLease, clean: boolean): Promise<void>;
    },
  ) {
    this.name = taken.name;
    this.#epoch = taken.epoch;
    this.#server = taken.server;
    this.wasClean = taken.wasClean;
    this.#now = () => keeper.now();
    this.#sessionHeardAt = () => keeper.sessionHeardAt();
    this.#giveBack = (clean) => keeper.giveBack(this, clean);
  }

  get epoch(): number {
    return this.#epoch;
  }

  get server(): string {
    return this.#server;
  }

  get state(): LeaseState {
    return this.#state;
  }

  /**
   * By what a renewal that was sent and not answered is known in the catalog. Made with the first try, and the same for
   * all further ones: any of them may be the one that was committed.
   */
  get renewalToken(): string | undefined {
    return this.#renewalToken;
  }

  /** A renewal is about to be sent. Returns its token. */
  beginRenewal(): string {
    this.#renewalToken ??= randomUUID();
    return this.#renewalToken;
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

  onRenewed(callback: (epoch: number) => void): () => void {
    this.#renewalCallbacks.add(callback);
    return () => this.#renewalCallbacks.delete(callback);
  }

  release({ clean }: { readonly clean: boolean }): Promise<void> {
    this.#released ??= this.#giveBack(clean);
    return this.#released;
  }

  /** The name was taken anew on another server. */
  renew({ epoch, server }: { readonly epoch: number; readonly server: string }): void {
    this.#epoch = epoch;
    this.#server = server;
    // Answered: whoever raises the epoch from now on is somebody else, whatever is still in the row.
    this.#renewalToken = undefined;
    for (const callback of [...this.#renewalCallbacks]) callback(epoch);
  }

  /** Moves to another state, unless the lease has ended. */
  enter(state: LeaseState): void {
    if (this.#state === state || this.#state === "lost" || this.#state === "released") return;
    if (state === "suspended") this.#heardAt = this.#sessionHeardAt();
    this.#state = state;
    for (const callback of [...this.#callbacks]) callback(state);
  }
}
