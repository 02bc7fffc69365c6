/**
 * A session with Postgres in which functions of others run, and whatever they leave behind in it. It serves one role, so that
 * nothing reaches the functions of another; between two transactions it is cleared.
 */

import pg from "pg";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { openSession } from "../../postgres/index.js";
import { type Logger, TimeLimit } from "../../runtime/index.js";
import type { Backend, ExecutorLogin, Silence } from "./executor-login.js";
import { MessageWatch } from "./message-watch.js";

const { executorIdleInTransactionMs, executorPresenceMs, executorClearMs, executorOverdueMs } = bridgeConstants;
const { executorMaxMessageBytes, executorMaxUnaskedBytes } = bridgeConstants;

/** Has Postgres notice that we are gone while a function runs, where its system can. */
const presence = `'${executorPresenceMs}ms'`;
const noticeGone = `SELECT set_config('client_connection_check_interval', ${presence}, false)`;

/**
 * A trigger can be deferred again while the wrapper settles what was deferred: it runs at COMMIT, before Postgres 18 as the
 * login. A transaction that only reads does so to its end, and so that one changes neither the login nor anything else. The
 * query of a cursor WITH HOLD is run at COMMIT, too, as the login: those that the function has left are closed.
 *
 * Behind a savepoint it would be the subtransaction that only reads: the one that it ends in is made to write again.
 */
const lastWords = "CLOSE ALL; SET TRANSACTION READ ONLY; COMMIT";
const releaseSql = "RELEASE SAVEPOINT hawser";

/** The SQLSTATE of what such a trigger wants to write. */
const readOnly = "25006";

/** What a session is opened for, and by whom. */
export interface ExecutorSessionOptions {
  readonly login: Pick<ExecutorLogin, "address" | "admit" | "whySilent" | "endBackend">;
  /** Whose functions run in it. */
  readonly runAs: string;
  readonly logger: Logger;
}

/** How long Postgres may take for a statement. */
export interface StatementLimits {
  readonly timeoutMs: number;
  /** How long of that it may wait for a lock. */
  readonly lockTimeoutMs?: number | undefined;
}

/** See above. */
export class ExecutorSession {
  readonly runAs: string;
  /** When the server was started, as Postgres writes it. */
  readonly serverStartedAt: string;
  readonly #client: pg.Client;
  readonly #messages: MessageWatch;
  readonly #backend: Backend;
  readonly #login: ExecutorSessionOptions["login"];
  readonly #presence: string;
  #timeoutMs = 0;
  /** What a transaction begins with, so that neither it nor a savepoint goes by what a function has set. */
  #settings = "";
  /** The transaction has its savepoint. */
  #hasSavepoint = false;
  #silence: Promise<Silence | undefined> | undefined;
  #isLost = false;

  private constructor(
    client: pg.Client,
    messages: MessageWatch,
    { runAs, login }: ExecutorSessionOptions,
    backend: Backend,
    noticesGone: boolean,
  ) {
    this.#client = client;
    this.#messages = messages;
    this.runAs = runAs;
    this.serverStartedAt = backend.serverStartedAt;
    this.#backend = backend;
    this.#login = login;
    this.#presence = noticesGone ? ` SET LOCAL client_connection_check_interval = ${presence};` : "";
    client.on("end", () => {
      this.#isLost = true;
    });
  }

  /**
   * Connects.
   *
   * @throws BridgeError `executor_login` if the login may do too much, or reaches another database; whatever node-postgres
   * throws
   */
  static async open(options: ExecutorSessionOptions): Promise<ExecutorSession> {
    const { login, logger } = options;
    const { client } = await openSession(await login.address(), {
      applicationName: "hawser executor",
      runsFunctions: true,
      onClient: (opening) => opening.on("error", (err) => logger.debug({ err }, "a session of the executor failed")),
    });
    let patience: NodeJS.Timeout | undefined;
    try {
      const messages = new MessageWatch(client.connection.stream, executorMaxMessageBytes, executorMaxUnaskedBytes);
      // That has a limit of its own.
      patience = setTimeout(() => client.connection.stream.destroy(), executorClearMs);
      const backend = await login.admit(client);
      const noticesGone = await client.query(noticeGone).then(
        () => true,
        () => false,
      );
      return new ExecutorSession(client, messages, options, backend, noticesGone);
    } catch (error) {
      client.connection.stream.destroy();
      throw error;
    } finally {
      clearTimeout(patience);
    }
  }

