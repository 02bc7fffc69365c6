/**
 * The pool: short statements of all peers of the process.
 *
 * Nothing here depends on the session that a statement lands in, so that the pool also works behind a transaction
 * pooler (`pooled`). What does depend on one, leases and notifications, is on the session (shared-database.ts).
 */
import type pg from "pg";
import type { QueryClient } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import {
  type DatabaseAddress,
  localSettingsSql,
  outcomeOf,
  type SessionLimits,
  SessionPool,
  serverIdentity,
  sessionSettingsSql,
  spoilsConnection,
  userPathSql,
} from "../postgres/index.js";
import type { Clock, Logger } from "../runtime/index.js";
import { withIntegerArrays } from "./columns.js";
import { type Columns, KeptSession } from "./kept-session.js";
import { storeFailure } from "./store-failure.js";
import { beginSql, inShortTransaction, inTransaction, NotCommitted, type Transaction } from "./transaction.js";

const { lockTimeoutMs, statementTimeoutMs } = storeConstants;

/** Of each statement of Hawser's own. */
export const statementLimits: SessionLimits = { lockTimeoutMs, statementTimeoutMs };

/** How long an answer is waited for: the server's own timeout, and time for it to tell. */
const answerLimitMs = statementTimeoutMs + lockTimeoutMs;

/** A statement that was sent. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  /** Prepared under this name where sessions allow it. For statements that run often, and whose plan stays right. */
  readonly name?: string;
}

/** The pool of one database. */
export class Database {
  readonly logger: Logger;
  readonly #pool: SessionPool;
  readonly #clock: Clock;
  readonly #pooled: boolean;
  /** Begins a transaction. */
  readonly #beginSql: string;
  /** Sessions that had a transaction of the user last, and have the path and the limits of the login since. */
  readonly #users = new WeakSet<pg.ClientBase>();
  readonly #kept: KeptSession;

