/**
 * A session with Postgres that runs user functions. It serves a single role and is cleared between transactions, so
 * that state that a function leaves behind never reaches functions of another role.
 */
import type { Duplex } from "node:stream";
import pg from "pg";
import {
  CommitWatch,
  functionSessionFacts,
  functionSettingsSql,
  openSession,
} from "../../../foundation/postgres/index.js";
import { type Logger, TimeLimit } from "../../../foundation/runtime/index.js";
import type { Backend, ExecutorLogin, Silence } from "./executor-login.js";

/** So long a database session for functions keeps the plans that Postgres has made in it. */
export const executorPlansMs = 10_000;
/** Postgres ends a session for functions that waits this long for us in a transaction. */
const executorIdleInTransactionMs = 60_000;
/** Interval at which Postgres checks, while a function runs, whether its client is still connected. */
const executorPresenceMs = 1_000;
/** Time limit for clearing a session of the executor, and for ending it. */
const executorClearMs = 5_000;
/** Time for which a statement may exceed its timeout, which a function can catch, before its session is ended. */
export const executorOverdueMs = 2_000;
/**
 * The largest message of Postgres that is read in a session for functions: an answer of 64 MiB, the most that a NATS
 * server can be told to take, is twice as long as text.
 */
const executorMaxMessageBytes = 144 * 1024 * 1024;
/** Bytes of notices and notifications that Postgres may send in a transaction of a function. */
const executorMaxUnaskedBytes = 1024 * 1024;

/** Interval at which Postgres checks, where its platform can, that the client of a running function still exists. */
const checkInterval = `'${executorPresenceMs}ms'`;
const setCheckInterval = `SELECT set_config('client_connection_check_interval', ${checkInterval}, false)`;

/**
 * Statements that end a transaction. A trigger can be deferred again after the wrapper has executed the deferred ones;
 * it then runs at COMMIT, before Postgres 18 with the rights of the login. A read-only transaction stays read-only to
 * its end, so such a trigger can change nothing. The query of a cursor WITH HOLD also runs at COMMIT with the rights of
 * the login, so cursors are closed first.
 *
 * After SAVEPOINT, only the subtransaction would be read-only, and the outer transaction could write again. So the
 * savepoint is released first.
 *
 * A COMMIT that no synchronous standby has confirmed is only a warning.
 */
const commitSql = "CLOSE ALL; SET TRANSACTION READ ONLY; SET LOCAL client_min_messages = warning; COMMIT";
const releaseSql = "RELEASE SAVEPOINT hawser";

/** DISCARD ALL without DISCARD PLANS: planning again for each batch takes longer than a short batch. */
const clearSql =
  "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; " +
  "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/** SQLSTATE of a write in a read-only transaction, here by a deferred trigger. */
const readOnly = "25006";

/** Login and role of an {@link ExecutorSession}. */
export interface ExecutorSessionOptions {
  readonly login: Pick<ExecutorLogin, "attempts" | "address" | "check" | "reasonOfSilence" | "endBackend">;
  /** Role whose functions run in the session. */
  readonly runAs: string;
  readonly logger: Logger;
}

/** Time limits of the statements of a transaction. */
export interface StatementLimits {
  readonly timeoutMs: number;
  /** Maximum wait for a lock, within `timeoutMs`. */
  readonly lockTimeoutMs?: number | undefined;
}

export class ExecutorSession {
  readonly runAs: string;
  /** Start time of the server, as text from Postgres. */
  readonly serverStartedAt: string;
  readonly #client: pg.Client;
  readonly #messages: MessageWatch;
  readonly #commits: CommitWatch;
  readonly #backend: Backend;
  readonly #login: ExecutorSessionOptions["login"];
  /** Settings of each transaction that not all versions and platforms of Postgres have. */
  readonly #optionalSettings: string;
  /** Statements after RESET ALL. */
  readonly #afterReset: string;
  #timeoutMs = 0;
  /** SET LOCAL statements at the start of each transaction and after each group, which undo what functions have set. */
  #settings = "";
  /** True if the transaction has a savepoint. */
  #hasSavepoint = false;
  #silence: Promise<Silence | undefined> | undefined;
  #isLost = false;
  /** Time since which the session keeps plans (`performance.now()`, ms). */
  #plansSince = performance.now();
  #hasOldPlans = false;
  readonly #logger: Logger;