  /** It has ended, or Postgres has said that it ends: by an administrator, by the function itself, or because the server stops. */
  get isLost(): boolean {
    return this.#isLost || this.#messages.isEnding;
  }

  /** SQLSTATE with which Postgres has said that it ends. */
  get endCode(): string | undefined {
    return this.#messages.endCode;
  }

  /** Why it was ended from here: a statement of this transaction was not answered in time; undefined: all were. */
  async silence(): Promise<Silence | undefined> {
    return this.#silence;
  }

  /**
   * Begins a transaction.
   *
   * @param more a statement that follows, without parameters
   * @returns its rows
   */
  async begin<Row extends object>({ timeoutMs, lockTimeoutMs }: StatementLimits, more: string): Promise<Row[]> {
    const lockTimeout = lockTimeoutMs === undefined ? "" : ` SET LOCAL lock_timeout = ${Math.ceil(lockTimeoutMs)};`;
    this.#settings =
      `SET LOCAL idle_in_transaction_session_timeout = ${executorIdleInTransactionMs};${this.#presence}` +
      ` SET LOCAL statement_timeout = ${Math.ceil(timeoutMs)};${lockTimeout}`;
    const text = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ${this.#settings} ${more}`;
    // Several statements have several results.
    this.#timeoutMs = timeoutMs;
    this.#hasSavepoint = false;
    this.#silence = undefined;
    this.#messages.begin();
    const results = (await this.#inTime(this.#client.query(text))) as unknown as pg.QueryResult<Row>[];
    return results.at(-1)!.rows;
  }

  /** Runs an unnamed statement: a named one could have been prepared by a function, as something else. */
  async query<Row extends object>(text: string, values: unknown[]): Promise<Row[]> {
    return (await this.#inTime(this.#client.query<Row>(text, values))).rows;
  }

  /** Sets the transaction's savepoint, in place of the one before. What functions have set is as it was at the beginning. */
  async savepoint(): Promise<void> {
    const before = this.#hasSavepoint ? `${releaseSql}; RESET ALL; ${this.#settings} ` : "";
    this.#hasSavepoint = true;
    await this.#inTime(this.#client.query(`${before}SAVEPOINT hawser`));
  }

  /** Undoes what was done since the savepoint, which stays. */
  async toSavepoint(): Promise<void> {
    await this.#inTime(this.#client.query("ROLLBACK TO SAVEPOINT hawser"));
  }

  /** @returns false if Postgres rolled back without an error, or because a trigger was deferred until now */
  async commit(): Promise<boolean> {
    try {
      const text = this.#hasSavepoint ? `${releaseSql}; ${lastWords}` : lastWords;
      const results = (await this.#inTime(this.#client.query(text))) as unknown as pg.QueryResult[];
      return results.at(-1)!.command === "COMMIT";
    } catch (error) {
      if (error instanceof pg.DatabaseError && error.code === readOnly) return false;
      throw error;
    }
  }

  /**
   * Takes away what functions have left behind in the session.
   *
   * @param failed a transaction is still open
   * @returns false: the session is of no use any more
   */
  async clear(failed: boolean): Promise<boolean> {
    if (this.isLost) {
      this.destroy();
      return false;
    }
    const patience = setTimeout(() => this.destroy(), executorClearMs);
    try {
      if (failed) await this.#client.query("ROLLBACK");
      await this.#client.query("DISCARD ALL");
      return !this.isLost;
    } catch {
      this.destroy();
      return false;
    } finally {
      clearTimeout(patience);
    }
  }

  /** Ends it in good order. */
  async end(): Promise<void> {
    if (this.isLost) return this.destroy();
    const patience = setTimeout(() => this.destroy(), executorClearMs);
    await this.#client.end().catch(() => undefined);
    clearTimeout(patience);
  }

  /** Ends it at once. */
  destroy(): void {
    this.#isLost = true;
    this.#client.connection.stream.destroy();
  }

  async #inTime<T>(statement: Promise<T>): Promise<T> {
    let isAnswered = false;
    const patience = new TimeLimit(this.#timeoutMs + executorOverdueMs, () => {
      this.#silence = this.#giveUp(() => isAnswered);
    });
    try {
      return await statement;
    } finally {
      isAnswered = true;
      patience.end();
    }
  }

  async #giveUp(isAnswered: () => boolean): Promise<Silence | undefined> {
    const why = await this.#login.whySilent(this.#backend, this.#timeoutMs);
    // The answer came while Postgres was asked.
    if (isAnswered()) return undefined;
    await this.#login.endBackend(this.#backend);
    this.destroy();
    return why;
  }
}
