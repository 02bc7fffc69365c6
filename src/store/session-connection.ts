/**
 * One database session, from its connection to its end.
 */

import type pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type DatabaseAddress, openSession, poolerWords, refuseTransactionPooler } from "../postgres/index.js";
import type { Clock, Logger } from "../runtime/index.js";

const { leaseBeatMs, sessionKeepaliveMs } = storeConstants;

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
  readonly #address: DatabaseAddress;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #events: SessionConnectionEvents;
  /** While it is opened: of the host that is tried. */
  #client: pg.Client | undefined;
  #isCut = false;
  #backendPid = 0;
  #previous: Promise<unknown> = Promise.resolve();

  constructor(
    address: DatabaseAddress,
    options: { readonly clock: Clock; readonly logger: Logger; readonly events: SessionConnectionEvents },
  ) {
    this.#address = address;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#events = options.events;
  }

  /** Connects to a server that takes writes. @throws as `openSession`; StoreError `transaction_pooler` */
  async open(): Promise<void> {
    const session = await openSession(this.#address, {
      needsWrites: true,
      lockTimeoutMs: leaseBeatMs / 2,
      statementTimeoutMs: leaseBeatMs,
      onClient: (client) => {
        this.#client = client;
        if (this.#isCut) this.cut();
        // What it is about is told once, when the connection has ended.
        client.on("error", (err) => this.#logger.debug({ err }, "the session with Postgres failed"));
        client.on("end", () => {
          if (this.#client === client) this.#events.onEnd();
        });
        client.on("notification", ({ channel, payload }) => this.#events.onNotification(channel, payload ?? ""));
      },
    });
    this.#backendPid = session.backendPid;
    await refuseTransactionPooler(this.#address, session, poolerWords.peerRemedy);
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
    this.#isCut = true;
    this.#client?.connection.stream.destroy();
  }

  /** Takes leave, and waits until the server has closed: then the locks are free. */
  async end(): Promise<void> {
    const cancel = this.#clock.setTimeout(() => this.cut(), sessionKeepaliveMs);
    await this.#client?.end();
    cancel();
  }

  async #run<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    const sentAt = this.#clock.now();
    const cancel = this.#clock.setTimeout(() => this.cut(), leaseBeatMs);
    try {
      const { rows } = await this.#client!.query<Row>({ text, values: values as unknown[] });
      this.#events.onHeard(sentAt);
      return rows;
    } finally {
      cancel();
    }
  }
}
