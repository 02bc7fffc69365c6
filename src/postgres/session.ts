/**
 * A session with Postgres that outlives its connections. There are two kinds.
 *
 * **Kept** (`heartbeatMs`): the session holds locks and gets notifications, so that its end means something. It is opened
 * once, connects again by itself, and asks the server at least every `heartbeatMs`, by a query that writes nothing. It
 * goes to a server that takes writes, and not through a transaction pooler. Both sides probe the TCP connection, so that a
 * server whose client's host died frees the locks within seconds. While it is down, queries are rejected.
 *
 *     connecting ──connected──▶ up ──lost, silent, closed by the server──▶ waiting ──backoff──▶ connecting
 *         └──────────failed──────────────────────────────────────────────────▲
 *
 * **On demand**: it is opened by the first query, and again by the next one after it was lost.
 *
 * Both kinds listen on each new connection to the channels that they were given, and send one query at a time.
 */
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { backoffMs, type Clock, inTime, type Logger, systemClock } from "../runtime/index.js";
import { Connection, type SessionQuery } from "./connection.js";
import type { DatabaseAddress } from "./database-address.js";
import { isServerError, OpenAttempts } from "./failure.js";
import { postgresBackoff, type SessionLimits } from "./open-session.js";

/** What the user of a session is told. */
interface PostgresSessionEvents {
  /** There is a new connection. No other query is sent before this resolves; if it rejects, the connection ends. */
  onConnected?(query: SessionQuery): Promise<void>;
  /** The session can be used. */
  onUp?(): void;
  /** A kept session has answered a heartbeat. */
  onHeartbeat?(query: SessionQuery): Promise<void>;
  /**
   * The connection is lost, with all its locks and LISTENs. A kept session tells it also of one that was never up, because
   * {@link onConnected} may have taken locks.
   */
  onDown(): void;
  /** NOTIFY. */
  onNotification?(channel: string, payload: string): void;
}

/** How a session is opened, and kept. */
export interface PostgresSessionOptions extends SessionLimits, PostgresSessionEvents {
  readonly address: DatabaseAddress;
  readonly logger: Logger;
  /** Default: the process's clock. */
  readonly clock?: Clock | undefined;
  /** As Postgres shows it. Default `hawser`. */
  readonly applicationName?: string | undefined;
  /** How long connecting may take, to one host. Default `databaseConnectTimeoutMs`. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * A connection that does not answer for so long is ended. On demand the wait for earlier queries counts, too; else the time
   * runs from when the query is sent.
   */
  readonly queryTimeoutMs: number;
  /** The session is kept, and asks the server at least so often. Without it, it is opened on demand. */
  readonly heartbeatMs?: number | undefined;
  /** The NOTIFY channels that it listens to from the beginning. */
  readonly channels?: readonly string[] | undefined;
}

/** How long the end of a session on demand may take: it holds no locks. */
const endMs = 1_000;

/** A session with Postgres that comes back. */
export class PostgresSession {
  /** Of its connections. */
  readonly attempts = new OpenAttempts();
  readonly #options: PostgresSessionOptions;
  readonly #clock: Clock;
  /** How many listen to each channel. */
  readonly #channels = new Map<string, number>();
  #connection: Connection | undefined;
  #opening: Promise<Connection> | undefined;
  /** The connection that listens to the channels. */
  #listening: Connection | undefined;
  #isUp = false;
  #upAt = 0;
  #isClosed = false;
  #generation = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  /** Of the next heartbeat, or the next attempt to connect. */
  #cancelTimer: () => void = () => {};

  constructor(options: PostgresSessionOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    for (const channel of options.channels ?? []) this.#channels.set(channel, 1);
  }

  /** The name of its connections, as Postgres shows it. */
  get applicationName(): string {
    return this.#options.applicationName ?? "hawser";
  }

  /** Grows with each new connection; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /** There is a connection that can be used. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** When the last answered query was sent, by the clock. */
  get heardAt(): number {
    return this.#heardAt;
  }

