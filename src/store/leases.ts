/**
 * Takes names, and keeps them over lost sessions: the strategy "a session that is alive, with a token" of {@link Ownership}.
 *
 * Who has a name stands in the row `hawser.owners`, which only functions of ours read and write: the epoch, and the session.
 * A session is known by its server process and by an advisory lock on a key that was drawn at random: its life. No other
 * session can hold that lock in that process, and none had known the key before. While the session lives, nobody else gets the
 * name; the epoch says whose writes count. A name is taken in two steps, each a transaction of its own: the first raises the
 * epoch, the second waits at the fence for the writes of older epochs.
 *
 * A lease: the right to write in a name.
 *
 *     held ──session lost──▶ suspended ──kept by a new session, epoch unchanged──▶ held
 *       │                        └──────another epoch in the catalog────────▶ lost
 *       └──release──▶ released
 *
 * When the session comes back on another server (a standby that was promoted, a restored copy), that server may have
 * lost the last commits, and among them the epoch of a process that had the name in between and that listeners have
 * heard of. Then the name is taken anew, under a greater epoch, before the lease is held again: it is renewed. The answer
 * to that may be lost. So each renewal leaves a token in the catalog: an epoch beside the token of a renewal that was not
 * answered is ours, and the name is taken once more.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { type QueryClient, storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import {
  isTransient,
  type Life,
  type OwnedState,
  Owner,
  type Ownership,
  type PostgresSession,
  type SessionQuery,
  serverIdentity,
  sqlstateOf,
} from "../postgres/index.js";
import { type Clock, delay, type Logger } from "../runtime/index.js";
import { storeFailure } from "./store-failure.js";

/** `lost` and `released` are final. */
export type LeaseState = OwnedState;

/** A name that was taken, with the epoch that everything written in it carries, which grows when the lease is renewed. */
export interface Lease
  extends Pick<Owner<number>, "epoch" | "state" | "isWritable" | "onChange">,
    Pick<Ownership, "release"> {
  readonly name: string;
  /** The holder before gave the name back in good order, or there was none. */
  readonly wasClean: boolean;
  /**
   * Calls back when the lease was renewed, before its state becomes `held` again. Nothing numbered under the old epoch
   * can be confirmed any more. Returns what ends that.
   */
  onRenewed(callback: (epoch: number) => void): () => void;
}

/** The lease as {@link Leases} moves it. */
export class HeldLease extends Owner<number> implements Lease {
  readonly name: string;
  readonly wasClean: boolean;
  /** The server on which the epoch was taken. */
  server: string;
  /**
   * By what a renewal that was sent and not answered is known in the catalog. Made with the first try, and the same for
   * all further ones: any of them may be the one that was committed.
   */
  renewalToken: string | undefined;
  readonly #giveBack: (lease: HeldLease, clean: boolean) => Promise<void>;
  readonly #renewalCallbacks = new Set<(epoch: number) => void>();
  #released: Promise<void> | undefined;

  constructor(
    taken: { readonly name: string; readonly epoch: number; readonly wasClean: boolean; readonly server: string },
    life: Life,
    giveBack: (lease: HeldLease, clean: boolean) => Promise<void>,
  ) {
    super(taken.epoch, life);
    this.name = taken.name;
    this.server = taken.server;
    this.wasClean = taken.wasClean;
    this.#giveBack = giveBack;
  }

  onRenewed(callback: (epoch: number) => void): () => void {
    this.#renewalCallbacks.add(callback);
    return () => this.#renewalCallbacks.delete(callback);
  }

  release({ clean }: { readonly clean: boolean }): Promise<void> {
    this.#released ??= this.#giveBack(this, clean);
    return this.#released;
  }

