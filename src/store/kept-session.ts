/**
 * A session of the pool for a statement that runs all the time, as the commit of a cursor does behind each live message. It is
 * kept between two runs, and the statement is prepared once and sent without what the driver makes for each query: the pool, its
 * timers and the description of the rows cost three times as much as the rest.
 *
 * The session goes back to the pool when it has rested for a while, or when others wait for one.
 */
import type pg from "pg";
import { outcomeOf, spoilsConnection } from "../postgres/index.js";
import type { Clock } from "../runtime/index.js";
import { storeFailure } from "./store-failure.js";

/** A statement that is prepared under its name. */
interface PreparedStatement {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** The columns of a row, as text. */
export type Columns = readonly (string | null)[];

/** What {@link KeptSession} needs of the pool. */
export interface KeptSessionHost {
  /** A session of the pool. */
  connect(): Promise<pg.PoolClient>;
  /** Makes a session ready that was used for something else before. */
  prepare(client: pg.PoolClient): Promise<void>;
  /** Others wait for a session. */
  isWanted(): boolean;
}

export class KeptSession {
  readonly #host: KeptSessionHost;
  readonly #clock: Clock;
  readonly #limitMs: number;
  #client: pg.PoolClient | undefined;
  #isBusy = false;
  #isLost = false;
  #isClosed = false;
  /** When a statement was sent last, or has ended. */
  #movedAt = 0;
  #cancelTimer = (): void => {};

  /** @param limitMs a statement may take so long, and the session rest */
  constructor(host: KeptSessionHost, clock: Clock, limitMs: number) {
    this.#host = host;
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** {@link run} may be called. */
  get isFree(): boolean {
    return !this.#isBusy && !this.#isClosed;
  }

  /**
   * Runs a statement whose parameters are texts, bytes, booleans and arrays of integers.
   *
   * @param action what it is for, to follow "could not" in an error
   * @param rowOf makes a row of its columns
   * @throws HawserError `store_failed`
   */
  async run<Row>(
    action: string,
    statement: PreparedStatement,
    rowOf: (columns: Columns) => Row,
  ): Promise<{ rows: Row[] }> {
    this.#isBusy = true;
    let isSpoilt = false;
    try {
      const client = this.#client ?? (await this.#connect());
      this.#movedAt = this.#clock.now();
      return await new Promise((resolve, reject) => {
        client.query(new Run(statement, rowOf, (error, rows) => (error ? reject(error) : resolve({ rows }))));
      });
    } catch (error) {
      isSpoilt = spoilsConnection(error);
      throw storeFailure(action, error, outcomeOf(error));
    } finally {
      this.#isBusy = false;
      this.#movedAt = this.#clock.now();
      if (isSpoilt || this.#isLost || this.#isClosed || this.#host.isWanted()) this.#release(isSpoilt);
    }
  }

  /** Gives the session back to the pool, unless a statement runs. */
  rest(): void {
    if (!this.#isBusy) this.#release(false);
  }

  /** Keeps no session any more. */
  close(): void {
    this.#isClosed = true;
    this.rest();
  }

  async #connect(): Promise<pg.PoolClient> {
    const client = await this.#host.connect();
    this.#client = client;
    this.#isLost = false;
    client.on("error", this.#onError);
    this.#movedAt = this.#clock.now();
    this.#watch(this.#limitMs);
    await this.#host.prepare(client);
    return client;
  }

  readonly #onError = (): void => {
    this.#isLost = true;
    this.rest();
  };

  #release(isSpoilt: boolean): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#cancelTimer();
    this.#client = undefined;
    client.removeListener("error", this.#onError);
    client.release(isSpoilt || this.#isLost);
  }

  /** One timer for the answer and for the rest, as each statement moves both. */
  #watch(waitMs: number): void {
    this.#cancelTimer = this.#clock.setTimeout(() => {
      const leftMs = this.#movedAt + this.#limitMs - this.#clock.now();
      if (leftMs > 0) this.#watch(leftMs);
      else if (this.#isBusy) void this.#client?.end();
      else this.rest();
    }, waitMs);
  }
}

/** The parts of a connection of the driver that its types leave out. */
interface DriverConnection extends pg.Connection {
  /** The texts of prepared statements, which the driver keeps by `name` and `text` of what it runs. */
  readonly parsedStatements: Record<string, string>;
}

/** A run of a statement, as the driver submits it and tells of its answer. */
class Run<Row> implements pg.Submittable {
  readonly name: string;
  readonly text: string;
  /** The driver puts another in its place where it has a time limit of its own. */
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
