/**
 * Session with Postgres that survives lost connections, of two kinds.
 *
 * **Kept** (`heartbeatMs`): the session holds locks and receives notifications, so its loss matters. It is opened once,
 * reconnects automatically, and queries the server at least every `heartbeatMs`. It requires a server
 * that accepts writes, and no transaction pooler. Both sides probe the TCP connection, so that the server releases the
 * locks within seconds after the client's host has died. Queries are rejected while it is down.
 *
 *     connecting ──connected──▶ up ──lost, silent, closed by the server──▶ waiting ──backoff──▶ connecting
 *         └──────────failed──────────────────────────────────────────────────▲
 *
 * **On demand**: the session is opened by the first query, and again by the next query after a loss.
 *
 * Both kinds LISTEN on their channels on each new connection. A query is sent without waiting for the answers to those before.
 */

import pg from "pg";
import { HawserError } from "../errors/index.js";
import { backoffMs, type Clock, inTime, type Logger, systemClock } from "../runtime/index.js";
import { Connection, type PreparedStatement, type SessionQuery } from "./connection.js";
import { type ClientSource, sessionKeepaliveMs } from "./database-address.js";
import { isServerError, OpenAttempts } from "./failure.js";
import { postgresBackoff, type SessionLimits } from "./open-session.js";

/** Maximum wait for a lock of a statement of `hawser serve`. */
const sessionLockTimeoutMs = 2_000;

/** Events of a {@link PostgresSession}. */
interface PostgresSessionEvents {
  /**
   * Called for a new connection. No other query is sent before the returned promise resolves; if it rejects, the
   * connection is closed.
   */
  onConnected?(query: SessionQuery): Promise<void>;
  /** The session can be used. */
  onUp?(): void;
  /**
   * Makes the query of each heartbeat of a kept session, and resolves with the process id of the server that it returns.
   * Without it, a heartbeat asks for that alone, and only a session that was not used meanwhile has one.
   */
  onHeartbeat?(query: SessionQuery): Promise<number>;
  /**
   * The connection is lost, with its locks and LISTENs. A kept session also reports a connection that never was up,
   * because {@link onConnected} may have taken locks.
   */
  onDown(): void;
  /** A notification arrived. */
  onNotification?(channel: string, payload: string): void;
}

/** Options of {@link PostgresSession}. */
export interface PostgresSessionOptions extends SessionLimits, PostgresSessionEvents {
  readonly address: ClientSource;
  readonly logger: Logger;
  /** Default: the system clock. */
  readonly clock?: Clock | undefined;
  /** Application name in Postgres. Default `hawser`. */
  readonly applicationName?: string | undefined;
  /** Maximum time to connect to one host. Default `databaseConnectTimeoutMs`. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * Maximum time for an answer, after which the connection is closed. For a session on demand it includes the wait for
   * earlier queries; otherwise it starts when the query is sent.
   */
  readonly queryTimeoutMs: number;
  /** Heartbeat interval of a kept session. Undefined for a session on demand. */
  readonly heartbeatMs?: number | undefined;
  /** Initial NOTIFY channels. */
  readonly channels?: readonly string[] | undefined;
}

/** Maximum time to close a session on demand, which holds no locks. */
const endMs = 1_000;

/** Session with Postgres that reconnects. */
export class PostgresSession {
  /** Attempts to connect. */
  readonly attempts = new OpenAttempts();
  readonly #options: PostgresSessionOptions;
  readonly #clock: Clock;
  /** Number of listeners by channel. */
  readonly #channels = new Map<string, number>();
  #connection: Connection | undefined;
  #opening: Promise<Connection> | undefined;
  /** Connection that listens to the channels. */
  #listening: Connection | undefined;
  #isUp = false;
  #upAt = 0;
  #isClosed = false;
  #generation = 0;
  #lastAnswerAt = Number.NEGATIVE_INFINITY;
  /** Cancels the timer of the next heartbeat or attempt to connect. */
  #cancelTimer: () => void = () => {};

  constructor(options: PostgresSessionOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    for (const channel of options.channels ?? []) this.#channels.set(channel, 1);
  }

  /** Application name of its connections in Postgres. */
  get applicationName(): string {
    return this.#options.applicationName ?? "hawser";
  }