  private constructor(
    client: pg.Client,
    messages: MessageWatch,
    { runAs, login, logger }: ExecutorSessionOptions,
    backend: Backend,
    {
      checksClient,
      keepsSettings,
      limitsTransactions,
    }: Record<"checksClient" | "keepsSettings" | "limitsTransactions", boolean>,
  ) {
    this.#client = client;
    this.#messages = messages;
    this.#commits = new CommitWatch(client);
    this.runAs = runAs;
    this.#logger = logger;
    this.serverStartedAt = backend.serverStartedAt;
    this.#backend = backend;
    this.#login = login;
    this.#optionalSettings =
      (checksClient ? ` SET LOCAL client_connection_check_interval = ${checkInterval};` : "") +
      (limitsTransactions ? " SET LOCAL transaction_timeout = 0;" : "");
    this.#afterReset = keepsSettings ? "" : `; ${functionSettingsSql}`;
    client.on("end", () => {
      this.#isLost = true;
    });
  }

  /**
   * Opens a session.
   *
   * @throws HawserError `executor_login` if the login has too many privileges, or reaches another database; errors of
   * node-postgres
   */
  static async open(options: ExecutorSessionOptions): Promise<ExecutorSession> {
    const { login, logger } = options;
    const { client } = await openSession(await login.address(), {
      applicationName: "hawser executor",
      runsFunctions: true,
      onClient: (opening) => opening.on("error", (err) => logger.debug({ err }, "a session of the executor failed")),
    });
    let limit: NodeJS.Timeout | undefined;
    try {
      const messages = new MessageWatch(client.connection.stream, executorMaxMessageBytes, executorMaxUnaskedBytes);
      // `openSession` has limited the time to connect.
      limit = setTimeout(() => client.connection.stream.destroy(), executorClearMs);
      const backend = await login.check(client);
      const checksClient = await client.query(setCheckInterval).then(
        () => true,
        () => false,
      );
      const facts = await functionSessionFacts(client);
      return new ExecutorSession(client, messages, options, backend, { checksClient, ...facts });
    } catch (error) {
      client.connection.stream.destroy();
      throw error;
    } finally {
      clearTimeout(limit);
    }
  }

  /**
   * True if the session has ended, or Postgres has announced its end, whether by an administrator, a function, or a
   * shutdown.
   */
  get isLost(): boolean {
    return this.#isLost || this.#messages.isEnding;
  }

  /** True if the session has plans from an earlier transaction, which may be made for objects that have changed. */
  get hasOldPlans(): boolean {
    return this.#hasOldPlans;
  }

  /** SQLSTATE with which Postgres announced the end of the session. */
  get endCode(): string | undefined {
    return this.#messages.endCode;
  }

  /**
   * Reason why a statement of this transaction was not answered in time, so that the session was closed; undefined if
   * all statements were answered in time.
   */
  async silence(): Promise<Silence | undefined> {
    return this.#silence;
  }

