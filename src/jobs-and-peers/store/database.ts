/**
 * Connection pool for the short statements of all peers of the process.
 *
 * No statement here depends on its session, so that the pool also works behind a transaction pooler (`pooled`), and can
 * be a user's. Leases and notifications need a session: see shared-database.ts.
 */
import type pg from "pg";
import { type QueryClient, tables } from "../../../generated/ts/rows/peer.js";
import {
  BorrowedClients,
  type ClientPool,
  type ClientSource,
  type Columns,
  CommitWatch,
  isServerError,
  loginSettingsSql,
  outcomeOf,
  type PreparedStatement,
  queryOwn,
  removePrepared,
  runPrepared,
  type SessionLimits,
  SessionPool,
  serverIdentity,
  sessionSettingsSql,
  spoilsConnection,
  withFilterRemedy,
} from "../../foundation/postgres/index.js";
import { type Clock, type Logger, Semaphore } from "../../foundation/runtime/index.js";
import { UserPool } from "../../foundation/sql-clients/index.js";
import { withIntegerArrays } from "./columns.js";
import { PinnedSession } from "./pinned-session.js";
import { storeFailure } from "./store-failure.js";
import {
  beginSql,
  beginStatement,
  inShortTransaction,
  inTransaction,
  NotCommitted,
  type UserQuery,
} from "./transaction.js";

/** Maximum wait for a locked row or table. */
export const lockTimeoutMs = 5_000;
/** Maximum duration of one statement. */
export const statementTimeoutMs = 30_000;

/** Limits of each of Hawser's own statements. */
export const statementLimits: SessionLimits = { lockTimeoutMs, statementTimeoutMs };

/** Maximum wait for an answer: the server's own timeouts and time to report them. */
const answerLimitMs = statementTimeoutMs + lockTimeoutMs;

/** Writes something, because only the commit of a transaction that writes waits for the synchronous standbys. */
const confirmSql =
  "SELECT hawser.commit_durably(), CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_logical_emit_message(true, 'hawser', '') END";

/** Statement that changes nothing, and is refused where no cursor could be moved: on a read-only server. */
const writeCheckSql = `UPDATE ${tables.cursor} SET has_rows = has_rows WHERE false`;

/** SQL statement. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  /** Name of the prepared statement, where sessions allow one. For frequent statements whose plan stays valid. */
  readonly name?: string;
}

/** Calls code that has no time limit. */
type Unlimited = <R>(part: () => Promise<R>) => Promise<R>;

/** Connection pool of one database: its own, or the one of the user. */
export class Database {
  readonly logger: Logger;
  readonly #pool: ClientPool;
  readonly #clock: Clock;
  readonly #limits: SessionLimits;
  /** True if each transaction makes its own settings, and there are no prepared statements. */
  readonly #isLocal: boolean;
  /** Statements that start a transaction. */
  readonly #beginSql: string;
  /** Sessions whose last transaction was the user's, so that they have the search_path and the limits of the login. */
  readonly #userSessions = new WeakSet<pg.ClientBase>();
  readonly #pinned: PinnedSession;
  /** Permits of transactional handlers of all peers of the process. */
  readonly #handlers = new Semaphore(1);
  /**
   * True after a statement of unknown outcome. It may be committed without the confirmation of a synchronous standby, and
   * its repetition may find nothing left to write, so that its commit does not wait for the standby either.
   */
  #mayBeUnconfirmed = false;

