/**
 * Takes names and keeps them across lost sessions, with the strategy "session with a token" of {@link Ownership}.
 *
 * The row of a name in `hawser_data.owners` records its epoch and the session that owns it. Only our SQL functions read and
 * write it. A session is identified by its server process and by an advisory lock on a random key, its life key. No
 * other session can hold that lock in that process, because the key was unknown before. While the session lives, no
 * other session gets the name; the epoch decides whose writes count. Taking a name has two steps, each in its own
 * transaction: the first raises the epoch, the second waits at the fence for the writes of older epochs.
 *
 * A lease is the right to write under a name:
 *
 *     held ──session lost──▶ suspended ──kept by a new session, epoch unchanged──▶ held
 *       │                        └──────another epoch in the database───────▶ lost
 *       └──release──▶ released
 *
 * If the session reconnects to another server (a promoted standby, a restored copy), that server may lack the last
 * commits. The epoch of a process that owned the name in between may be among them, although listeners already know it.
 * The lease is then renewed: the name is taken again under a greater epoch before the lease is `held`. The answer of
 * that call may be lost. So each renewal writes a token: an epoch stored with the token of an unanswered renewal is our
 * own, and the name is taken once more.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { errorTable } from "../../../generated/ts/errors/errors.js";
import { storeFunctions, tables } from "../../../generated/ts/rows/peer.js";
import { storeConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import {
  functionClient,
  isTransient,
  type Life,
  type OwnedState,
  Owner,
  type Ownership,
  type PostgresSession,
  type SessionQuery,
  serverIdentity,
  sqlstateOf,
} from "../../foundation/postgres/index.js";
import { type Clock, delay, type Logger } from "../../foundation/runtime/index.js";
import { storeFailure } from "./store-failure.js";

/** Interval at which an occupied name or lease is requested again. */
export const leasePollMs = 100;

/** State of a lease. `lost` and `released` are final. */
export type LeaseState = OwnedState;

/** Taken name and its epoch. All writes under the name carry the epoch, which grows when the lease is renewed. */
export interface Lease
  extends Pick<Owner<number>, "epoch" | "state" | "isWritable" | "remainingMs" | "onChange">,
    Pick<Ownership, "release"> {
  readonly name: string;
  /** True if the previous owner shut down gracefully, or if there was none. */
  readonly wasClean: boolean;
  /**
   * Adds a callback for renewals, called before the state becomes `held` again. Messages numbered under the old epoch
   * can no longer be confirmed. Returns a function that removes the callback.
   */
  onRenewed(callback: (epoch: number) => void): () => void;
}

/** Lease whose state {@link Leases} changes. */
export class HeldLease extends Owner<number> implements Lease {
  readonly name: string;
  readonly wasClean: boolean;
  /** Server on which the epoch was taken. */
  server: string;
  /**
   * Token that identifies an unanswered renewal in the row of the name. All attempts of one renewal share it, since any
   * of them may be the one that was committed.
   */
  renewalToken: string | undefined;
  readonly #releaseLease: (lease: HeldLease, clean: boolean) => Promise<void>;
  readonly #renewalCallbacks = new Set<(epoch: number) => void>();
  #released: Promise<void> | undefined;

  constructor(
    taken: { readonly name: string; readonly epoch: number; readonly wasClean: boolean; readonly server: string },
    life: Life,
    releaseLease: (lease: HeldLease, clean: boolean) => Promise<void>,
  ) {
    super(taken.epoch, life);
    this.name = taken.name;
    this.server = taken.server;
    this.wasClean = taken.wasClean;
    this.#releaseLease = releaseLease;
  }

  onRenewed(callback: (epoch: number) => void): () => void {
    this.#renewalCallbacks.add(callback);
    return () => this.#renewalCallbacks.delete(callback);
  }

  release({ clean }: { readonly clean: boolean }): Promise<void> {
    this.#released ??= this.#releaseLease(this, clean);
    return this.#released;
  }

