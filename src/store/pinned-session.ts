/**
 * Pooled session that is pinned to a frequent statement, such as the commit of a cursor after each live message. The
 * session stays checked out between runs, and the statement is prepared once and sent without the driver's per-query
 * overhead. The pool, its timers and the row descriptions would cost three times as much as the rest.
 *
 * The session returns to the pool after it was idle for a while, or when others wait for a session.
 */
import type pg from "pg";
import { CommitWatch, outcomeOf, spoilsConnection } from "../postgres/index.js";
import type { Clock } from "../runtime/index.js";
import { storeFailure } from "./store-failure.js";

/** Statement that is prepared under its name. */
interface PreparedStatement {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Columns of a row in text format. */
export type Columns = readonly (string | null)[];

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
    statement: PreparedStatement,
    rowOf: (columns: Columns) => Row,
  ): Promise<{ rows: Row[] }> {
    this.#isBusy = true;
    let isBroken = false;
    try {
      const client = this.#client ?? (await this.#connect());
      this.#activeAt = this.#clock.now();
      const result = await new Promise<{ rows: Row[] }>((resolve, reject) => {
        client.query(new Run(statement, rowOf, (error, rows) => (error ? reject(error) : resolve({ rows }))));
      });
      this.#commits!.check();
      return result;
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

/** Members of the driver's connection that its types omit. */
interface DriverConnection extends pg.Connection {
  /** Texts of prepared statements. The driver fills it from `name` and `text` of each submitted query. */
  readonly parsedStatements: Record<string, string>;
}

/** Execution of a statement, in the form that the driver accepts. */
class Run<Row> implements pg.Submittable {
  readonly name: string;
  readonly text: string;
  /** Replaced by the driver if its option `query_timeout` is set. */
  callback: (error: Error | null, rows: Row[]) => void;
  readonly #values: readonly unknown[];
  readonly #rowOf: (columns: Columns) => Row;
  readonly #rows: Row[] = [];

  constructor(
    { name, text, values }: PreparedStatement,
    rowOf: (columns: Columns) => Row,
    callback: (error: Error | null, rows: Row[]) => void,
  ) {
    this.name = name;
    this.text = text;
    this.#values = values;
    this.#rowOf = rowOf;
    this.callback = callback;
  }

  submit(connection: pg.Connection): null {
    const { parsedStatements, stream } = connection as DriverConnection;
    const { name, text } = this;
    stream.cork();
    try {
      if (parsedStatements[name] === undefined) connection.parse({ name, text, types: [] }, true);
      connection.bind({ statement: name, values: this.#values.map(parameter) }, true);
      connection.execute(null, true);
      connection.sync();
    } finally {
      stream.uncork();
    }
    return null;
  }

  handleDataRow({ fields }: { readonly fields: Columns }): void {
    this.#rows.push(this.#rowOf(fields));
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.callback(null, this.#rows);
  }

  handleError(error: Error): void {
    this.callback(error, []);
  }
}

function parameter(value: unknown): string | Buffer | null {
  if (Array.isArray(value)) return `{${value.join(",")}}`;
  return typeof value === "boolean" ? String(value) : (value as string | Buffer | null);
}