  /**
   * Makes the first connection of a kept session.
   *
   * @throws whatever node-postgres throws; HawserError `transaction_pooler`. The session is closed then
   */
  async open(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /**
   * Runs one statement. Usable without `this`.
   *
   * @throws whatever node-postgres throws; an error if a kept session is down; HawserError `aborted` after {@link close}
   */
  query = async <Row extends object>(
    text: string,
    values: readonly unknown[] = [],
    timeoutMs: number = this.#options.queryTimeoutMs,
  ): Promise<Row[]> => {
    if (this.#options.heartbeatMs !== undefined) {
      if (!this.#isUp) throw new Error("the session with Postgres is down");
      return this.#connection!.query<Row>(text, values, timeoutMs);
    }
    const connection = this.#isUp ? this.#connection! : await this.#opened();
    try {
      const late = () => new Error("Query read timeout");
      return await inTime(timeoutMs, late, () => connection.query<Row>(text, values, timeoutMs), this.#clock);
    } catch (error) {
      if (!isServerError(error)) this.#abandon(connection);
      throw error;
    }
  };

  /** Whether the server can only be read. Once it takes writes, as after a promotion, the session listens, too. */
  async isStandby(): Promise<boolean> {
    // It listens where it can write. A primary becomes a standby only by a restart, which ends its sessions.
    if (this.#isUp && this.#listening === this.#connection) return false;
    const [row] = await this.query<{ standby: boolean }>("SELECT pg_is_in_recovery() AS standby");
    const { standby } = row!;
    const connection = this.#connection;
    if (!standby && connection !== undefined && this.#listening !== connection) await this.#listenAll(connection);
    return standby;
  }

  /** Listens to a channel: at once if the session is up, and on every connection from now on. */
  async listen(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    this.#channels.set(channel, listeners + 1);
    if (listeners === 0) await this.#tell(`LISTEN ${pg.escapeIdentifier(channel)}`);
  }

  /** Takes one {@link listen} back. */
  async unlisten(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    if (listeners > 1) {
      this.#channels.set(channel, listeners - 1);
    } else if (this.#channels.delete(channel)) {
      await this.#tell(`UNLISTEN ${pg.escapeIdentifier(channel)}`);
    }
  }

  /** Ends the present connection: for when it is not known which locks it holds. A kept session connects again. */
  restart(): void {
    this.#connection?.cut();
  }

  /**
   * Ends the session for good, at once if it is being opened. The locks are free then, unless the server does not answer any
   * more.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    const connection = this.#connection;
    const wasUp = this.#isUp;
    this.#isUp = false;
    this.#connection = undefined;
    if (!wasUp) connection?.cut();
    else await connection?.end(this.#options.heartbeatMs === undefined ? endMs : storeConstants.sessionKeepaliveMs);
  }

  #opened(): Promise<Connection> {
    this.#opening ??= this.#connect().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #connect(): Promise<Connection> {
    this.#checkOpen();
    const { heartbeatMs, queryTimeoutMs, lockTimeoutMs = storeConstants.sessionLockTimeoutMs } = this.#options;
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
        onHeard: (sentAt) => {
          this.#heardAt = sentAt;
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
      // Some of its locks may have been taken already. On demand, the query that opened it is rejected, and that is all.
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

  /** Runs it on the connection that listens; another one listens to what is listed when it is made. */
  async #tell(statement: string): Promise<void> {
    const listening = this.#listening;
    if (listening === undefined || listening !== this.#connection) return;
    // It fails only with the connection.
    await listening.query(statement).catch(() => listening.cut());
  }

  #heartbeatLater(connection: Connection, heartbeatMs: number, failures = 0): void {
    this.#cancelTimer();
    const waitMs = failures === 0 ? heartbeatMs : backoffMs(postgresBackoff, failures);
    this.#cancelTimer = this.#clock.setTimeout(() => void this.#heartbeat(connection, heartbeatMs, failures), waitMs);
  }

  async #heartbeat(connection: Connection, heartbeatMs: number, failures: number): Promise<void> {
    const { logger, onHeartbeat } = this.#options;
    try {
      const isSame = await connection.isSameBackend();
      if (this.#connection !== connection) return;
      if (isSame) {
        this.#heartbeatLater(connection, heartbeatMs);
        await onHeartbeat?.(connection.query);
        return;
      }
      const reason = "leases and notifications need a direct connection: name it in sessionUrl";
      logger.error({}, `the session with Postgres moved, as behind a transaction pooler; ${reason}`);
      connection.cut();
    } catch (err) {
      logger.debug({ err }, "a heartbeat of the session with Postgres failed");
      // An answer, although an error: the session lives. Without one its end is told by the connection.
      if (isServerError(err) && this.#connection === connection)
        this.#heartbeatLater(connection, heartbeatMs, failures + 1);
    }
  }

  /** The connection does not answer: the next query opens another one. */
  #abandon(connection: Connection): void {
    connection.cut();
    this.#onEnd(connection);
  }

  #onEnd(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    // What was never up is reported by #connect, which rejects, and may have set the timer of the next attempt by now.
    if (!this.#isUp) return;
    this.#cancelTimer();
    this.#isUp = false;
    // Connects at once: mostly the server was restarted and is there again. But not again and again.
    const wasStable = this.#clock.now() - this.#upAt >= postgresBackoff.maxMs;
    this.#options.onDown();
    if (!this.#isClosed && this.#options.heartbeatMs !== undefined) this.#reconnect(wasStable ? 0 : 1);
  }

  /** @param answered the last attempt reached a server that takes writes, and failed after that */
  #reconnect(failures: number, answered = false): void {
    const connect = (): void => {
      const before = this.#generation;
      this.#connect().catch((err) => {
        if (this.#isClosed) return;
        this.#options.logger.warn({ err, failures }, "could not open a session with Postgres; trying again");
        // A server that is back is tried again soon, even after a long absence; but not again and again.
        const answers = this.#generation !== before;
        this.#reconnect(answers && !answered ? 1 : failures + 1, answers);
      });
    };
    if (failures === 0) connect();
    else this.#cancelTimer = this.#clock.setTimeout(connect, backoffMs(postgresBackoff, failures));
  }
}
