/**
 * The session: the one connection whose life means something, because it holds the lease locks and hears the
 * notifications.
 *
 *     connecting ──connected──▶ up ──lost, silent, closed by the server──▶ waiting ──backoff──▶ connecting
 *         └──────────failed──────────────────────────────────────────────────▲
 *
 * It is heard from at least every `leaseBeatMs`: when nothing else was asked, by a query that writes nothing. A query
 * without an answer for `leaseBeatMs` ends the connection. Both sides probe the TCP connection, so that a server whose
 * client's host died frees the locks within seconds.
 */
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { retryDelayMs } from "./backoff.js";
import type { Clock } from "./clock.js";
import type { Logger } from "./logger.js";
import { isServerError, storeFailure } from "./store-failure.js";

const { leaseBeatMs, sessionKeepaliveMs, sessionKeepaliveProbes } = storeConstants;

/** Set one by one, because not every platform and version has all of them. */
const sessionSettings: readonly (readonly [string, string])[] = [
  ["lock_timeout", String(leaseBeatMs / 2)],
  ["statement_timeout", String(leaseBeatMs)],
  ["default_transaction_isolation", "read committed"],
  ["idle_session_timeout", "0"],
  ["tcp_keepalives_idle", String(sessionKeepaliveMs / 1000)],
  ["tcp_keepalives_interval", String(sessionKeepaliveMs / 1000)],
  ["tcp_keepalives_count", String(sessionKeepaliveProbes)],
  ["tcp_user_timeout", String(sessionKeepaliveMs * (sessionKeepaliveProbes + 1))],
  ["client_connection_check_interval", String(sessionKeepaliveMs)],
];

/** What the session tells. */
export interface SessionEvents {
  /** A new database session is there; runs to its end before `up`. What it throws ends the session again. */
  onConnected(query: SessionQuery): Promise<void>;
  /** The session can be used. */
  onUp(): void;
  /** The session is lost, with all its locks and LISTENs; it is being made again. */
  onDown(): void;
  /** NOTIFY. */
  onNotification(channel: string, payload: string): void;
}

/** Runs one statement on one particular database session. */
export type SessionQuery = <Row extends object>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** Ends a connection at once: a server that does not answer would not answer a farewell either. */
function cut(client: pg.Client): void {
  client.connection.stream.destroy();
}

/** A session that comes back by itself. */
export class Session {
  readonly #config: pg.ClientConfig;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #events: SessionEvents;
  #client: pg.Client | undefined;
  #query: SessionQuery | undefined;
  #isUp = false;
  #closed = false;
  #generation = 0;
  #backendPid = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  #cancelTimer: () => void = () => {};

  constructor(
    config: pg.ClientConfig,
    options: { readonly clock: Clock; readonly logger: Logger; readonly events: SessionEvents },
  ) {
    this.#config = config;
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
   * @throws StoreError `store_failed`; the session is not tried again then
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
    if (this.#query === undefined || !this.#isUp) return Promise.reject(new Error("the session with Postgres is down"));
    return this.#query(text, values);
  };

  /** Ends the present database session and makes a new one: for when its locks can no longer be told. */
  restart(): void {
    if (this.#client !== undefined) cut(this.#client);
  }

  /** Ends the session for good. Its locks are free then, unless the server cannot be heard any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    this.#isUp = false;
    const client = this.#client;
    this.#client = undefined;
    if (client === undefined) return;
    const cancel = this.#clock.setTimeout(() => cut(client), sessionKeepaliveMs);
    await client.end();
    cancel();
  }

  async #connect(): Promise<void> {
    const client = new pg.Client(this.#config);
    this.#client = client;
    // Lost connections are handled once, when they have ended.
    client.on("error", (err) => this.#logger.debug({ err }, "the session with Postgres failed"));
    client.on("end", () => this.#onEnd(client));
    client.on("notification", ({ channel, payload }) => this.#events.onNotification(channel, payload ?? ""));
    const query = this.#serialized(client);
    try {
      await client.connect();
      await this.#configure(query);
      const [server] = await query<{ pid: number; standby: boolean }>(
        "SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby",
      );
      if (server?.standby === true) throw new Error("the server is a standby, which takes no writes");
      this.#backendPid = server?.pid ?? 0;
      this.#generation += 1;
      await this.#events.onConnected(query);
      if (this.#client !== client) throw new Error("the session with Postgres ended");
    } catch (error) {
      cut(client);
      throw error;
    }
    this.#query = query;
    this.#isUp = true;
    this.#beatLater();
    this.#events.onUp();
  }

  async #configure(query: SessionQuery): Promise<void> {
    for (const [name, value] of sessionSettings) {
      try {
        await query("SELECT set_config($1, $2, false)", [name, value]);
      } catch (error) {
        if (!isServerError(error)) throw error;
        this.#logger.debug({ err: error, setting: name }, "this server does not have the setting; going on without");
      }
    }
  }

  /** One query at a time, as the driver wants it; each one is a beat, and has to be answered in time. */
  #serialized(client: pg.Client): SessionQuery {
    let previous: Promise<unknown> = Promise.resolve();
    const run = async <Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> => {
      const sentAt = this.#clock.now();
      const cancel = this.#clock.setTimeout(() => cut(client), leaseBeatMs);
      try {
        const { rows } = await client.query<Row>({ text, values: values as unknown[] });
        this.#heardAt = sentAt;
        return rows;
      } finally {
        cancel();
      }
    };
    return (text, values) => {
      const answer = previous.then(() => run<never>(text, values));
      previous = answer.catch(() => undefined);
      return answer;
    };
  }

  #beatLater(failures = 0): void {
    this.#cancelTimer();
    const waitMs = failures === 0 ? leaseBeatMs : retryDelayMs(failures);
    this.#cancelTimer = this.#clock.setTimeout(() => void this.#beat(failures), waitMs);
  }

  async #beat(failures: number): Promise<void> {
    const client = this.#client;
    try {
      const [server] = await this.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
      if (client === undefined || client !== this.#client) return;
      if (server?.pid === this.#backendPid) {
        this.#beatLater();
        return;
      }
      this.#logger.error(
        {},
        "the session with Postgres changed under its connection, as behind a transaction pooler; leases and notifications need a direct one: name it in sessionUrl",
      );
      cut(client);
    } catch (err) {
      this.#logger.debug({ err }, "a beat of the session with Postgres failed");
      // An answer, although an error: the session lives. Without one its end is told by the connection.
      if (isServerError(err) && client !== undefined && client === this.#client) this.#beatLater(failures + 1);
    }
  }

  #onEnd(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#query = undefined;
    this.#cancelTimer();
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#events.onDown();
    if (!this.#closed) this.#reconnect(1);
  }

  #reconnect(attempt: number): void {
    const connect = (): void => {
      this.#connect().catch((err) => {
        if (this.#closed) return;
        this.#logger.warn({ err, attempt }, "could not open a session with Postgres; trying again");
        this.#reconnect(attempt + 1);
      });
    };
    // The first time at once: most lost sessions are a restarted server or pooler that is there again.
    if (attempt === 1) connect();
    else this.#cancelTimer = this.#clock.setTimeout(connect, retryDelayMs(attempt - 1));
  }
}
