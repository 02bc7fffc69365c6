/** Clients of a user's pool, borrowed for one statement or transaction each. */

import type pg from "pg";
import { Deadline, inTime, Semaphore } from "../runtime/index.js";
import type { UserPool } from "../sql-clients/index.js";
import { databaseConnectTimeoutMs } from "./database-address.js";
import { localSettingsSql } from "./open-session.js";
import type { ClientPool, ClientPoolOptions } from "./session-pool.js";

/**
 * Resets, for the rest of the transaction, settings that the user's code may have changed in the session. A user cannot
 * change these settings in a session that Hawser opens, except as defaults of the role or the database.
 */
const ownLoginSql = [
  "SET LOCAL SESSION AUTHORIZATION DEFAULT",
  "SET LOCAL client_encoding = 'UTF8'",
  ...["role", "synchronous_commit"].map((name) => `SET LOCAL ${name} TO DEFAULT`),
].join("; ");

/** Clients of the user's pool for statements and transactions, at most `max` at a time. */
export class BorrowedClients implements ClientPool {
  readonly localSettingsSql: string;
  readonly isShort = false;
  readonly unopened = 0;
  readonly #source: UserPool;
  readonly #options: ClientPoolOptions;
  readonly #permits: Semaphore;
  readonly #checked = new WeakSet<pg.ClientBase>();

  constructor(source: UserPool, options: ClientPoolOptions) {
    this.#source = source;
    this.#options = options;
    this.#permits = new Semaphore(options.max);
    this.localSettingsSql = `${localSettingsSql(options)}; ${ownLoginSql}`;
    // Without a listener the loss of a client would end the process: the pool reports that of an idle client, and a
    // client in use, by Hawser or the user's code, its own. Its user learns of it by the statement that fails.
    source.pool.on("error", options.onIdleError).on("acquire", ignoreErrors).on("release", stopIgnoringErrors);
  }

  get max(): number {
    return this.#permits.limit;
  }

  set max(clients: number) {
    this.#permits.limit = clients;
  }

  async grow(clients: number): Promise<void> {
    this.max += clients;
  }

  /** None, because RESET ALL would undo settings of the user. Settings that a handler makes stay, too. */
  cleaningOf(): readonly [] {
    return [];
  }

  /** Takes a client. @throws as {@link UserPool.take} */
  async connect(): Promise<pg.PoolClient> {
    const deadline = new Deadline(databaseConnectTimeoutMs);
    const late = () =>
      new Error(
        `none of the ${this.max} clients of the pool that poolSize allows became free within ${databaseConnectTimeoutMs} ms`,
      );
    await inTime(databaseConnectTimeoutMs, late, (signal) => this.#permits.acquire(1, signal));
    let client: pg.PoolClient;
    try {
      client = await this.#source.take(deadline.remainingMs);
    } catch (error) {
      this.#permits.release();
      throw error;
    }
    // The pool sets `release` again whenever it hands the client out.
    const release = client.release.bind(client);
    client.release = (destroy) => {
      this.#permits.release();
      release(destroy);
    };
    return client;
  }

  /** Ends a transaction that the user's code left open, and checks a client before its first use. */
  async prepare(client: pg.ClientBase): Promise<void> {
    // Old versions of node-postgres do not have this method.
    const status = (client as Partial<pg.ClientBase>).getTransactionStatus?.() ?? "I";
    if (status !== "I") await client.query("ROLLBACK");
    if (this.#checked.has(client)) return;
    await this.#options.check(client);
    this.#checked.add(client);
  }

  /** Waits until all clients are given back. The pool stays open. */
  async end(): Promise<void> {
    await this.#permits.acquire(this.max);
    const { pool } = this.#source;
    pool.off("error", this.#options.onIdleError).off("acquire", ignoreErrors).off("release", stopIgnoringErrors);
  }
}

const ignored = (): void => undefined;

/** Called by the pool before it removes its own listener. */
function ignoreErrors(client: pg.ClientBase): void {
  // Several databases may use the pool, and old versions of it do not report a release.
  if (!client.listeners("error").includes(ignored)) client.on("error", ignored);
}

/** Called by the pool after it has added its own listener. */
function stopIgnoringErrors(_error: unknown, client: pg.ClientBase): void {
  client.off("error", ignored);
}
