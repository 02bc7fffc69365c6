/**
 * Takes names, and keeps them over lost sessions: the strategy "a session's lock, with a token" of {@link Ownership}.
 *
 * A name is held by a session-level advisory lock, the lease lock. The lock says who may go on; the epoch in the catalog
 * says whose writes count. So the order is always the same: first the lock, and only then, on the same session, the
 * row. Read the other way round, a name could change hands between the two.
 *
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
 * answered is ours, and the name is taken once more.
 */
import { randomUUID } from "node:crypto";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { type PeerNameRow, type QueryClient, storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type HawserError, StoreError } from "../errors/index.js";
import {
  isServerError,
  isTransient,
  type Ownership,
  type OwnershipState,
  type PostgresSession,
  type SessionQuery,
  serverIdentity,
} from "../postgres/index.js";
import { type Clock, delay, type Logger } from "../runtime/index.js";
import { columnsOf } from "./columns.js";
import { storeFailure } from "./store-failure.js";
import { leaseLockKey } from "./transaction.js";

/** `lost` and `released` are final. */
export type LeaseState = Exclude<OwnershipState, "waiting">;

/** A name that was taken, with the epoch that everything written in it carries. */
export interface Lease extends Ownership {
  readonly name: string;
  /** Grows when the lease is renewed. */
  readonly epoch: number;
  /** The holder before gave the name back in good order, or there was none. */
  readonly wasClean: boolean;
  readonly state: LeaseState;
  /** False when the session was not heard from for `leaseExpiryMs`, or the lease has ended. */
  readonly isWritable: boolean;
  /** Calls back after each change of the state. Returns what ends that. */
  onChange(callback: (state: LeaseState) => void): () => void;
  /**
   * Calls back when the lease was renewed, before its state becomes `held` again. Nothing numbered under the old epoch
   * can be confirmed any more. Returns what ends that.
   */
  onRenewed(callback: (epoch: number) => void): () => void;
}

/** The lease as {@link Leases} moves it. */
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
  /** When the session was last heard from before it was lost. */
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
    // Answered: an epoch that is raised from now on is raised by another process, whatever is still in the row.
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

const taken = columnsOf<PeerNameRow>()("epoch", "token");

const sql = {
  tryLock: `SELECT pg_try_advisory_lock(${leaseLockKey}) AS locked`,
  unlock: `SELECT pg_advisory_unlock(${leaseLockKey})`,
  taken: `SELECT ${taken.sql()} FROM ${tables.peerName} WHERE name = $1`,
  epochs: `SELECT name, epoch FROM ${tables.peerName} WHERE name = ANY ($1)`,
  markClean: `UPDATE ${tables.peerName} SET clean = true WHERE name = $1 AND epoch = $2`,
} as const;

/** How long a name is waited for. */
export interface TakeNameOptions {
  /** How long to wait while another holds the name, in milliseconds; 0 tries once. */
  readonly waitMs: number;
  /** Ends the wait with `aborted`. */
  readonly signal?: AbortSignal;
}

/** The leases of one session. */
export class Leases {
  readonly #session: PostgresSession;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /**
   * The names that this process holds or is taking. Advisory locks are re-entrant within a session: a second taker in
   * the same process would get the lock, too.
   */
  readonly #names = new Map<string, HeldLease | undefined>();

