/**
 * A session with Postgres that outlives its connections. There are two kinds.
 *
 * **Kept** (`beatMs`): the one session whose life means something, because it holds locks and hears notifications. It is
 * opened once, connects again by itself, and is heard from at least every `beatMs`: when nothing else was asked, by a
 * query that writes nothing. It goes to a server that takes writes, and not through a transaction pooler. Both sides
 * probe the TCP connection, so that a server whose client's host died frees the locks within seconds. While it is down,
 * queries are rejected.
 *
 *     connecting ──connected──▶ up ──lost, silent, closed by the server──▶ waiting ──backoff──▶ connecting
 *         └──────────failed──────────────────────────────────────────────────▲
 *
 * **On demand**: it is opened by the first query, and again by the next one after it was lost.
 *
 * Either listens on each new connection to what it was told to listen to, and asks one thing at a time.
 */
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { PostgresError } from "../errors/index.js";
import { backoffMs, type Clock, inTime, type Logger, systemClock } from "../runtime/index.js";
import { Connection, type SessionQuery } from "./connection.js";
import type { DatabaseAddress } from "./database-address.js";
import { isServerError } from "./failure.js";
import { postgresBackoff, type SessionLimits } from "./open-session.js";

/** What a session tells. */
interface PostgresSessionEvents {
  /** There is a new connection; runs to its end before anything else is asked. What it throws ends the connection again. */
  onConnected?(query: SessionQuery): Promise<void>;
  /** The session can be used. */
  onUp?(): void;
  /** A kept session was heard from again. */
  onBeat?(query: SessionQuery): Promise<void>;
  /** The connection is lost, with all its locks and LISTENs. Also one that never came to be up. */
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
  /** How long connecting may take. Default: what it may everywhere. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * A connection that does not answer for so long is given up. On demand the time runs from the question, else from when
   * it is sent.
   */
  readonly queryTimeoutMs: number;
  /** The session is kept, and heard from at least so often. Without it, it is opened on demand. */
  readonly beatMs?: number | undefined;
  /** What it listens to from the beginning. */
  readonly channels?: readonly string[] | undefined;
}

/** How long the end of a session on demand may take, which holds no locks. */
const endMs = 1_000;

/** A session with Postgres that comes back. */
export class PostgresSession {
  readonly #options: PostgresSessionOptions;
  readonly #clock: Clock;
  /** How many listen to each channel. */
  readonly #channels = new Map<string, number>();
  #connection: Connection | undefined;
  #opening: Promise<Connection> | undefined;
  /** The connection that hears notifications. */
  #listening: Connection | undefined;
  #isUp = false;
  #upAt = 0;
  #isClosed = false;
  #generation = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  /** Of the next beat, or the next attempt to connect. */
  #cancelTimer: () => void = () => {};

  constructor(options: PostgresSessionOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    for (const channel of options.channels ?? []) this.#channels.set(channel, 1);
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
   * @throws whatever node-postgres throws; PostgresError `transaction_pooler`. The session is closed then
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
   * @throws whatever node-postgres throws; an error if a kept session is down; PostgresError `aborted` after {@link close}
   */
  query = async <Row extends object>(
    text: string,
    values: readonly unknown[] = [],
    timeoutMs: number = this.#options.queryTimeoutMs,
  ): Promise<Row[]> => {
    if (this.#options.beatMs !== undefined) {
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

  /** Ends the present connection: for when its locks can no longer be told. A kept session connects again. */
  restart(): void {
    this.#connection?.cut();
  }

  /**
   * Ends the session for good, at once if it is being opened. The locks are free then, unless the server cannot be heard
   * any more.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    const connection = this.#connection;
    const wasUp = this.#isUp;
    this.#isUp = false;
    this.#connection = undefined;
    if (!wasUp) connection?.cut();
    else await connection?.end(this.#options.beatMs === undefined ? endMs : storeConstants.sessionKeepaliveMs);
  }

  #opened(): Promise<Connection> {
    this.#opening ??= this.#connect().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #connect(): Promise<Connection> {
    this.#checkOpen();
    const { beatMs, queryTimeoutMs, lockTimeoutMs = storeConstants.sessionLockTimeoutMs } = this.#options;
    const isKept = beatMs !== undefined;
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
      // Some of its locks may have been taken already.
      if (isNew && isKept) this.#options.onDown();
      this.#checkOpen();
      throw error;
    }
    this.#isUp = true;
    this.#upAt = this.#clock.now();
    if (isKept) this.#beatLater(connection, beatMs);
    this.#options.onUp?.();
    return connection;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new PostgresError("aborted", "the session with Postgres was closed");
  }

  async #listenAll(connection: Connection): Promise<void> {
    for (const channel of this.#channels.keys()) await connection.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
    this.#listening = connection;
  }

  /** Says it to a connection that is there; the next one listens to what is listed then. */
  async #tell(statement: string): Promise<void> {
    if (!this.#isUp) return;
    // It fails only with the connection.
    await this.query(statement).catch(() => this.restart());
  }

  #beatLater(connection: Connection, beatMs: number, failures = 0): void {
    this.#cancelTimer();
    const waitMs = failures === 0 ? beatMs : backoffMs(postgresBackoff, failures);
    this.#cancelTimer = this.#clock.setTimeout(() => void this.#beat(connection, beatMs, failures), waitMs);
  }

  async #beat(connection: Connection, beatMs: number, failures: number): Promise<void> {
    const { logger, onBeat } = this.#options;
    try {
      const isSame = await connection.isSameBackend();
      if (this.#connection !== connection) return;
      if (isSame) {
        this.#beatLater(connection, beatMs);
        await onBeat?.(connection.query);
        return;
      }
      const reason = "leases and notifications need a direct connection: name it in sessionUrl";
      logger.error({}, `the session with Postgres moved, as behind a transaction pooler; ${reason}`);
      connection.cut();
    } catch (err) {
      logger.debug({ err }, "a beat of the session with Postgres failed");
      // An answer, although an error: the session lives. Without one its end is told by the connection.
      if (isServerError(err) && this.#connection === connection) this.#beatLater(connection, beatMs, failures + 1);
    }
  }

  /** It does not answer: nothing is asked on it any more. */
  #abandon(connection: Connection): void {
    connection.cut();
    this.#onEnd(connection);
  }

  #onEnd(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    // One that never was up is told by the rejection of its connect, which may have set the timer of the next by now.
    if (!this.#isUp) return;
    this.#cancelTimer();
    this.#isUp = false;
    // At once: most lost sessions are of a restarted server or pooler that is there again. But not again and again.
    const wasStable = this.#clock.now() - this.#upAt >= postgresBackoff.maxMs;
    this.#options.onDown();
    if (!this.#isClosed && this.#options.beatMs !== undefined) this.#reconnect(wasStable ? 0 : 1);
  }

  /** @param answered the last attempt reached a server that takes writes, and failed behind that */
  #reconnect(failures: number, answered = false): void {
    const connect = (): void => {
      const before = this.#generation;
      this.#connect().catch((err) => {
        if (this.#isClosed) return;
        this.#options.logger.warn({ err, failures }, "could not open a session with Postgres; trying again");
        // A server that is back is tried again soon, though it was long away; but not again and again.
        const answers = this.#generation !== before;
        this.#reconnect(answers && !answered ? 1 : failures + 1, answers);
      });
    };
    if (failures === 0) connect();
    else this.#cancelTimer = this.#clock.setTimeout(connect, backoffMs(postgresBackoff, failures));
  }
}