  /** Grows with each new connection; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /** True if there is a usable connection. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** Time at which the last answered query was sent. */
  get lastAnswerAt(): number {
    return this.#lastAnswerAt;
  }

  /**
   * Opens the first connection of a kept session.
   *
   * @throws the error of node-postgres; HawserError `transaction_pooler`. The session is closed then
   */
  async open(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** Opens the first connection of a kept session in the background, as it opens later ones: until it is open, or the session closed. */
  openLater(): void {
    this.#reconnect(0);
  }

  /**
   * Runs one statement. Can be passed as a function without binding.
   *
   * @throws the error of node-postgres; an error if a kept session is down; HawserError `aborted` after {@link close}
   */
  query = async <Row extends object>(
    statement: string | PreparedStatement,
    values: readonly unknown[] = [],
    timeoutMs: number = this.#options.queryTimeoutMs,
  ): Promise<Row[]> => {
    if (this.#options.heartbeatMs !== undefined) {
      if (!this.#isUp) throw new Error("the session with Postgres is down");
      return this.#connection!.query<Row>(statement, values, timeoutMs);
    }
    const connection = this.#isUp ? this.#connection! : await this.#opened();
    try {
      const late = () => new Error("Query read timeout");
      return await inTime(timeoutMs, late, () => connection.query<Row>(statement, values, timeoutMs), this.#clock);
    } catch (error) {
      if (!isServerError(error)) this.#replace(connection);
      throw error;
    }
  };

  /** Returns true if the server is read-only. After a promotion, the session starts to listen. */
  async isStandby(): Promise<boolean> {
    // A session listens on a primary. A primary becomes a standby only by a restart, which closes its sessions.
    if (this.#isUp && this.#listening === this.#connection) return false;
    const [row] = await this.query<{ standby: boolean }>("SELECT pg_is_in_recovery() AS standby");
    const { standby } = row!;
    const connection = this.#connection;
    if (!standby && connection !== undefined && this.#listening !== connection) await this.#listenAll(connection);
    return standby;
  }

  /** Listens to a channel: at once if the session is up, and on every later connection. */
  async listen(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    this.#channels.set(channel, listeners + 1);
    if (listeners === 0) await this.#runOnListening(`LISTEN ${pg.escapeIdentifier(channel)}`);
  }

  /** Reverts one call of {@link listen}. */
  async unlisten(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    if (listeners > 1) {
      this.#channels.set(channel, listeners - 1);
    } else if (this.#channels.delete(channel)) {
      await this.#runOnListening(`UNLISTEN ${pg.escapeIdentifier(channel)}`);
    }
  }

  /**
   * Closes the current connection, for a caller that does not know which locks the connection holds. A kept session
   * reconnects.
   */
  restart(): void {
    this.#connection?.cut();
  }

  /**
   * Closes the session for good, even while it is being opened. The locks are released, unless the server does not
   * answer.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    const connection = this.#connection;
    const wasUp = this.#isUp;
    this.#isUp = false;
    this.#connection = undefined;
    if (!wasUp) connection?.cut();
    else await connection?.end(this.#options.heartbeatMs === undefined ? endMs : sessionKeepaliveMs);
  }

  #opened(): Promise<Connection> {
    this.#opening ??= this.#connect().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #connect(): Promise<Connection> {
    this.#checkOpen();
    const { heartbeatMs, queryTimeoutMs, lockTimeoutMs = sessionLockTimeoutMs } = this.#options;
    const isKept = heartbeatMs !== undefined;
    const { address, logger, applicationName, connectTimeoutMs, statementTimeoutMs, onConnected } = this.#options;
    const connection = new Connection(
      address,
      {
        ...{ clock: this.#clock, logger, applicationName, connectTimeoutMs, lockTimeoutMs, statementTimeoutMs },
        needsWrites: isKept,
        answerTimeoutMs: queryTimeoutMs,
      },
      {
        onAnswer: (sentAt) => {
          this.#lastAnswerAt = sentAt;
        },
        onNotification: (channel, payload) => this.#options.onNotification?.(channel, payload),
        onEnd: () => this.#onEnd(connection),
      },
    );
    this.#connection = connection;
    let isNew = false;
    try {
      await connection.open();
      if (isKept) await connection.refusePooler();
      this.#generation += 1;
      isNew = true;
      await onConnected?.(connection.query);
      if (!connection.isStandby) await this.#listenAll(connection);
      if (this.#connection !== connection) throw new Error("the session with Postgres ended");
    } catch (error) {
      connection.cut();
      if (this.#connection === connection) this.#connection = undefined;
      // Some of its locks may have been taken. A session on demand only rejects the query that opened it.
      if (isNew && isKept) this.#options.onDown();
      this.#checkOpen();
      this.attempts.failed(error);
      throw error;
    }
    this.attempts.succeeded();
    this.#isUp = true;
    this.#upAt = this.#clock.now();
    if (isKept) this.#heartbeatLater(connection, heartbeatMs);
    this.#options.onUp?.();
    return connection;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new HawserError("aborted", "the session with Postgres was closed");
  }

  async #listenAll(connection: Connection): Promise<void> {
    for (const channel of this.#channels.keys()) await connection.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
    this.#listening = connection;
  }

  /** Runs a statement on the listening connection. Later connections listen to all channels on their own. */
  async #runOnListening(statement: string): Promise<void> {
    const listening = this.#listening;
    if (listening === undefined || listening !== this.#connection) return;
    // LISTEN and UNLISTEN fail only if the connection fails.
    await listening.query(statement).catch(() => listening.cut());
  }

  #heartbeatLater(connection: Connection, waitMs: number, failures = 0): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.setTimeout(() => void this.#heartbeat(connection, failures), waitMs);
  }

  async #heartbeat(connection: Connection, failures: number): Promise<void> {
    const { logger, onHeartbeat, heartbeatMs } = this.#options;
    const unusedMs = this.#clock.now() - this.#lastAnswerAt;
    if (onHeartbeat === undefined && unusedMs < heartbeatMs!)
      return this.#heartbeatLater(connection, heartbeatMs! - unusedMs);
    try {
      const pid = await (onHeartbeat?.(connection.query) ?? connection.askPid());
      if (this.#connection !== connection) return;
      if (pid === connection.backendPid) return this.#heartbeatLater(connection, heartbeatMs!);
      const reason = "leases and notifications need a direct connection: set sessionUrl";
      logger.error(
        {},
        `the session with Postgres moved to another server process, as behind a transaction pooler; ${reason}`,
      );
      connection.cut();
    } catch (err) {
      logger.debug({ err }, "a heartbeat of the session with Postgres failed");
      // An error of the server is an answer, so the session lives. Without an answer, the connection reports its own
      // end.
      if (isServerError(err) && this.#connection === connection)
        this.#heartbeatLater(connection, backoffMs(postgresBackoff, failures + 1), failures + 1);
    }
  }

  /** Closes a connection that does not answer. The next query opens another one. */
  #replace(connection: Connection): void {
    connection.cut();
    this.#onEnd(connection);
  }

  #onEnd(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    // A connection that never was up is reported by #connect, which may have set the timer of the next attempt by now.
    if (!this.#isUp) return;
    this.#cancelTimer();
    this.#isUp = false;
    // Reconnect at once, since the server usually was only restarted, but not in a loop.
    const wasStable = this.#clock.now() - this.#upAt >= postgresBackoff.maxMs;
    this.#options.onDown();
    if (!this.#isClosed && this.#options.heartbeatMs !== undefined) this.#reconnect(wasStable ? 0 : 1);
  }

  /** @param answered true if the last attempt reached a server that accepts writes, and failed afterwards */
  #reconnect(failures: number, answered = false): void {
    const connect = (): void => {
      const before = this.#generation;
      this.#connect().catch((err) => {
        if (this.#isClosed) return;
        this.#options.logger.warn({ err, failures }, "could not open a session with Postgres; retrying");
        // A server that answers again is retried soon, even after a long absence, but not in a loop.
        const answers = this.#generation !== before;
        this.#reconnect(answers && !answered ? 1 : failures + 1, answers);
      });
    };
    if (failures === 0) connect();
    else this.#cancelTimer = this.#clock.setTimeout(connect, backoffMs(postgresBackoff, failures));
  }
}