  /** @param options.pooled connections go through a transaction pooler: no session settings, no prepared statements */
  constructor(
    source: ClientSource,
    options: {
      readonly clock: Clock;
      readonly logger: Logger;
      readonly poolSize: number;
      readonly pooled: boolean;
      /** Limits of each statement, at most {@link statementLimits}, which are the default. */
      readonly limits?: SessionLimits | undefined;
      /** True if all transactions are READ ONLY, which needs `pooled`. Default false. */
      readonly readOnly?: boolean | undefined;
    },
  ) {
    this.logger = options.logger;
    this.#limits = options.limits ?? statementLimits;
    this.#clock = options.clock;
    const poolOptions = {
      ...this.#limits,
      max: options.poolSize,
      check: (client: pg.ClientBase) => (options.pooled ? Promise.resolve() : this.#checkServer(client)),
      onIdleError: (err: Error) => options.logger.debug({ err }, "a pooled connection to Postgres was lost"),
      onFull: (sessions: number) =>
        options.logger.warn({ sessions }, `Postgres gives no more connections: its pool makes do with ${sessions}`),
      onClosed: (sessions: number) => this.onClosed(sessions),
    };
    this.#pool =
      source instanceof UserPool
        ? new BorrowedClients(source, poolOptions)
        : new SessionPool(source, { ...poolOptions, keepsSettings: !options.pooled });
    const { localSettingsSql } = this.#pool;
    this.#isLocal = localSettingsSql !== undefined;
    const begin = options.readOnly ? `${beginSql} READ ONLY` : beginSql;
    this.#beginSql = localSettingsSql === undefined ? begin : `${begin}; ${localSettingsSql}`;
    const host = {
      connect: () => this.#pool.connect((one) => !this.#userSessions.has(one)),
      prepare: (client: pg.ClientBase) => this.#restoreSettings(client),
      isWanted: () => this.#pool.isShort,
      failed: (error: unknown) => {
        withFilterRemedy(error, this.logger);
        this.#mayBeUnconfirmed ||= outcomeOf(error) === "unknown";
      },
    };
    this.#pinned = new PinnedSession(host, options.clock, answerLimitMs);
  }

  /**
   * Identity of the server on which the leases are held. After a failover, a connection to another server is refused
   * until the session has taken the leases there again. That server may lack the epoch that fences this process.
   */
  server: string | undefined;

  /** Maximum number of connections. Grows when another user of the pool, or handlers that wait, need more. */
  get poolSize(): number {
    return this.#pool.max;
  }

  set poolSize(connections: number) {
    this.#pool.max = connections;
    this.#fitHandlers();
  }

  /** Opens so many more connections, and then gives them to handlers. Does not reject. */
  async grow(connections: number): Promise<void> {
    await this.#pool.grow(connections);
    this.#fitHandlers();
  }

  /** Number of its connections that Postgres does not show yet. */
  get unopened(): number {
    return this.#pool.unopened;
  }

  /** Number of transactional handlers that wait for a connection. */
  get waiting(): number {
    return this.#handlers.waiting;
  }

  /** Called when a transactional handler waits for a connection. */
  onShort = (): void => undefined;

  /** Called when it has closed a connection of its own that was idle or lost, with the number of the others. */
  onClosed = (_connections: number): void => undefined;

  /**
   * Runs the work of a transactional handler when there is a connection for it. Handlers leave at least one to other
   * statements.
   *
   * @param party several ones take turns
   */
  async handling<T>(party: unknown, work: () => Promise<T>): Promise<T> {
    // Postgres may have given fewer than it may have.
    this.#fitHandlers();
    if (!this.#handlers.tryAcquire(1, party)) {
      const acquired = this.#handlers.acquire(1, undefined, party);
      this.onShort();
      await acquired;
    }
    try {
      return await work();
    } finally {
      this.#handlers.release(1, party);
    }
  }

  #fitHandlers(): void {
    this.#handlers.limit = Math.max(1, this.poolSize - 1);
  }

