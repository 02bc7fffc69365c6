/**
 * The session: the one connection whose life means something, because it holds the lease locks and hears the
 * notifications.
 *
 *     connecting ──connected──▶ up ──lost, silent, closed by the server──▶ waiting ──backoff──▶ connecting
 *         └──────────failed──────────────────────────────────────────────────▲
 *
 * It is heard from at least every `leaseBeatMs`: when nothing else was asked, by a query that writes nothing. Both sides
 * probe the TCP connection, so that a server whose client's host died frees the locks within seconds.
 */

import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type DatabaseAddress, postgresBackoff } from "../postgres/index.js";
import { backoffMs, type Clock, type Logger } from "../runtime/index.js";
import { SessionConnection, type SessionQuery } from "./session-connection.js";
import { isServerError, storeFailure } from "./store-failure.js";

/** What the session tells. */
export interface SessionEvents {
  /** A new database session is there; runs to its end before `onUp`. What it throws ends the session again. */
  onConnected(query: SessionQuery): Promise<void>;
  /** The session can be used. */
  onUp(): void;
  /** The session was heard from again. */
  onBeat(query: SessionQuery): Promise<void>;
  /** The session is lost, with all its locks and LISTENs; it is being made again. Also one that never came to be up. */
  onDown(): void;
  /** NOTIFY. */
  onNotification(channel: string, payload: string): void;
}

/** A session that comes back by itself. */
export class Session {
  readonly #address: DatabaseAddress;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #events: SessionEvents;
  #connection: SessionConnection | undefined;
  #isUp = false;
  #upAt = 0;
  #closed = false;
  #generation = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  /** Of the next beat, or the next connection. */
  #cancelTimer: () => void = () => {};

  constructor(
    address: DatabaseAddress,
    options: { readonly clock: Clock; readonly logger: Logger; readonly events: SessionEvents },
  ) {
    this.#address = address;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#events = options.events;
  }

  /** Grows with each new database session; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /** The session can be used. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** When the last answered query was sent, by the clock. */
  get heardAt(): number {
    return this.#heardAt;
  }

  /**
   * Makes the first session.
   *
   * @throws StoreError `store_failed`, `transaction_pooler`; the session is not tried again then
   */
  async open(): Promise<void> {
    try {
      await this.#connect();
    } catch (cause) {
      await this.close();
      throw storeFailure("open a session with Postgres", cause);
    }
  }

  /**
   * Runs one statement on the session.
   *
   * @throws the driver's error; an error if the session is not up
   */
  query: SessionQuery = (text, values) => {
    if (this.#connection === undefined || !this.#isUp) {
      return Promise.reject(new Error("the session with Postgres is down"));
    }
    return this.#connection.query(text, values);
  };

  /** Ends the present database session, after which a new one is made: for when its locks can no longer be told. */
  restart(): void {
    this.#connection?.cut();
  }

  /** Ends the session for good. Its locks are free then, unless the server cannot be heard any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    this.#isUp = false;
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.end();
  }

  async #connect(): Promise<void> {
    const connection = new SessionConnection(this.#address, {
      clock: this.#clock,
      logger: this.#logger,
      events: {
        onHeard: (sentAt) => {
          this.#heardAt = sentAt;
        },
        onNotification: (channel, payload) => this.#events.onNotification(channel, payload),
        onEnd: () => this.#onEnd(connection),
      },
    });
    this.#connection = connection;
    let isNew = false;
    try {
      await connection.open();
      this.#generation += 1;
      isNew = true;
      await this.#events.onConnected(connection.query);
      if (this.#connection !== connection) throw new Error("the session with Postgres ended");
    } catch (error) {
      connection.cut();
      // Some of its locks may have been taken already.
      if (isNew) this.#events.onDown();
      throw error;
    }
    this.#isUp = true;
    this.#upAt = this.#clock.now();
    this.#beatLater(connection);
    this.#events.onUp();
  }

  #beatLater(connection: SessionConnection, failures = 0): void {
    this.#cancelTimer();
    const waitMs = failures === 0 ? storeConstants.leaseBeatMs : backoffMs(postgresBackoff, failures);
    this.#cancelTimer = this.#clock.setTimeout(() => void this.#beat(connection, failures), waitMs);
  }

  async #beat(connection: SessionConnection, failures: number): Promise<void> {
    try {
      const isSame = await connection.beat();
      if (this.#connection !== connection) return;
      if (isSame) {
        this.#beatLater(connection);
        await this.#events.onBeat(connection.query);
        return;
      }
      const reason = "leases and notifications need a direct connection: name it in sessionUrl";
      this.#logger.error({}, `the session with Postgres moved, as behind a transaction pooler; ${reason}`);
      connection.cut();
    } catch (err) {
      this.#logger.debug({ err }, "a beat of the session with Postgres failed");
      // An answer, although an error: the session lives. Without one its end is told by the connection.
      if (isServerError(err) && this.#connection === connection) this.#beatLater(connection, failures + 1);
    }
  }

  #onEnd(connection: SessionConnection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    // One that never was up is told by the rejection of its connect, which may have set the timer of the next by now.
    if (!this.#isUp) return;
    this.#cancelTimer();
    this.#isUp = false;
    // At once: most lost sessions are of a restarted server or pooler that is there again. But not again and again.
    const wasStable = this.#clock.now() - this.#upAt >= storeConstants.storeRetryMaxMs;
    this.#events.onDown();
    if (!this.#closed) this.#reconnect(wasStable ? 0 : 1);
  }

  /** @param answered the last attempt reached a server that takes writes, and failed behind that */
  #reconnect(failures: number, answered = false): void {
    const connect = (): void => {
      const before = this.#generation;
      this.#connect().catch((err) => {
        if (this.#closed) return;
        this.#logger.warn({ err, failures }, "could not open a session with Postgres; trying again");
        // A server that is back is tried again soon, though it was long away; but not again and again.
        const answers = this.#generation !== before;
        this.#reconnect(answers && !answered ? 1 : failures + 1, answers);
      });
    };
    if (failures === 0) connect();
    else this.#cancelTimer = this.#clock.setTimeout(connect, backoffMs(postgresBackoff, failures));
  }
}
