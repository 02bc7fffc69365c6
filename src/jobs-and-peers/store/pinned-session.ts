/**
 * Pooled session that is pinned to a frequent statement, such as the commit of a cursor after each live message. The
 * session stays checked out between runs, and the statement is prepared once and sent without the driver's per-query
 * overhead. The pool, its timers and the row descriptions would cost three times as much as the rest.
 *
 * The session returns to the pool after it was idle for a while, or when others wait for a session.
 */
import type pg from "pg";
import {
  type Columns,
  CommitWatch,
  outcomeOf,
  runPrepared,
  spoilsConnection,
} from "../../foundation/postgres/index.js";
import type { Clock } from "../../foundation/runtime/index.js";
import { storeFailure } from "./store-failure.js";

/** Statement that is prepared under its name. */
interface NamedStatement {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Pool functions that {@link PinnedSession} needs. */
export interface PinnedSessionHost {
  /** Checks out a session. */
  connect(): Promise<pg.PoolClient>;
  /** Resets a session that was used for other statements. */
  prepare(client: pg.PoolClient): Promise<void>;
  /** True if others wait for a session. */
  isWanted(): boolean;
  /** Called with the error of a statement. */
  failed(error: unknown): void;
}

export class PinnedSession {
  readonly #host: PinnedSessionHost;
  readonly #clock: Clock;
  readonly #limitMs: number;
  #client: pg.PoolClient | undefined;
  #commits: CommitWatch | undefined;
  #isBusy = false;
  #isLost = false;
  #isClosed = false;
  /** Time of the last send or answer in ms. */
  #activeAt = 0;
  #cancelTimer = (): void => {};

  /** @param limitMs maximum duration of a statement, and maximum idle time of the session */
  constructor(host: PinnedSessionHost, clock: Clock, limitMs: number) {
    this.#host = host;
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** True if {@link run} may be called. */
  get isFree(): boolean {
    return !this.#isBusy && !this.#isClosed;
  }

  /**
   * Runs a statement whose parameters are texts, bytes, booleans and arrays of integers.
   *
   * @param action purpose of the statement, to follow "could not" in an error
   * @param rowOf converts the columns of a row
   * @throws HawserError `store_failed`
   */
  async run<Row>(
    action: string,
    statement: NamedStatement,
    rowOf: (columns: Columns) => Row,
  ): Promise<{ rows: Row[] }> {
    this.#isBusy = true;
    let isBroken = false;
    try {
      const client = this.#client ?? (await this.#connect());
      this.#activeAt = this.#clock.now();
      const { rows } = await runPrepared(client, [statement]);
      this.#commits!.check();
      return { rows: rows.map(rowOf) };
    } catch (error) {
      this.#host.failed(error);
      isBroken = spoilsConnection(error);
      throw storeFailure(action, error, outcomeOf(error));
    } finally {
      this.#isBusy = false;
      this.#activeAt = this.#clock.now();
      if (isBroken || this.#isLost || this.#isClosed || this.#host.isWanted()) this.#release(isBroken);
    }
  }

  /** Returns the session to the pool unless a statement runs. */
  releaseIfIdle(): void {
    if (!this.#isBusy) this.#release(false);
  }

  /** Releases the session for good. */
  close(): void {
    this.#isClosed = true;
    this.releaseIfIdle();
  }

  async #connect(): Promise<pg.PoolClient> {
    const client = await this.#host.connect();
    this.#client = client;
    this.#isLost = false;
    this.#commits = new CommitWatch(client);
    client.on("error", this.#onError);
    this.#activeAt = this.#clock.now();
    this.#watch(this.#limitMs);
    await this.#host.prepare(client);
    return client;
  }

  readonly #onError = (): void => {
    this.#isLost = true;
    this.releaseIfIdle();
  };

  #release(isBroken: boolean): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#cancelTimer();
    this.#client = undefined;
    this.#commits!.end();
    client.removeListener("error", this.#onError);
    client.release(isBroken || this.#isLost);
  }

  /** Limits the duration of a statement and the idle time with one timer, because each statement restarts both. */
  #watch(waitMs: number): void {
    this.#cancelTimer = this.#clock.setTimeout(() => {
      const leftMs = this.#activeAt + this.#limitMs - this.#clock.now();
      if (leftMs > 0) this.#watch(leftMs);
      else if (this.#isBusy) void this.#client?.end();
      else this.releaseIfIdle();
    }, waitMs);
  }
}