  /**
   * Starts a transaction.
   *
   * @param more statement to run after BEGIN, without parameters
   * @returns rows of that statement
   */
  async start<Row extends object>({ timeoutMs, lockTimeoutMs }: StatementLimits, more: string): Promise<Row[]> {
    const lockTimeout = lockTimeoutMs === undefined ? "" : ` SET LOCAL lock_timeout = ${Math.ceil(lockTimeoutMs)};`;
    this.#settings =
      `SET LOCAL idle_in_transaction_session_timeout = ${executorIdleInTransactionMs};${this.#optionalSettings}` +
      ` SET LOCAL statement_timeout = ${Math.ceil(timeoutMs)};${lockTimeout}`;
    const text = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ${this.#settings} ${more}`;
    this.#timeoutMs = timeoutMs;
    this.#hasSavepoint = false;
    this.#silence = undefined;
    this.#messages.startTransaction();
    // A query of several statements has an array of results.
    const results = (await this.#inTime(this.#client.query(text))) as unknown as pg.QueryResult<Row>[];
    return results.at(-1)!.rows;
  }

  /** Runs an unnamed statement. A function could have prepared another statement under any name. */
  async query<Row extends object>(text: string, values: unknown[]): Promise<Row[]> {
    return (await this.#inTime(this.#client.query<Row>(text, values))).rows;
  }

  /** Replaces the savepoint of the transaction, and resets settings that functions have changed. */
  async savepoint(): Promise<void> {
    const before = this.#hasSavepoint ? `${releaseSql}; RESET ALL${this.#afterReset}; ${this.#settings} ` : "";
    this.#hasSavepoint = true;
    await this.#inTime(this.#client.query(`${before}SAVEPOINT hawser`));
  }

  /** Rolls back to the savepoint, which remains. */
  async toSavepoint(): Promise<void> {
    await this.#inTime(this.#client.query("ROLLBACK TO SAVEPOINT hawser"));
  }

  /**
   * Commits the transaction.
   *
   * @returns false if Postgres rolled back instead, or refused the write of a trigger that was deferred until COMMIT
   */
  async commit(): Promise<boolean> {
    try {
      const text = this.#hasSavepoint ? `${releaseSql}; ${commitSql}` : commitSql;
      const results = (await this.#inTime(this.#client.query(text))) as unknown as pg.QueryResult[];
      this.#commits.check();
      return results.at(-1)!.command === "COMMIT";
    } catch (error) {
      if (error instanceof pg.DatabaseError && error.code === readOnly) return false;
      throw error;
    }
  }

  /**
   * Removes the state that functions have left in the session. Plans are removed only after a failure, and after
   * `executorPlansMs`.
   *
   * @param failed true if a transaction is still open
   * @returns false if the session cannot be used any more
   */
  async clear(failed: boolean): Promise<boolean> {
    if (this.isLost) {
      this.destroy();
      return false;
    }
    const limit = setTimeout(() => this.destroy(), executorClearMs);
    try {
      if (failed) await this.#client.query("ROLLBACK");
      this.#hasOldPlans = !failed && performance.now() - this.#plansSince < executorPlansMs;
      if (!this.#hasOldPlans) this.#plansSince = performance.now();
      await this.#client.query(`${clearSql}${this.#hasOldPlans ? "" : "; DISCARD PLANS"}${this.#afterReset}`);
      return !this.isLost;
    } catch (err) {
      this.#logger.debug({ err }, "a session of the executor cannot be cleared; it is replaced");
      this.destroy();
      return false;
    } finally {
      clearTimeout(limit);
    }
  }

  /** Closes the session gracefully. */
  async end(): Promise<void> {
    if (this.isLost) return this.destroy();
    const limit = setTimeout(() => this.destroy(), executorClearMs);
    await this.#client.end().catch(() => undefined);
    clearTimeout(limit);
  }

  /** Closes the connection at once. */
  destroy(): void {
    this.#isLost = true;
    this.#client.connection.stream.destroy();
  }

  async #inTime<T>(statement: Promise<T>): Promise<T> {
    let isAnswered = false;
    const limit = new TimeLimit(this.#timeoutMs + executorOverdueMs, () => {
      this.#silence = this.#closeUnanswered(() => isAnswered);
    });
    try {
      return await statement;
    } finally {
      isAnswered = true;
      limit.end();
    }
  }

  /**
   * Finds out why a statement was not answered, and closes the session.
   *
   * @returns undefined if the answer arrived meanwhile
   */
  async #closeUnanswered(isAnswered: () => boolean): Promise<Silence | undefined> {
    const why = await this.#login.reasonOfSilence(this.#backend, this.#timeoutMs);
    if (isAnswered()) return undefined;
    await this.#login.endBackend(this.#backend);
    this.destroy();
    return why;
  }
}

/** Header of each message of Postgres's protocol: type (1 byte), and length without the type (u32, big-endian). */
const headBytes = 5;

/** The type of an ErrorResponse, "E". */
const errorType = 0x45;

/** Message types that are sent without a request: NoticeResponse "N", NotificationResponse "A", ParameterStatus "S". */
const unrequestedTypes: ReadonlySet<number | undefined> = new Set([0x4e, 0x41, 0x53]);

/** Bytes of an error that are kept; severity and SQLSTATE come first. */
const severityBytes = 256;

/**
 * Reads the bytes from Postgres before the driver does. It enforces two limits, and learns what the driver does not
 * report:
 *
 * - The length of a message. A function can produce an error or a result of almost one gigabyte. The driver would keep
 *   it and convert it to a string, which ends the process if it exceeds the maximum length of a string.
 * - The bytes sent without a request. A function that sends notices in a loop would keep the process busy.
 * - Whether an error ends the session. The driver reports the severity only in the language of `lc_messages`.
 */
export class MessageWatch {
  readonly #stream: Duplex;
  readonly #maxBytes: number;
  readonly #maxUnrequestedBytes: number;
  #unrequestedBytes = 0;
  readonly #head = Buffer.alloc(headBytes);
  #headHas = 0;
  /** Bytes that remain of the current message. */
  #left = 0;
  readonly #error = Buffer.alloc(severityBytes);
  #errorHas = 0;
  #endCode: string | undefined;

  /**
   * Closes the connection with an error before the driver keeps a message above `maxBytes`, and after more than
   * `maxUnrequestedBytes` that were sent without a request in one transaction. Must be created between two messages,
   * after the TLS handshake.
   */
  constructor(stream: Duplex, maxBytes: number, maxUnrequestedBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    this.#maxUnrequestedBytes = maxUnrequestedBytes;
    stream.prependListener("data", (chunk: Buffer) => this.#read(chunk));
  }

  /** True once Postgres has announced the end of the session, before the driver emits that error. */
  get isEnding(): boolean {
    return this.#endCode !== undefined;
  }

  /** SQLSTATE with which Postgres announced the end of the session; empty if it sent none. */
  get endCode(): string | undefined {
    return this.#endCode;
  }

  /** Resets the limit of unrequested bytes, at the start of a transaction. */
  startTransaction(): void {
    this.#unrequestedBytes = 0;
  }

  #read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left > 0) {
        const passed = Math.min(this.#left, chunk.length - at);
        if (this.#head[0] === errorType) this.#errorHas += chunk.copy(this.#error, this.#errorHas, at, at + passed);
        this.#left -= passed;
        at += passed;
        if (this.#left === 0 && this.#head[0] === errorType) this.#endError();
        continue;
      }
      const taken = chunk.copy(this.#head, this.#headHas, at, at + headBytes - this.#headHas);
      this.#headHas += taken;
      at += taken;
      if (this.#headHas < headBytes) return;
      this.#headHas = 0;
      this.#left = this.#head.readUInt32BE(1) - (headBytes - 1);
      if (this.#left > this.#maxBytes) {
        this.#refuse(`an error or a result of ${this.#left} bytes; the limit is ${this.#maxBytes}`);
        return;
      }
      if (!unrequestedTypes.has(this.#head[0])) continue;
      this.#unrequestedBytes += headBytes + this.#left;
      if (this.#unrequestedBytes > this.#maxUnrequestedBytes) {
        this.#refuse(`more than ${this.#maxUnrequestedBytes} bytes of notices and notifications`);
        return;
      }
    }
  }

  #refuse(excess: string): void {
    this.#stream.destroy(new Error(`a function produced ${excess}; its session was closed`));
  }

  #endError(): void {
    const fields = fieldsOf(this.#error.subarray(0, this.#errorHas));
    this.#errorHas = 0;
    // A proxy may omit the untranslated severity; its own messages are in English.
    const severity = fields.get("V") ?? fields.get("S");
    if (severity === "FATAL" || severity === "PANIC") this.#endCode = fields.get("C") ?? "";
  }
}

/** Complete fields of an error: each is a letter and a text that ends with NUL. */
function fieldsOf(beginning: Buffer): Map<string, string> {
  const fields = new Map<string, string>();
  for (let at = 0; at < beginning.length; ) {
    const end = beginning.indexOf(0, at);
    if (end <= at) break;
    fields.set(beginning.toString("latin1", at, at + 1), beginning.toString("latin1", at + 1, end));
    at = end + 1;
  }
  return fields;
}
