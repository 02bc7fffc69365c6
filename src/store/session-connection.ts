/**
 * One database session, from its connection to its end.
 */
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { Clock } from "./clock.js";
import type { Logger } from "./logger.js";
import { isServerError } from "./store-failure.js";

const { leaseBeatMs, sessionKeepaliveMs, sessionKeepaliveProbes } = storeConstants;

/** Set one by one, because not every platform and version has all of them. */
const settings = {
  lock_timeout: leaseBeatMs / 2,
  statement_timeout: leaseBeatMs,
  default_transaction_isolation: "read committed",
  idle_session_timeout: 0,
  tcp_keepalives_idle: sessionKeepaliveMs / 1000,
  tcp_keepalives_interval: sessionKeepaliveMs / 1000,
  tcp_keepalives_count: sessionKeepaliveProbes,
  tcp_user_timeout: sessionKeepaliveMs * (sessionKeepaliveProbes + 1),
  client_connection_check_interval: sessionKeepaliveMs,
} as const;

/** Runs one statement on one particular database session. */
export type SessionQuery = <Row extends object>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** What a database session tells. */
export interface SessionConnectionEvents {
  /** A query was answered that had been sent then, by the clock. */
  onHeard(sentAt: number): void;
  /** NOTIFY. */
  onNotification(channel: string, payload: string): void;
  /** It has ended, with its locks and LISTENs. */
  onEnd(): void;
}

/** A database session. A query without an answer for `leaseBeatMs` ends it. */
export class SessionConnection {
  readonly #client: pg.Client;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #events: SessionConnectionEvents;
  #backendPid = 0;
  #previous: Promise<unknown> = Promise.resolve();

  constructor(
    config: pg.ClientConfig,
    options: { readonly clock: Clock; readonly logger: Logger; readonly events: SessionConnectionEvents },
  ) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#events = options.events;
    this.#client = new pg.Client(config);
    // What it is about is told once, when the connection has ended.
    this.#client.on("error", (err) => this.#logger.debug({ err }, "the session with Postgres failed"));
    this.#client.on("end", () => this.#events.onEnd());
    this.#client.on("notification", ({ channel, payload }) => this.#events.onNotification(channel, payload ?? ""));
  }

  /**
   * Connects, and makes sure that the server can tell dead clients.
   *
   * @throws the driver's error; an error if the server takes no writes
   */
  async open(): Promise<void> {
    await this.#client.connect();
    for (const [name, value] of Object.entries(settings)) {
      try {
        await this.query("SELECT set_config($1, $2, false)", [name, String(value)]);
      } catch (error) {
        if (!isServerError(error)) throw error;
        this.#logger.debug({ err: error, setting: name }, "this server does not have the setting; going on without");
      }
    }
    const [server] = await this.query<{ pid: number; standby: boolean }>(
      "SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby",
    );
    if (server?.standby !== false) throw new Error("the server is a standby, which takes no writes");
    this.#backendPid = server.pid;
  }

  /** One statement at a time, as the driver wants it. @throws the driver's error */
  query: SessionQuery = (text, values) => {
    const answer = this.#previous.then(() => this.#run<never>(text, values));
    this.#previous = answer.catch(() => undefined);
    return answer;
  };

  /**
   * A query that writes nothing.
   *
   * @returns false if another backend answers than at first, as behind a transaction pooler: then the locks are not where
   * they were taken
   */
  async beat(): Promise<boolean> {
    const [server] = await this.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    return server?.pid === this.#backendPid;
  }

  /** Ends it at once: a server that does not answer would not answer a farewell either. */
  cut(): void {
    this.#client.connection.stream.destroy();
  }

  /** Takes leave, and waits until the server has closed: then the locks are free. */
  async end(): Promise<void> {
    const cancel = this.#clock.setTimeout(() => this.cut(), sessionKeepaliveMs);
    await this.#client.end();
    cancel();
  }

  async #run<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    const sentAt = this.#clock.now();
    const cancel = this.#clock.setTimeout(() => this.cut(), leaseBeatMs);
    try {
      const { rows } = await this.#client.query<Row>({ text, values: values as unknown[] });
      this.#events.onHeard(sentAt);
      return rows;
    } finally {
      cancel();
    }
  }
}