  /** Records that the name was taken again on another server. */
  renew({ epoch, server }: { readonly epoch: number; readonly server: string }): void {
    this.raise(epoch);
    this.server = server;
    // The renewal is answered: from now on another epoch means another process, whatever token the row still has.
    this.renewalToken = undefined;
    for (const callback of [...this.#renewalCallbacks]) callback(epoch);
  }
}

const sql = {
  heartbeat: `SELECT pg_backend_pid() AS pid, p.name, p.epoch FROM (SELECT) AS one LEFT JOIN ${tables.peerName} AS p ON p.name = ANY ($1)`,
} as const;

/** Wait options of {@link Leases.take}. */
export interface TakeNameOptions {
  /** Maximum wait in ms while another process owns the name; 0 tries once. */
  readonly waitMs: number;
  /** Ends the wait with `aborted`. */
  readonly signal?: AbortSignal;
}

/** Leases of one session. */
export class Leases {
  readonly #session: PostgresSession;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /**
   * Names that this process owns or is taking. A second taker in the same session would succeed in SQL, so it is
   * refused here.
   */
  readonly #names = new Map<string, HeldLease | undefined>();
  /** Life key of the current session. */
  #lifeKey = newLifeKey();

  constructor(session: PostgresSession, options: { readonly clock: Clock; readonly logger: Logger }) {
    this.#session = session;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  /**
   * Takes a name: waits until no live session owns it, raises its epoch, and waits for the writes of older epochs.
   *
   * @throws HawserError `name_in_use` if another process owns the name until `waitMs` is over; `aborted` by the signal;
   * `store_failed` if Postgres is unreachable until then or refuses
   */
  async take(name: string, { waitMs, signal }: TakeNameOptions): Promise<Lease> {
    const deadline = this.#clock.now() + waitMs;
    for (let isFirst = true; ; isFirst = false) {
      if (signal?.aborted)
        throw new HawserError("aborted", `taking the name "${name}" was aborted`, { cause: signal.reason });
      const attempt = await this.#attempt(name);
      if (attempt instanceof HeldLease) return attempt;
      if (attempt.code === "store_failed" && !isTransient(attempt.cause)) throw attempt;
      if (this.#clock.now() + leasePollMs > deadline) throw attempt;
      if (isFirst) this.#logger.info({ err: attempt, peer: name, waitMs }, "waiting for the name");
      await delay(leasePollMs, signal, this.#clock);
    }
  }

  /** Suspends all active leases, because their session is lost. */
  suspendAll(): void {
    for (const lease of this.#names.values()) lease?.enter("suspended");
  }

  /** Reclaims the names with a new session. Keeps retrying names that another session still owns. */
  async regainAll(query: SessionQuery): Promise<void> {
    this.#lifeKey = newLifeKey();
    for (const lease of [...this.#names.values()]) if (lease !== undefined) await this.#regain(lease, query);
  }

  /**
   * Heartbeat of the session: checks that the database still has the epochs of the leases. A listener's channels can be
   * handed over while its session is up, and a listener with nothing to write would not notice.
   *
   * @returns the server's process id
   */
  async heartbeat(query: SessionQuery): Promise<number> {
    const held = [...this.#names.values()].filter((lease) => lease?.state === "held") as HeldLease[];
    const before = held.map((lease) => ({ lease, epoch: lease.epoch }));
    const rows = await query<{ pid: number; name: string | null; epoch: bigint | null }>(sql.heartbeat, [
      held.map(({ name }) => name),
    ]);
    const epochs = new Map(rows.map(({ name, epoch }) => [name, Number(epoch)]));
    for (const { lease, epoch } of before) {
      if (lease.state !== "held" || lease.epoch !== epoch || epochs.get(lease.name) === epoch) continue;
      this.#names.delete(lease.name);
      lease.enter("lost");
      await this.#releaseName(lease.name, { clean: false });
    }
    return rows[0]!.pid;
  }

  /** Tries once. Returns the error to report if this was the last attempt. */
  async #attempt(name: string): Promise<HeldLease | HawserError> {
    const inUse = new HawserError(
      "name_in_use",
      `the name "${name}" is held by another process, or by another peer of this process; stop it, or choose another name`,
    );
    if (this.#names.has(name)) return inUse;
    this.#names.set(name, undefined);
    let lease: HeldLease | undefined;
    const { generation } = this.#session;
    try {
      const server = await serverIdentity(this.#session.query);
      const owned = await this.#takeOwnership(name, randomUUID(), this.#session.query);
      if (owned === undefined) return inUse;
      // If the session was lost, so was the name. The raised epoch is harmless.
      if (!this.#session.isUp || this.#session.generation !== generation) {
        return storeFailure(`take the name "${name}"`, new Error("the session with Postgres was lost"));
      }
      lease = this.#leaseOf({ name, server, ...owned });
      this.#names.set(name, lease);
      return lease;
    } catch (cause) {
      // The session may own the name or not. Release it in either case.
      if (this.#session.isUp && this.#session.generation === generation)
        await this.#releaseName(name, { clean: false });
      return storeFailure(`take the name "${name}"`, cause);
    } finally {
      if (lease === undefined) this.#names.delete(name);
    }
  }

  #leaseOf(taken: ConstructorParameters<typeof HeldLease>[0]): HeldLease {
    const { leaseExpiryMs: expiryMs } = storeConstants;
    const life = { now: () => this.#clock.now(), expiryMs, lastAnswerAt: () => this.#session.lastAnswerAt };
    return new HeldLease(taken, life, (lease, clean) => this.#releaseLease(lease, clean));
  }

  async #regain(lease: HeldLease, query: SessionQuery): Promise<void> {
    const isCurrent = (): boolean => this.#names.get(lease.name) === lease && lease.state === "suspended";
    if (!isCurrent()) return;
    const { name } = lease;
    const kept = await storeFunctions(functionClient(query)).keepName({
      name,
      epoch: BigInt(lease.epoch),
      token: lease.renewalToken ?? null,
      life: this.#lifeKey,
    });
    if (kept.owned && isCurrent()) {
      if (kept.inUse) {
        this.#regainLater(lease);
        return;
      }
      const server = await serverIdentity(query);
      // An epoch from a renewal whose answer was lost is our own, but is not used: on this server it may be older than
      // another process's.
      const isKept =
        (server === lease.server && Number(kept.epoch) === lease.epoch) || (await this.#renew(lease, server, query));
      if (!isKept) {
        this.#regainLater(lease);
        return;
      }
      if (isCurrent()) {
        lease.enter("held");
        return;
      }
    }
    // Taken by another process, or released while the answers were pending.
    if (kept.owned && !kept.inUse) await storeFunctions(functionClient(query)).releaseName({ name, clean: false });
    if (!isCurrent()) return;
    this.#names.delete(lease.name);
    lease.enter("lost");
  }

  /** Takes the name under a greater epoch. @returns false if another process is taking the name or fencing its owner */
  async #renew(lease: HeldLease, server: string, query: SessionQuery): Promise<boolean> {
    const { name } = lease;
    lease.renewalToken ??= randomUUID();
    const owned = await this.#takeOwnership(name, lease.renewalToken, query);
    if (owned === undefined) return false;
    const { epoch } = owned;
    this.#logger.warn({ peer: name, epoch }, "connected to another database server; took the name again");
    lease.renew({ epoch, server });
    return true;
  }

  /** Runs both steps of taking a name. @returns undefined if another process owns it or is taking it */
  async #takeOwnership(name: string, token: string, query: SessionQuery) {
    const functions = storeFunctions(functionClient(query));
    const { taken, epoch, wasClean } = await functions.ownName({ name, token, life: this.#lifeKey });
    if (!taken || epoch === null || wasClean === null) return undefined;
    const { held } = await functions.raiseFence({ name, epoch });
    return held ? { epoch: Number(epoch), wasClean } : undefined;
  }

  /**
   * Retries later. The owner may be our own old session, whose end the server has not noticed yet, or a process that is
   * taking over.
   */
  #regainLater(lease: HeldLease): void {
    const { generation } = this.#session;
    this.#clock.setTimeout(() => {
      // A newer session retries on its own.
      if (this.#session.generation !== generation) return;
      this.#regain(lease, this.#session.query).catch((err) => {
        this.#logger.debug({ err, peer: lease.name }, "could not take a name again; retrying");
        // The session may not be up yet: other leases and its LISTENs come behind this one.
        if (this.#session.generation === generation) this.#regainLater(lease);
      });
    }, leasePollMs);
  }

  async #releaseLease(lease: HeldLease, clean: boolean): Promise<void> {
    const wasHeld = lease.state === "held";
    const { generation } = this.#session;
    const isSameSession = (): boolean => this.#session.isUp && this.#session.generation === generation;
    // Set before the name is free: from now on nothing is written under it.
    lease.enter("released");
    if (wasHeld && isSameSession()) await this.#releaseName(lease.name, { clean });
    if (this.#names.get(lease.name) === lease) this.#names.delete(lease.name);
  }

  async #releaseName(name: string, { clean }: { readonly clean: boolean }): Promise<void> {
    try {
      await storeFunctions(functionClient(this.#session.query)).releaseName({ name, clean });
    } catch (err) {
      this.#logger.warn({ err, peer: name }, "could not release a name; closing the session that holds it");
      this.#session.restart();
    }
  }
}

/** Random key of a session. It is secret until the session holds the advisory lock on it. */
function newLifeKey(): bigint {
  return randomBytes(8).readBigInt64BE();
}

/**
 * SQL condition: a live process owns the name. Evaluated once for all names.
 *
 * @param name SQL expression
 */
export function nameHeldSql(name: string): string {
  return `${name} IN (
    SELECT unnest(r.running) FROM hawser.running_peers(ARRAY(SELECT p.name FROM ${tables.peerName} AS p)) AS r
  )`;
}

/**
 * Calls a function that fails while a process owns the name.
 *
 * @param remedy advice for the user, to follow "is running;"
 * @throws HawserError `name_in_use` if a process owns it; otherwise the error of `call`
 */
export async function unlessRunning<T>(name: string, call: () => Promise<T>, remedy = "stop it first"): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (sqlstateOf(error) !== errorTable.name_in_use.sqlstate) throw error;
    throw new HawserError("name_in_use", `"${name}" is running; ${remedy}`, { cause: error });
  }
}
