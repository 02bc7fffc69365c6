/**
 * One connection of a session, from its opening to its end: what {@link PostgresSession} opens anew.
 */
import type pg from "pg";
import type { Clock, Logger } from "../runtime/index.js";
import type { DatabaseAddress } from "./database-address.js";
import { type OpenSession, openSession, type SessionOptions } from "./open-session.js";
import { poolerWords, refuseTransactionPooler } from "./transaction-pooler.js";

/** Runs one statement on one particular connection. */
export type SessionQuery = <Row extends object>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** What the session is told of a connection. */
export interface ConnectionEvents {
  /** A query was answered. @param sentAt when it was sent, by the clock */
  onHeard(sentAt: number): void;
  /** NOTIFY. */
  onNotification(channel: string, payload: string): void;
  /** The connection has ended, with its locks and LISTENs. */
  onEnd(): void;
}

/** How a connection is opened, and how long an answer may take. */
export interface ConnectionOptions extends Omit<SessionOptions, "onClient" | "queryTimeoutMs"> {
  readonly clock: Clock;
  readonly logger: Logger;
  /** A query without an answer for so long ends the connection. */
  readonly answerTimeoutMs: number;
}

/** Sends one query at a time, as the driver demands, and ends when an answer does not come in time. */
export class Connection {
  readonly #address: DatabaseAddress;
  readonly #options: ConnectionOptions;
  readonly #events: ConnectionEvents;
  /** While it is being opened: that of the host that is tried. */
  #client: pg.Client | undefined;
  #opened: OpenSession | undefined;
  #isCut = false;
  #previous: Promise<unknown> = Promise.resolve();

  constructor(address: DatabaseAddress, options: ConnectionOptions, events: ConnectionEvents) {
    this.#address = address;
    this.#options = options;
    this.#events = events;
  }

  /** The server could not be written to when the connection was opened. */
  get isStandby(): boolean {
    return this.#opened?.isStandby === true;
  }

  /** Connects. @throws as `openSession` */
  async open(): Promise<void> {
    const { logger } = this.#options;
    this.#opened = await openSession(this.#address, {
      ...this.#options,
      onClient: (client) => {
        this.#client = client;
        if (this.#isCut) this.cut();
        // The loss is reported once, when the connection has ended.
        client.on("error", (err) => logger.debug({ err }, "the session with Postgres failed"));
        client.on("end", () => {
          if (this.#client === client) this.#events.onEnd();
        });
        client.on("notification", ({ channel, payload }) => this.#events.onNotification(channel, payload ?? ""));
      },
    });
  }

  /** @throws HawserError `transaction_pooler`, if the connection leads through one */
  refusePooler(): Promise<void> {
    return refuseTransactionPooler(this.#address, this.#opened!, poolerWords.peerRemedy);
  }

  /** Sends a query when all before it are answered. @throws the driver's error */
  query = <Row extends object>(
    text: string,
    values: readonly unknown[] = [],
    answerTimeoutMs = this.#options.answerTimeoutMs,
  ): Promise<Row[]> => {
    const answer = this.#previous.then(() => this.#run<Row>(text, values, answerTimeoutMs));
    this.#previous = answer.catch(() => undefined);
    return answer;
  };

  /** False if another process of Postgres answers than at first, as behind a transaction pooler: that one has not our locks. */
  async isSameBackend(): Promise<boolean> {
    const [server] = await this.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    return server?.pid === this.#opened?.backendPid;
  }

  /** Ends it at once, without a word to the server, which may not answer. */
  cut(): void {
    this.#isCut = true;
    this.#client?.connection.stream.destroy();
  }

  /** Ends it in good order: waits until the server has closed it, and its locks are free, but no longer than `limitMs`. */
  async end(limitMs: number): Promise<void> {
    const cancel = this.#options.clock.setTimeout(() => this.cut(), limitMs);
    await this.#client?.end().catch(() => undefined);
    cancel();
  }

  async #run<Row extends object>(text: string, values: readonly unknown[], answerTimeoutMs: number): Promise<Row[]> {
    const { clock } = this.#options;
    const sentAt = clock.now();
    const cancel = clock.setTimeout(() => this.cut(), answerTimeoutMs);
    try {
      const { rows } = await this.#client!.query<Row>({ text, values: values as unknown[] });
      this.#events.onHeard(sentAt);
      return rows;
    } finally {
      cancel();
    }
  }
}