  constructor(session: PostgresSession, options: { readonly clock: Clock; readonly logger: Logger }) {
    this.#session = session;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  /**
   * Takes a name: waits for its lease lock, then raises its epoch.
   *
   * @throws StoreError `name_in_use` if another holder has it until the wait is over, `aborted` by the signal,
   * `store_failed` if Postgres cannot be reached until then, or refuses
   */
  async take(name: string, { waitMs, signal }: TakeNameOptions): Promise<Lease> {
    const deadline = this.#clock.now() + waitMs;
    for (;;) {
      if (signal?.aborted)
        throw new StoreError("aborted", `taking the name "${name}" was aborted`, { cause: signal.reason });
      const attempt = await this.#attempt(name);
      if (attempt instanceof HeldLease) return attempt;
      if (attempt.code === "store_failed" && !isTransient(attempt.cause)) throw attempt;
      if (this.#clock.now() + storeConstants.leasePollMs > deadline) throw attempt;
      await delay(storeConstants.leasePollMs, signal, this.#clock);
    }
  }

  /** Every lease that has not ended becomes suspended: its lock went with the session. */
  suspendAll(): void {
    for (const lease of this.#names.values()) lease?.enter("suspended");
  }

  /** Takes the locks again on a new session; goes on trying by itself for those that another still holds. */
  async regainAll(query: SessionQuery): Promise<void> {
    for (const lease of [...this.#names.values()]) if (lease !== undefined) await this.#regain(lease, query);
  }

  /**
   * Checks that the catalog still has the epochs of the leases. A listener's channels may have been handed over while it
   * holds the lock; a listener that has nothing to write would not find out.
   */
  async checkAll(query: SessionQuery): Promise<void> {
    const held = [...this.#names.values()].filter((lease) => lease?.state === "held") as HeldLease[];
    if (held.length === 0) return;
    const before = held.map((lease) => ({ lease, epoch: lease.epoch }));
    const rows = await query<{ name: string; epoch: bigint }>(sql.epochs, [held.map(({ name }) => name)]);
    const epochs = new Map(rows.map(({ name, epoch }) => [name, Number(epoch)]));
    for (const { lease, epoch } of before) {
      if (lease.state !== "held" || lease.epoch !== epoch || epochs.get(lease.name) === epoch) continue;
      this.#names.delete(lease.name);
      lease.enter("lost");
      await this.#unlock(lease.name);
    }
  }

  /** One try. Returns the error to report if it was the last. */
  async #attempt(name: string): Promise<HeldLease | HawserError> {
    const inUse = new StoreError(
      "name_in_use",
      `the name "${name}" is held by another process, or by another peer of this one; stop that, or choose another name`,
    );
    if (this.#names.has(name)) return inUse;
    this.#names.set(name, undefined);
    let lease: HeldLease | undefined;
    const { generation } = this.#session;
    try {
      const [lock] = await this.#session.query<{ locked: boolean }>(sql.tryLock, [name]);
      if (lock?.locked !== true) return inUse;
      const server = await serverIdentity(this.#session.query);
      const { epoch, wasClean } = await storeFunctions(callerOf(this.#session.query)).takeName({
        name,
        token: randomUUID(),
      });
      // A session lost meanwhile has taken the lock with it; the epoch that was raised does no harm.
      if (!this.#session.isUp || this.#session.generation !== generation) {
        return storeFailure(`take the name "${name}"`, new Error("the session with Postgres was lost"));
      }
      lease = this.#leaseOf({ name, epoch: Number(epoch), wasClean, server });
      this.#names.set(name, lease);
      return lease;
    } catch (cause) {
      // Whether the lock is held or not: not after this.
      if (this.#session.isUp && this.#session.generation === generation) await this.#unlock(name);
      return storeFailure(`take the name "${name}"`, cause);
    } finally {
      if (lease === undefined) this.#names.delete(name);
    }
  }

  #leaseOf(taken: ConstructorParameters<typeof HeldLease>[0]): HeldLease {
    return new HeldLease(taken, {
      now: () => this.#clock.now(),
      sessionHeardAt: () => this.#session.heardAt,
      giveBack: (lease, clean) => this.#giveBack(lease, clean),
    });
  }

  async #regain(lease: HeldLease, query: SessionQuery): Promise<void> {
    const isWanted = (): boolean => this.#names.get(lease.name) === lease && lease.state === "suspended";
    if (!isWanted()) return;
    const [lock] = await query<{ locked: boolean }>(sql.tryLock, [lease.name]);
    const [row] = await query<typeof taken.row>(sql.taken, [lease.name]);
    const isSameEpoch = Number(row?.epoch) === lease.epoch;
    // Read with the lock, so no renewal of ours is still under way: either it is in the row, or it never will be.
    const isOurs = isSameEpoch || (lease.renewalToken !== undefined && row?.token === lease.renewalToken);
    if (isOurs && isWanted()) {
      if (lock?.locked !== true) {
        this.#regainLater(lease);
        return;
      }
      const server = await serverIdentity(query);
      // An epoch whose answer was lost is not used, although it is ours: on this server it may be an old one again.
      if (server !== lease.server || !isSameEpoch) await this.#renew(lease, server, query);
      if (isWanted()) {
        lease.enter("held");
        return;
      }
    }
    // Taken by another, or released while the answers were under way.
    if (lock?.locked === true) await query(sql.unlock, [lease.name]);
    if (!isWanted()) return;
    this.#names.delete(lease.name);
    lease.enter("lost");
  }

  async #renew(lease: HeldLease, server: string, query: SessionQuery): Promise<void> {
    const { epoch } = await storeFunctions(callerOf(query)).takeName({
      name: lease.name,
      token: lease.beginRenewal(),
    });
    this.#logger.warn({ name: lease.name, epoch }, "another database server answers; the name was taken anew");
    lease.renew({ epoch: Number(epoch), server });
  }

  /** The holder may be our own old session, whose end the server has not noticed, or a process that is taking over. */
  #regainLater(lease: HeldLease): void {
    const { generation } = this.#session;
    this.#clock.setTimeout(() => {
      // A newer session tries by itself.
      if (this.#session.generation !== generation) return;
      this.#regain(lease, this.#session.query).catch((err) => {
        this.#logger.debug({ err, name: lease.name }, "could not take a name again; trying again");
        if (this.#session.isUp) this.#regainLater(lease);
      });
    }, storeConstants.leasePollMs);
  }

  async #giveBack(lease: HeldLease, clean: boolean): Promise<void> {
    const wasHeld = lease.state === "held";
    const { generation } = this.#session;
    const isSameSession = (): boolean => this.#session.isUp && this.#session.generation === generation;
    // Before the lock is free: from here on nothing is written in the name.
    lease.enter("released");
    if (wasHeld && clean) {
      try {
        await this.#session.query(sql.markClean, [lease.name, lease.epoch]);
      } catch (err) {
        this.#logger.warn({ err, name: lease.name }, "could not record a peer's clean end; its next start is careful");
      }
    }
    if (wasHeld && isSameSession()) await this.#unlock(lease.name);
    if (this.#names.get(lease.name) === lease) this.#names.delete(lease.name);
  }

  async #unlock(name: string): Promise<void> {
    try {
      await this.#session.query(sql.unlock, [name]);
    } catch (err) {
      this.#logger.debug({ err, name }, "could not unlock a name; ending the session that holds it");
      this.#session.restart();
    }
  }
}

/** A client of the generated functions that works on the session. */
function callerOf(query: SessionQuery): QueryClient {
  return { query: async ({ text, values }) => ({ rows: await query<Record<string, unknown>>(text, values) }) };
}

/**
 * An SQL condition: a process holds the lease of the name, which is given as an SQL expression. A probe of the lock itself
 * would be in the way of a process that takes the name at that moment.
 */
export function leaseHeldSql(name: string): string {
  return `EXISTS (
    SELECT FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('hawser:lease:' || ${name}, 0)
  )`;
}

/**
 * Calls a function that refuses to work while a process has the name.
 *
 * @param remedy what the user can do, to follow "is running;"
 * @throws StoreError `name_in_use` if a process has it; otherwise what `call` throws
 */
export async function unlessRunning<T>(name: string, call: () => Promise<T>, remedy = "stop it first"): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const cause = StoreError.is(error) ? error.cause : undefined;
    if (!isServerError(cause) || cause.code !== errorTable.name_in_use.sqlstate) throw error;
    throw new StoreError("name_in_use", `"${name}" is running; ${remedy}`, { cause: error });
  }
}