  /**
   * @param options.pooled connections go through a transaction pooler: no session settings, no prepared statements
   */
  constructor(
    address: DatabaseAddress,
    options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number; readonly pooled: boolean },
  ) {
    this.logger = options.logger;
    this.#clock = options.clock;
    this.#pooled = options.pooled;
    this.#beginSql = options.pooled ? `${beginSql}; ${localSettingsSql(statementLimits)}` : beginSql;
    this.#pool = new SessionPool(address, {
      ...statementLimits,
      max: options.poolSize,
      keepsSettings: !options.pooled,
      check: (client) => (options.pooled ? Promise.resolve() : this.#checkServer(client)),
      onIdleError: (err) => options.logger.debug({ err }, "a pooled connection to Postgres was lost"),
    });
    const host = {
      connect: () => this.#pool.connect((one) => !this.#users.has(one)),
      prepare: (client: pg.ClientBase) => this.#makeOwn(client),
      isWanted: () => this.#pool.isShort,
    };
    this.#kept = new KeptSession(host, options.clock, answerLimitMs);
  }

  /**
   * The server on which the leases are held. A new connection to another one, after a failover, is not used before the
   * session has taken the leases anew there: that server may have lost the epoch that fences this process off.
   */
  server: string | undefined;

  /** How many connections there may be. Grows when a further user of the pool asks for more. */
  get poolSize(): number {
    return this.#pool.max;
  }

  set poolSize(connections: number) {
    this.#pool.max = connections;
  }

  async #checkServer(client: pg.ClientBase): Promise<void> {
    if (this.server === undefined) return;
    const server = await serverIdentity(async (text, values) => (await client.query({ text, values })).rows);
    if (server !== this.server) throw new Error("another database server answers; its leases are not taken yet");
  }

  /**
   * Runs one statement, a transaction of its own, and returns its rows.
   *
   * @param action what it is for, to follow "could not" in an error
   * @throws HawserError `store_failed`; its `outcome` is `unknown` if the statement may have been committed all the same
   */
  async query<Row extends object>(action: string, statement: Statement): Promise<Row[]> {
    const run = async (client: pg.ClientBase) => (await client.query(this.#prepared(statement))).rows as Row[];
    // Behind a pooler a statement by itself may be run in any session, with whatever others have set there.
    return this.#withClient(action, (client) =>
      this.#pooled ? inTransaction(client, this.#beginSql, run) : run(client),
    );
  }

  /** What the generated function clients call. */
  caller(action: string): QueryClient {
    return withIntegerArrays({ query: async (statement) => ({ rows: await this.query(action, statement) }) });
  }

  /**
   * The same for a function that is called all the time: mostly in a session that is kept for it. Its parameters are texts,
   * bytes, booleans and arrays of integers.
   *
   * @param rowOf makes a row of its columns
   */
  frequentCaller(action: string, rowOf: (columns: Columns) => object): QueryClient {
    const others = this.caller(action);
    if (this.#pooled) return others;
    return {
      query: (statement) =>
        this.#kept.isFree
          ? this.#kept.run(action, statement as typeof statement & { name: string }, rowOf)
          : others.query(statement),
    };
  }

  /**
   * Runs `work`, with statements of the user in it, in a transaction: what is called through `unlimited` may take any
   * time, and what it leaves behind in the session does not reach others.
   *
   * @param begin statements with which the transaction begins; `work` gets the first row of the last one, if it has rows
   * @param work resolves with statements with which the transaction ends
   * @throws HawserError as {@link query}, with what `work` threw as its cause
   */
  async foreignTransaction<Begun>(
    action: string,
    begin: string,
    work: (
      transaction: Transaction,
      begun: Begun | undefined,
      unlimited: <R>(part: () => Promise<R>) => Promise<R>,
    ) => Promise<string>,
  ): Promise<void> {
    await this.#withClient(
      action,
      async (client, limit) => {
        const beginAll = this.#users.has(client) ? beginSql : `${this.#beginSql}; ${userPathSql}`;
        await inShortTransaction<Begun>(client, `${beginAll}; ${begin}`, this.#pool.cleaningSql, (transaction, begun) =>
          work(transaction, begun, async (part) => {
            limit.pause();
            try {
              return await part();
            } finally {
              limit.resume();
            }
          }),
        );
        if (!this.#pooled) this.#users.add(client);
      },
      true,
    );
  }

  /** Ends all connections; statements under way are finished first. */
  async close(): Promise<void> {
    this.#kept.close();
    await this.#pool.end();
  }

  #prepared({ name, text, values }: Statement): pg.QueryConfig {
    return { text, values: values as unknown[], ...(name !== undefined && !this.#pooled ? { name } : {}) };
  }

  /** A session that a user had last gets our own settings. */
  async #makeOwn(client: pg.ClientBase): Promise<void> {
    if (this.#users.delete(client)) await client.query(sessionSettingsSql(statementLimits));
  }

  /**
   * The connection is given up when `work` takes longer than `answerLimitMs`, not counting pauses: the server cannot be
   * heard any more, or its own timeout would have come before.
   *
   * @param isUsers `work` is a transaction with statements of the user: if it fails, what it left behind is not known
   */
  async #withClient<T>(
    action: string,
    work: (client: pg.PoolClient, limit: { pause(): void; resume(): void }) => Promise<T>,
    isUsers = false,
  ): Promise<T> {
    let client: pg.PoolClient;
    try {
      const connecting = this.#pool.connect((one) => this.#users.has(one) === isUsers);
      if (this.#pool.isShort) this.#kept.rest();
      client = await connecting;
    } catch (cause) {
      throw storeFailure(action, cause);
    }
    let spoilt = false;
    // Also after the last answer, until the client is back in the pool: a lost connection must not be an uncaught error.
    const onError = (): void => {
      spoilt = true;
    };
    client.on("error", onError);
    const giveUp = (): void => void client.end();
    let cancelTimer = this.#clock.setTimeout(giveUp, answerLimitMs);
    const limit = {
      pause: () => cancelTimer(),
      resume: () => {
        cancelTimer = this.#clock.setTimeout(giveUp, answerLimitMs);
      },
    };
    try {
      if (!isUsers) await this.#makeOwn(client);
      return await work(client, limit);
    } catch (error) {
      const notCommitted = error instanceof NotCommitted;
      spoilt ||= isUsers || (notCommitted ? !error.rolledBack : spoilsConnection(error));
      throw notCommitted ? storeFailure(action, error.cause, "failed") : storeFailure(action, error, outcomeOf(error));
    } finally {
      cancelTimer();
      client.removeListener("error", onError);
      client.release(spoilt);
    }
  }
}