  async #checkServer(client: pg.ClientBase): Promise<void> {
    if (this.server === undefined) return;
    const server = await serverIdentity(async (text, values) => {
      try {
        return await this.#run<object>(client, { text, values });
      } catch (error) {
        throw error instanceof NotCommitted ? error.cause : error;
      }
    });
    if (server !== this.server)
      throw new Error("connected to another database server, on which the leases are not taken yet");
  }

  /**
   * Runs one statement in its own transaction and returns its rows.
   *
   * @param action purpose of the statement, to follow "could not" in an error
   * @throws HawserError `store_failed`; its `outcome` is `unknown` if the statement may have been committed
   */
  async query<Row extends object>(action: string, statement: Statement): Promise<Row[]> {
    return this.#withClient(action, (client) => this.#run(client, statement));
  }

  async #run<Row extends object>(client: pg.ClientBase, statement: Statement): Promise<Row[]> {
    const run = async () => (await queryOwn<Row>(client, this.#prepared(statement))).rows;
    // A single statement would run with the settings of the other users of the client, or of a transaction pooler.
    return this.#isLocal ? inTransaction(client, this.#beginSql, run) : run();
  }

  /**
   * Checks that a statement can write: a client can be had, and its server commits what handlers do.
   *
   * @throws HawserError `store_failed`
   */
  async checkWrites(): Promise<void> {
    await this.query("write, as each handled message needs", { text: writeCheckSql });
  }

  /** Client for the generated functions. */
  caller(action: string): QueryClient {
    return withIntegerArrays({ query: async (statement) => ({ rows: await this.query(action, statement) }) });
  }

  /**
   * Client for frequently called functions, which mostly run in a pinned session. Their parameters are texts, bytes,
   * booleans and arrays of integers.
   *
   * @param rowOf converts the columns of a row
   */
  frequentCaller(action: string, rowOf: (columns: Columns) => object): QueryClient {
    const others = this.caller(action);
    if (this.#isLocal) return others;
    return {
      query: (statement) =>
        this.#pinned.isFree && !this.#mayBeUnconfirmed
          ? this.#pinned.run(action, statement as typeof statement & { name: string }, rowOf)
          : others.query(statement),
    };
  }

  /**
   * Runs `work`, which contains statements of the user, in a transaction. Code called through `unlimited` has no time
   * limit. Session state that it leaves behind does not reach other users of the pool.
   *
   * @param more statements behind BEGIN
   * @param work gets the client and the function for its statements; resolves with the statements that end the transaction
   * @throws HawserError as {@link query}, with the error of `work` as its cause
   */
  async userTransaction(
    action: string,
    more: readonly PreparedStatement[],
    work: (client: pg.ClientBase, query: UserQuery, unlimited: Unlimited) => Promise<readonly PreparedStatement[]>,
  ): Promise<void> {
    await this.#withClient(
      action,
      async (client, unlimited) => {
        const cleaning = this.#pool.cleaningOf(client);
        const isPrepared = !this.#isLocal;
        if (isPrepared && !this.#userSessions.has(client)) {
          // Then it has the settings of the login.
          await runPrepared(client, cleaning).catch((cause) => {
            throw new NotCommitted(cause, false);
          });
          this.#userSessions.add(client);
        }
        const surroundings = {
          begin: [isPrepared ? beginStatement : { text: `${this.#beginSql}; ${loginSettingsSql}` }, ...more],
          after: cleaning,
          isPrepared,
        };
        await inShortTransaction(client, surroundings, (query) => work(client, query, unlimited));
      },
      true,
    );
  }

  /** Closes its own connections after their running statements. */
  async close(): Promise<void> {
    this.#pinned.close();
    await this.#pool.end();
  }

  #prepared({ name, text, values }: Statement): pg.QueryConfig {
    const prepared = name !== undefined && !this.#isLocal ? { name } : {};
    return { text, values: values as unknown[], ...prepared };
  }

  /** Restores our own settings in a session that the user had last. */
  async #restoreSettings(client: pg.ClientBase): Promise<void> {
    if (!this.#userSessions.delete(client)) return;
    await removePrepared(client);
    await client.query(sessionSettingsSql(this.#limits));
  }

  /**
   * Runs `work` with a connection. Closes the connection if `work` takes longer than `answerLimitMs`, before and after what it calls
   * through `unlimited`: then the server is unreachable, since its own timeouts would have fired before.
   *
   * @param isUserWork whether `work` contains statements of the user. If it fails, the state of the session is unknown
   */
  async #withClient<T>(
    action: string,
    work: (client: pg.PoolClient, unlimited: Unlimited) => Promise<T>,
    isUserWork = false,
  ): Promise<T> {
    let client: pg.PoolClient;
    try {
      const connecting = this.#pool.connect((one) => this.#userSessions.has(one) === isUserWork);
      if (this.#pool.isShort) this.#pinned.releaseIfIdle();
      client = await connecting;
    } catch (cause) {
      throw storeFailure(action, cause);
    }
    let isBroken = false;
    let lost: unknown;
    // Also handles errors between the last answer and the release, because an unhandled "error" event would end the
    // process.
    const onError = (error: unknown): void => {
      isBroken = true;
      lost ??= error;
    };
    client.on("error", onError);
    const commits = new CommitWatch(client);
    const closeLate = (): void => void client.end();
    let cancelTimer = this.#clock.setTimeout(closeLate, answerLimitMs);
    const unlimited: Unlimited = async (part) => {
      cancelTimer();
      try {
        return await part();
      } finally {
        cancelTimer = this.#clock.setTimeout(closeLate, answerLimitMs);
      }
    };
    try {
      await this.#pool.prepare(client).catch((cause) => {
        throw new NotCommitted(cause, false);
      });
      if (!isUserWork) await this.#restoreSettings(client);
      const result = await work(client, unlimited);
      commits.check();
      if (this.#mayBeUnconfirmed) await this.#confirm(client, commits);
      return result;
    } catch (error) {
      const notCommitted = error instanceof NotCommitted;
      this.#mayBeUnconfirmed ||= !notCommitted && outcomeOf(error) === "unknown";
      // Before COMMIT, it can be an error of a user's statement.
      if (!isUserWork || !notCommitted) withFilterRemedy(notCommitted ? error.cause : error, this.logger);
      isBroken ||= isUserWork || (notCommitted ? !error.rolledBack : spoilsConnection(error));
      // The refusal of a message that is done already confirms what the earlier attempt has committed.
      if (notCommitted && error.rolledBack && this.#mayBeUnconfirmed) await this.#confirm(client, commits);
      const cause = notCommitted ? error.cause : error;
      // The server says once why it ends a session. Statements after that fail without the reason.
      const reason = isServerError(lost) && !isServerError(cause) ? lost : cause;
      throw storeFailure(action, reason, notCommitted ? "failed" : outcomeOf(error));
    } finally {
      cancelTimer();
      commits.end();
      client.removeListener("error", onError);
      client.release(isBroken);
    }
  }

  /**
   * Waits until the synchronous standbys have all that was committed before.
   *
   * @throws HawserError `store_failed` with the outcome `unknown`
   */
  async #confirm(client: pg.ClientBase, commits: CommitWatch): Promise<void> {
    const begin = `${beginSql}; SET LOCAL client_min_messages = notice`;
    try {
      await inTransaction(client, begin, (transaction) => transaction.query(confirmSql)).catch((error) => {
        // A server or a login that may not run it has no way to confirm.
        if (!(error instanceof NotCommitted && error.rolledBack)) throw error;
      });
      commits.check();
    } catch (cause) {
      throw storeFailure("have earlier writes confirmed by the synchronous standbys", cause, "unknown");
    }
    this.#mayBeUnconfirmed = false;
  }
}
