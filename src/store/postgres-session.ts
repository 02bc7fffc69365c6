/**
 * A session of `hawser serve` with Postgres: one, which is opened again when it is needed and the one before was lost.
 */

import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { GatewayError, type HawserError } from "../errors/index.js";
import { DatabaseAddress, openSession } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { explainRefusal } from "./missing-rights.js";

/** How it is opened, and who hears of it. */
export interface PostgresSessionOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** As Postgres shows it. */
  readonly applicationName: string;
  /** What it listens to where Postgres can be written to. */
  readonly channels: readonly string[];
  /** A session that does not answer for so long is given up. */
  readonly queryTimeoutMs: number;
  /** How long connecting may take. Default: what it may everywhere. */
  readonly connectTimeoutMs?: number;
  /** Somebody has notified one of the channels. */
  onNotification(channel: string): void;
  /** It was lost: notifications may have been missed. */
  onLost(): void;
}

const sql = {
  standby: "SELECT pg_is_in_recovery() AS standby",
} as const;

/** How long the end may take. */
const farewellMs = 1_000;

/** See above. */
export class PostgresSession {
  readonly #options: PostgresSessionOptions;
  readonly #address: DatabaseAddress;
  #client: pg.Client | undefined;
  /** Resolves when nothing is asked over it any more. */
  #turn: Promise<unknown> = Promise.resolve();
  #opening: Promise<pg.Client> | undefined;
  /** The one that is being opened. */
  #candidate: pg.Client | undefined;
  /** The one that hears notifications. */
  #listening: pg.Client | undefined;
  #isEnded = false;

  constructor(options: PostgresSessionOptions) {
    this.#options = options;
    this.#address = DatabaseAddress.of(options.databaseUrl);
  }

  /** There is one now. */
  get isOpen(): boolean {
    return this.#client !== undefined;
  }

  /**
   * Opens a session if there is none, and asks. One that does not answer in time is not used any more, whether it is this
   * question or one before that it does not answer.
   *
   * @throws whatever node-postgres throws; GatewayError `aborted` after the end
   */
  async query<Row extends object>(
    text: string,
    values: readonly unknown[] = [],
    timeoutMs = this.#options.queryTimeoutMs,
  ): Promise<Row[]> {
    const client = await this.#connected();
    const query: pg.QueryConfig & { readonly query_timeout: number } = {
      text,
      values: [...values],
      query_timeout: timeoutMs,
    };
    // node-postgres is to be asked one thing at a time.
    const asked = this.#turn.then(() => client.query<Row>(query));
    this.#turn = asked.catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("Query read timeout")), timeoutMs);
    });
    try {
      return (await Promise.race([asked, late])).rows;
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) this.#abandon(client);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether it can only read. Once it can write, as after a promotion, it listens, too. */
  async isStandby(): Promise<boolean> {
    const [row] = await this.query<{ standby: boolean }>(sql.standby);
    const { standby } = row!;
    if (!standby && this.#listening !== this.#client) {
      const client = this.#client;
      for (const channel of this.#options.channels) await this.query(`LISTEN ${channel}`);
      this.#listening = client;
    }
    return standby;
  }

  /** The error of a query, as the reader can use it. */
  explain(action: string, cause: unknown): Promise<HawserError> {
    const asked = { query: async (text: string) => ({ rows: await this.query(text) }) };
    return explainRefusal(asked, action, cause, "hawser_bridge");
  }

  /** Ends it for good, and at once if it is being opened. */
  async end(): Promise<void> {
    this.#isEnded = true;
    if (this.#candidate !== undefined) destroy(this.#candidate);
    const client = this.#client;
    this.#client = undefined;
    if (client === undefined) return;
    const patience = setTimeout(() => destroy(client), farewellMs);
    await client.end().catch(() => undefined);
    clearTimeout(patience);
  }

  #connected(): Promise<pg.Client> {
    if (this.#client !== undefined) return Promise.resolve(this.#client);
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
      this.#candidate = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<pg.Client> {
    this.#checkGoesOn();
    const { logger, applicationName, queryTimeoutMs, connectTimeoutMs } = this.#options;
    const open = openSession(this.#address, {
      applicationName,
      connectTimeoutMs,
      queryTimeoutMs,
      lockTimeoutMs: storeConstants.sessionLockTimeoutMs,
      onClient: (client) => {
        this.#candidate = client;
        client.on("error", (err) => logger.debug({ err }, "the session with Postgres failed"));
        client.on("end", () => this.#lose(client));
        client.on("notification", ({ channel }) => this.#options.onNotification(channel));
        if (this.#isEnded) destroy(client);
      },
    });
    const { client } = await open.catch((error) => {
      this.#checkGoesOn();
      throw error;
    });
    if (this.#isEnded) destroy(client);
    this.#checkGoesOn();
    this.#client = client;
    this.#turn = Promise.resolve();
    return client;
  }

  #checkGoesOn(): void {
    if (this.#isEnded) throw new GatewayError("aborted", "Hawser is being stopped");
  }

  #abandon(client: pg.Client): void {
    destroy(client);
    this.#lose(client);
  }

  #lose(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#options.onLost();
  }
}

/** Without a word: whoever does not answer would not hear it. */
function destroy(client: pg.Client): void {
  client.connection.stream.destroy();
}
