/**
 * Pool of the user (`PeerOptions.pool`) as a source of clients. Hawser never ends it, and leaves no settings on the
 * clients that it gives back:
 *
 * - A session (leases and notifications, the queue, a migration) takes a client until the session ends. It discards the
 * state of the client first, and destroys the client afterwards: see `openSession`.
 * - A statement or a handler's transaction borrows a client. Its settings are `SET LOCAL`, so that they end with the
 * transaction: see `BorrowedClients`.
 *
 * The pool may come from another copy of node-postgres and its clients from a class of the user, so nothing here
 * depends on a class.
 */
import type pg from "pg";
import { HawserError } from "../errors/index.js";
import { inTime } from "../runtime/index.js";

/** Pool of the user. */
export class UserPool {
  readonly pool: pg.Pool;

  /** @throws HawserError `invalid_argument` unless `pool` is a pool that has not ended */
  constructor(pool: pg.Pool) {
    if (typeof (pool as pg.Pool | null)?.connect !== "function" || typeof pool.totalCount !== "number") {
      throw new HawserError("invalid_argument", "pool is no Pool of node-postgres: give a new pg.Pool()");
    }
    if (pool.ending || pool.ended) {
      throw new HawserError(
        "invalid_argument",
        "pool has ended: give an open one, and call end() after the peer has stopped",
      );
    }
    this.pool = pool;
  }

  /** Maximum number of clients. */
  get max(): number {
    return (this.pool as Partial<pg.Pool>).options?.max ?? Number.POSITIVE_INFINITY;
  }

  /** Names for messages. Role and database are empty if only a connector of the pool knows them. */
  get described(): { readonly role: string; readonly database: string; readonly server: string } {
    const { user = "", database = "" } = (this.pool as Partial<pg.Pool>).options ?? {};
    return { role: user, database, server: "the servers of the given pool" };
  }

  /**
   * Takes a client, which the caller releases.
   *
   * @param limitMs maximum wait
   * @throws the error of the pool; an error that names the pool if no client became free
   */
  async take(limitMs: number): Promise<pg.PoolClient> {
    const taking = this.pool.connect();
    try {
      return await inTime(
        limitMs,
        () => this.#lateError(limitMs),
        () => taking,
      );
    } catch (cause) {
      // The pool cannot withdraw a request, so a client may still come.
      taking.then(
        (client) => client.release(),
        () => undefined,
      );
      if (this.pool.ending) throw new Error("the pool was ended while a peer uses it; stop the peer first", { cause });
      const isLate = cause instanceof Error && cause.message === "timeout exceeded when trying to connect";
      throw isLate ? this.#lateError(this.pool.options.connectionTimeoutMillis ?? limitMs) : cause;
    }
  }

  #lateError(limitMs: number): Error {
    const { totalCount, idleCount } = this.pool;
    const used = totalCount - idleCount;
    const remedy = used < this.max ? "" : "; raise max of the pool, or release its clients sooner";
    return new Error(
      `the pool gave no client within ${limitMs} ms: ${used} of at most ${this.max} clients are in use${remedy}`,
    );
  }
}

/**
 * Validates a pool of the user.
 *
 * @param kept number of its clients that the process keeps for sessions
 * @returns the number of its clients that statements can use
 * @throws HawserError `invalid_argument`
 */
export function checkPool(pool: pg.Pool, kept: number): number {
  const { max } = new UserPool(pool);
  if (max > kept) return max - kept;
  throw new HawserError(
    "invalid_argument",
    `pool has max ${max}: up to ${kept} of its clients are kept for sessions, and one is needed for statements; ` +
      `set max to at least ${kept + 1}, plus the clients that your program uses`,
  );
}
