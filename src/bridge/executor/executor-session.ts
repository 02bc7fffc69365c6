/**
 * A session with Postgres in which functions of others run, and whatever they leave behind in it. It serves one role, so that
 * nothing reaches the functions of another; between two transactions it is cleared.
 */
import type { Duplex } from "node:stream";
import pg from "pg";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { openSession } from "../../postgres/index.js";
import { type Logger, TimeLimit } from "../../runtime/index.js";
import type { Backend, ExecutorLogin, Silence } from "./executor-login.js";

const { executorIdleInTransactionMs, executorPresenceMs, executorClearMs, executorOverdueMs } = bridgeConstants;
const { executorMaxMessageBytes, executorMaxUnaskedBytes, executorPlansMs } = bridgeConstants;

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

/** What DISCARD ALL does, except for plans: to make them anew for each batch takes longer than a short batch. */
const clearSql =
  "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; " +
  "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/** The SQLSTATE of what such a trigger wants to write. */
const readOnly = "25006";

/** How a session is opened, and for which role. */
export interface ExecutorSessionOptions {
  readonly login: Pick<ExecutorLogin, "attempts" | "address" | "admit" | "whySilent" | "endBackend">;
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
  /** The settings that each transaction begins with, and returns to after a group, whatever functions have set. */
  #settings = "";
  /** The transaction has its savepoint. */
  #hasSavepoint = false;
  #silence: Promise<Silence | undefined> | undefined;
  #isLost = false;
  /** Since when Postgres has kept plans in it, by `performance.now()`. */
  #plansSince = performance.now();
  #hasOldPlans = false;
  readonly #logger: Logger;

  private constructor(
    client: pg.Client,
    messages: MessageWatch,
    { runAs, login, logger }: ExecutorSessionOptions,
    backend: Backend,
    noticesGone: boolean,
  ) {
    this.#client = client;
    this.#messages = messages;
    this.runAs = runAs;
    this.#logger = logger;
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
   * @throws HawserError `executor_login` if the login may do too much, or reaches another database; whatever node-postgres
   * throws
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
      // Connecting has a limit of its own.
      limit = setTimeout(() => client.connection.stream.destroy(), executorClearMs);
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
      clearTimeout(limit);
    }
  }

  /** It has ended, or Postgres has said that it will: an administrator or the function has ended it, or the server stops. */
  get isLost(): boolean {
    return this.#isLost || this.#messages.isEnding;
  }

  /** It has plans of an earlier transaction: what they were made for may be another one by now. */
  get hasOldPlans(): boolean {
    return this.#hasOldPlans;
  }

  /** SQLSTATE with which Postgres has said that it ends. */
  get endCode(): string | undefined {
    return this.#messages.endCode;
  }

  /** Why a statement of this transaction was not answered in time, so that this process ended the session; undefined: all were. */
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
   * Takes away what functions have left behind in the session; plans only after a failure, and after `executorPlansMs`.
   *
   * @param failed a transaction is still open
   * @returns false: the session is of no use any more
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
      await this.#client.query(this.#hasOldPlans ? clearSql : "DISCARD ALL");
      return !this.isLost;
    } catch (err) {
      this.#logger.debug({ err }, "a session of the executor cannot be cleared: another one takes its place");
      this.destroy();
      return false;
    } finally {
      clearTimeout(limit);
    }
  }

  /** Ends it in good order. */
  async end(): Promise<void> {
    if (this.isLost) return this.destroy();
    const limit = setTimeout(() => this.destroy(), executorClearMs);
    await this.#client.end().catch(() => undefined);
    clearTimeout(limit);
  }

  /** Ends it at once. */
  destroy(): void {
    this.#isLost = true;
    this.#client.connection.stream.destroy();
  }

  async #inTime<T>(statement: Promise<T>): Promise<T> {
    let isAnswered = false;
    const limit = new TimeLimit(this.#timeoutMs + executorOverdueMs, () => {
      this.#silence = this.#giveUp(() => isAnswered);
    });
    try {
      return await statement;
    } finally {
      isAnswered = true;
      limit.end();
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

/** Of each message of Postgres's protocol: its type, and its length without that, as u32 big-endian. */
const headBytes = 5;

/** The type of an ErrorResponse, "E". */
const errorType = 0x45;

/** The types of a notice, a notification and the change of a parameter: "N", "A", "S". */
const unaskedTypes: ReadonlySet<number | undefined> = new Set([0x4e, 0x41, 0x53]);

/** So much of an error is kept: severity and SQLSTATE come first. */
const severityBytes = 256;

/**
 * Reads what Postgres sends before the driver does, for three things that the driver cannot tell.
 *
 * How long a message is: a function can make its error or its answer almost a gigabyte long; the driver keeps all of it and
 * makes it a string, which ends the process where it is longer than a string can be.
 *
 * How much comes unasked: a function that sends notices in a loop would keep the process busy with reading them.
 *
 * Whether an error ends the session: the driver gives its severity in the language of `lc_messages` alone.
 */
export class MessageWatch {
  readonly #stream: Duplex;
  readonly #maxBytes: number;
  readonly #maxUnaskedBytes: number;
  #unaskedBytes = 0;
  readonly #head = Buffer.alloc(headBytes);
  #headHas = 0;
  /** Of the message that is being read. */
  #left = 0;
  readonly #error = Buffer.alloc(severityBytes);
  #errorHas = 0;
  #endCode: string | undefined;

  /**
   * Ends the connection, with an error that says so, before the driver keeps a message that is too long, and where more than
   * `maxUnaskedBytes` come in a transaction that were not asked for. To be made between two messages, and after TLS has been
   * agreed on.
   */
  constructor(stream: Duplex, maxBytes: number, maxUnaskedBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    this.#maxUnaskedBytes = maxUnaskedBytes;
    stream.prependListener("data", (chunk: Buffer) => this.#read(chunk));
  }

  /** Postgres has said that it ends the session: known before the driver tells of that error. */
  get isEnding(): boolean {
    return this.#endCode !== undefined;
  }

  /** The SQLSTATE of that; empty: it has none. */
  get endCode(): string | undefined {
    return this.#endCode;
  }

  /** A transaction begins. */
  begin(): void {
    this.#unaskedBytes = 0;
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
        this.#refuse(`an error or an answer of ${this.#left} bytes, and at most ${this.#maxBytes} are taken`);
        return;
      }
      if (!unaskedTypes.has(this.#head[0])) continue;
      this.#unaskedBytes += headBytes + this.#left;
      if (this.#unaskedBytes > this.#maxUnaskedBytes) {
        this.#refuse(`more than ${this.#maxUnaskedBytes} bytes of notices and notifications`);
        return;
      }
    }
  }

  #refuse(what: string): void {
    this.#stream.destroy(new Error(`a function gave ${what}: its session was ended`));
  }

  #endError(): void {
    const fields = fieldsOf(this.#error.subarray(0, this.#errorHas));
    this.#errorHas = 0;
    // What stands between us and Postgres may leave out the one for programs; then it speaks English.
    const severity = fields.get("V") ?? fields.get("S");
    if (severity === "FATAL" || severity === "PANIC") this.#endCode = fields.get("C") ?? "";
  }
}

/** Those of an error that are there whole: each is a letter and a text that ends with NUL. */
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