  /** The name was taken anew on another server. */
  renew({ epoch, server }: { readonly epoch: number; readonly server: string }): void {
    this.raise(epoch);
    this.server = server;
    // Answered: an epoch that is raised from now on is raised by another process, whatever is still in the row.
    this.renewalToken = undefined;
    for (const callback of [...this.#renewalCallbacks]) callback(epoch);
  }
}

const sql = {
  epochs: `SELECT name, epoch FROM ${tables.peerName} WHERE name = ANY ($1)`,
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
  /** The names that this process holds or is taking. A session may take its own name again: a second taker in it would, too. */
  readonly #names = new Map<string, HeldLease | undefined>();
  /** The key of the present session. */
  #life = drawLife();

  constructor(session: PostgresSession, options: { readonly clock: Clock; readonly logger: Logger }) {
    this.#session = session;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  /**
   * Takes a name: waits until no session that is alive has it, then raises its epoch, and waits for the writes of older ones.
   *
   * @throws HawserError `name_in_use` if another holder has it until the wait is over, `aborted` by the signal,
   * `store_failed` if Postgres cannot be reached until then, or refuses
   */
  async take(name: string, { waitMs, signal }: TakeNameOptions): Promise<Lease> {
    const deadline = this.#clock.now() + waitMs;
    for (;;) {
      if (signal?.aborted)
        throw new HawserError("aborted", `taking the name "${name}" was aborted`, { cause: signal.reason });
      const attempt = await this.#attempt(name);
      if (attempt instanceof HeldLease) return attempt;
      if (attempt.code === "store_failed" && !isTransient(attempt.cause)) throw attempt;
      if (this.#clock.now() + storeConstants.leasePollMs > deadline) throw attempt;
      await delay(storeConstants.leasePollMs, signal, this.#clock);
    }
  }

  /** Every lease that has not ended becomes suspended: the session by which it was held is gone. */
  suspendAll(): void {
    for (const lease of this.#names.values()) lease?.enter("suspended");
  }

  /** Keeps the names with a new session; goes on trying by itself for those that another still has. */
  async regainAll(query: SessionQuery): Promise<void> {
    this.#life = drawLife();
    for (const lease of [...this.#names.values()]) if (lease !== undefined) await this.#regain(lease, query);
  }

  /**
   * Checks that the catalog still has the epochs of the leases. A listener's channels may have been handed over while it
   * has its session; a listener that has nothing to write would not find out.
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
      await this.#free(lease.name, { clean: false });
    }
  }

  /** One try. Returns the error to report if it was the last. */
  async #attempt(name: string): Promise<HeldLease | HawserError> {
    const inUse = new HawserError(
      "name_in_use",
      `the name "${name}" is held by another process, or by another peer of this one; stop that, or choose another name`,
    );
    if (this.#names.has(name)) return inUse;
    this.#names.set(name, undefined);
    let lease: HeldLease | undefined;
    const { generation } = this.#session;
    try {
      const server = await serverIdentity(this.#session.query);
      const owned = await this.#own(name, randomUUID(), this.#session.query);
      if (owned === undefined) return inUse;
      // Whose session is lost meanwhile has lost the name with it; the epoch that was raised does no harm.
      if (!this.#session.isUp || this.#session.generation !== generation) {
        return storeFailure(`take the name "${name}"`, new Error("the session with Postgres was lost"));
      }
      lease = this.#leaseOf({ name, server, ...owned });
      this.#names.set(name, lease);
      return lease;
    } catch (cause) {
      // Whether this session has the name or not: not after this.
      if (this.#session.isUp && this.#session.generation === generation) await this.#free(name, { clean: false });
      return storeFailure(`take the name "${name}"`, cause);
    } finally {
      if (lease === undefined) this.#names.delete(name);
    }
  }

  #leaseOf(taken: ConstructorParameters<typeof HeldLease>[0]): HeldLease {
    const { leaseExpiryMs: expiryMs } = storeConstants;
    const life = { now: () => this.#clock.now(), expiryMs, heardAt: () => this.#session.heardAt };
    return new HeldLease(taken, life, (lease, clean) => this.#giveBack(lease, clean));
  }

  async #regain(lease: HeldLease, query: SessionQuery): Promise<void> {
    const isWanted = (): boolean => this.#names.get(lease.name) === lease && lease.state === "suspended";
    if (!isWanted()) return;
    const { name } = lease;
    const kept = await storeFunctions(callerOf(query)).keepName({
      name,
      epoch: BigInt(lease.epoch),
      token: lease.renewalToken ?? null,
      life: this.#life,
    });
    if (kept.owned && isWanted()) {
      if (kept.inUse) {
        this.#regainLater(lease);
        return;
      }
      const server = await serverIdentity(query);
      // An epoch whose answer was lost is not used, although it is ours: on this server it may be an old one again.
      const isKept =
        (server === lease.server && Number(kept.epoch) === lease.epoch) || (await this.#renew(lease, server, query));
      if (!isKept) {
        this.#regainLater(lease);
        return;
      }
      if (isWanted()) {
        lease.enter("held");
        return;
      }
    }
    // Taken by another, or released while the answers were under way.
    if (kept.owned && !kept.inUse) await storeFunctions(callerOf(query)).releaseName({ name, clean: false });
    if (!isWanted()) return;
    this.#names.delete(lease.name);
    lease.enter("lost");
  }

  /** @returns false if another process is just about to take the name, or to fence its owner off */
  async #renew(lease: HeldLease, server: string, query: SessionQuery): Promise<boolean> {
    const { name } = lease;
    lease.renewalToken ??= randomUUID();
    const owned = await this.#own(name, lease.renewalToken, query);
    if (owned === undefined) return false;
    const { epoch } = owned;
    this.#logger.warn({ peer: name, epoch }, "another database server answers; the name was taken anew");
    lease.renew({ epoch, server });
    return true;
  }

  /** The two steps. @returns undefined if another one has the name, or is about to take it */
  async #own(name: string, token: string, query: SessionQuery) {
    const functions = storeFunctions(callerOf(query));
    const { taken, epoch, wasClean } = await functions.ownName({ name, token, life: this.#life });
    if (!taken || epoch === null || wasClean === null) return undefined;
    const { held } = await functions.raiseFence({ name, epoch });
    return held ? { epoch: Number(epoch), wasClean } : undefined;
  }

  /** The holder may be our own old session, whose end the server has not noticed, or a process that is taking over. */
  #regainLater(lease: HeldLease): void {
    const { generation } = this.#session;
    this.#clock.setTimeout(() => {
      // A newer session tries by itself.
      if (this.#session.generation !== generation) return;
      this.#regain(lease, this.#session.query).catch((err) => {
        this.#logger.debug({ err, peer: lease.name }, "could not take a name again; trying again");
        if (this.#session.isUp) this.#regainLater(lease);
      });
    }, storeConstants.leasePollMs);
  }

  async #giveBack(lease: HeldLease, clean: boolean): Promise<void> {
    const wasHeld = lease.state === "held";
    const { generation } = this.#session;
    const isSameSession = (): boolean => this.#session.isUp && this.#session.generation === generation;
    // Before the name is free: from here on nothing is written in it.
    lease.enter("released");
    if (wasHeld && isSameSession()) await this.#free(lease.name, { clean });
    if (this.#names.get(lease.name) === lease) this.#names.delete(lease.name);
  }

  async #free(name: string, { clean }: { readonly clean: boolean }): Promise<void> {
    try {
      await storeFunctions(callerOf(this.#session.query)).releaseName({ name, clean });
    } catch (err) {
      this.#logger.warn({ err, peer: name }, "could not give a name back; ending the session that has it");
      this.#session.restart();
    }
  }
}

/** A client of the generated functions that works on the session. */
function callerOf(query: SessionQuery): QueryClient {
  return { query: async ({ text, values }) => ({ rows: await query<Record<string, unknown>>(text, values) }) };
}

/** The key of a session: nobody knows it before the session has its advisory lock. */
function drawLife(): bigint {
  return randomBytes(8).readBigInt64BE();
}

/** An SQL condition: a process has the name, which is given as an SQL expression. It looks once for all names. */
export function nameHeldSql(name: string): string {
  return `${name} IN (
    SELECT unnest(r.running) FROM hawser.running_peers(ARRAY(SELECT p.name FROM ${tables.peerName} AS p)) AS r
  )`;
}

/**
 * Calls a function that refuses to work while a process has the name.
 *
 * @param remedy what the user can do, to follow "is running;"
 * @throws HawserError `name_in_use` if a process has it; otherwise what `call` throws
 */
export async function unlessRunning<T>(name: string, call: () => Promise<T>, remedy = "stop it first"): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (sqlstateOf(error) !== errorTable.name_in_use.sqlstate) throw error;
    throw new HawserError("name_in_use", `"${name}" is running; ${remedy}`, { cause: error });
  }
}
