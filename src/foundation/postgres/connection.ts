/** Connection of a {@link PostgresSession}, from its opening to its end. */
import type pg from "pg";
import type { Clock, Logger } from "../runtime/index.js";
import type { ClientSource } from "./database-address.js";
import { isServerError, withFilterRemedy } from "./failure.js";
import { type OpenSession, openSession, type SessionOptions } from "./open-session.js";
import { ownTypes } from "./own-types.js";
import { poolerWords, refuseTransactionPooler } from "./transaction-pooler.js";
import { CommitWatch } from "./unconfirmed-commit.js";

/** Statement that a connection parses and plans once, however often it runs. */
export interface PreparedStatement {
  readonly name: string;
  readonly text: string;
}

/** Runs one statement on a specific connection. */
export type SessionQuery = <Row extends object>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** Client of the generated callers of SQL functions, whose statements run on a session. */
export function functionClient(query: SessionQuery) {
  return {
    query: async ({ text, values }: { readonly text: string; readonly values: readonly unknown[] }) => ({
      rows: await query<Record<string, unknown>>(text, values),
    }),
  };
}

/** Events of a {@link Connection}. */
export interface ConnectionEvents {
  /** A query was answered. @param sentAt time at which it was sent */
  onAnswer(sentAt: number): void;
  /** A notification arrived. */
  onNotification(channel: string, payload: string): void;
  /** The connection has ended, with its locks and LISTENs. */
  onEnd(): void;
}

/** Options of {@link Connection}. */
export interface ConnectionOptions extends Omit<SessionOptions, "onClient" | "pipeline" | "queryTimeoutMs"> {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Time without an answer after which a query closes the connection. */
  readonly answerTimeoutMs: number;
}

/** Connection that sends each query at once, without waiting for the answers to those before, and closes if an answer is late. */
export class Connection {
  readonly #source: ClientSource;
  readonly #options: ConnectionOptions;
  readonly #events: ConnectionEvents;
  /** Client of the connection; while it is being opened, the client of the host that is tried. */
  #client: pg.Client | undefined;
  #opened: OpenSession | undefined;
  #commits: CommitWatch | undefined;
  #unconfirmed: unknown;
  #isCut = false;
  /** Ends when all queries so far were answered. */
  #previous: Promise<unknown> = Promise.resolve();

  constructor(source: ClientSource, options: ConnectionOptions, events: ConnectionEvents) {
    this.#source = source;
    this.#options = options;
    this.#events = events;
  }

  /** True if the server was read-only when the connection was opened. */
  get isStandby(): boolean {
    return this.#opened?.isStandby === true;
  }

  /** Opens the connection. @throws as `openSession` */
  async open(): Promise<void> {
    const { logger } = this.#options;
    this.#opened = await openSession(this.#source, {
      ...this.#options,
      pipeline: true,
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
    this.#commits = new CommitWatch(this.#opened.client);
  }

  /** @throws HawserError `transaction_pooler` if the connection goes through one */
  refusePooler(): Promise<void> {
    return refuseTransactionPooler(this.#source, this.#opened!, poolerWords.peerRemedy);
  }

  /**
   * Sends a query, which the server carries out after all earlier ones.
   *
   * @param answerTimeoutMs counted from the answer to the query before
   * @throws the driver's error
   */
  query = <Row extends object>(
    statement: string | PreparedStatement,
    values: readonly unknown[] = [],
    answerTimeoutMs = this.#options.answerTimeoutMs,
  ): Promise<Row[]> => {
    const answer = this.#run<Row>(statement, values, answerTimeoutMs, this.#previous);
    this.#previous = answer.catch(() => undefined);
    return answer;
  };

  /** Process id of the server, which changes only behind a transaction pooler. The new process does not have our locks. */
  get backendPid(): number | undefined {
    return this.#opened?.backendPid;
  }

  /** Asks the server for its process id. */
  async askPid(): Promise<number> {
    const [server] = await this.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    return server!.pid;
  }

  /** Closes at once without notifying the server, which may not answer. */
  cut(): void {
    this.#isCut = true;
    this.#client?.connection.stream.destroy();
  }

  /** Closes gracefully: waits until the server has closed the connection and released its locks, at most `limitMs`. */
  async end(limitMs: number): Promise<void> {
    const cancel = this.#options.clock.setTimeout(() => this.cut(), limitMs);
    await this.#client?.end().catch(() => undefined);
    cancel();
  }

  /** @throws Error if a commit is not confirmed: it may be that of any query that is under way, whose outcomes are unknown then */
  #checkCommit(): void {
    try {
      if (this.#unconfirmed !== undefined) throw this.#unconfirmed;
      this.#commits!.check();
    } catch (error) {
      this.#unconfirmed = error;
      this.cut();
      throw error;
    }
  }

  async #run<Row extends object>(
    statement: string | PreparedStatement,
    values: readonly unknown[],
    answerTimeoutMs: number,
    previous: Promise<unknown>,
  ): Promise<Row[]> {
    const { clock } = this.#options;
    const client = this.#client!;
    const prepared = typeof statement === "string" ? { text: statement } : statement;
    const query = () => client.query<Row>({ ...prepared, values: values as unknown[], types: ownTypes });
    const sentAt = clock.now();
    const answer = client.pipeline ? query() : previous.then(query);
    answer.catch(() => undefined);
    await previous;
    const cancel = clock.setTimeout(() => this.cut(), answerTimeoutMs);
    try {
      const { rows } = await answer;
      this.#events.onAnswer(sentAt);
      this.#checkCommit();
      return rows;
    } catch (error) {
      if (isServerError(error)) this.#events.onAnswer(sentAt);
      throw withFilterRemedy(error, this.#options.logger);
    } finally {
      cancel();
    }
  }
}
