/** A pool and a session per process and database, shared by all its users. */
import type pg from "pg";
import { peerSettingsRanges, storeConstants } from "../../generated/ts/settings/peer.js";
import type { HawserError } from "../errors/index.js";
import { raiseSequences } from "../migrations/index.js";
import { DueRunner } from "../outbox/index.js";
import { PostgresSession, type SessionQuery, serverIdentity, sourceOf } from "../postgres/index.js";
import { type Clock, type Logger, shared } from "../runtime/index.js";
import {
  type CatalogChange,
  catalogChannel,
  Database,
  dueChannel,
  Leases,
  parseCatalogChange,
  Queue,
  secretsChannel,
  storeFailure,
} from "../store/index.js";

const { leaseBeatMs } = storeConstants;

/** Address of the database. */
export interface DatabaseLocation {
  /** Connection URI; without it, the PG* variables apply. */
  readonly databaseUrl?: string | undefined;
  /** Pool of the user, instead of `databaseUrl`. */
  readonly pool?: pg.Pool | undefined;
  /** URI of a direct connection to the same database, if the one above goes through a transaction pooler. */
  readonly sessionUrl?: string | undefined;
}

/** Returns the location for sessions: a direct connection. */
export function sessionLocation(location: DatabaseLocation): Omit<DatabaseLocation, "sessionUrl"> {
  return location.sessionUrl === undefined ? location : { databaseUrl: location.sessionUrl };
}

/** Peer with handlers that use the pool. */
export interface PoolUser {
  readonly name: string;
  /** Pool of the user. */
  readonly pool: pg.Pool | undefined;
  /** True if the pool grows with its `concurrency`. */
  readonly growsPool: boolean;
}

/** Callbacks of a user of a shared database. */
interface SharedDatabaseListener {
  onSession(state: "up" | "down"): void;
  onCatalogChange(change: CatalogChange): void;
  /** Called for all other notifications. */
  onNotification(channel: string, payload: string): void;
}

/** A pool, a session, and the leases of the session. */
export class SharedDatabase {
  readonly pool: Database;
  readonly session: PostgresSession;
  readonly leases: Leases;
  readonly queue: Queue;
  readonly #due: DueRunner;
  readonly listeners = new Set<SharedDatabaseListener>();
  /** Number of transactional calls that each user has at a time. */
  readonly #handlingCalls = new Map<SharedDatabaseListener, number>();
  /** Largest number of them for which a warning was given. */
  #callsWarnedOf = 0;
  /** Reason why the last check of the pool failed. */
  #writeProblem: HawserError | undefined;

  constructor(
    location: DatabaseLocation,
    options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number },
  ) {
    // Shared, so that the pool follows the session to the host that it has found.
    const source = sourceOf(location);
    const pooled = location.sessionUrl !== undefined;
    this.pool = new Database(source, { ...options, pooled });
    this.session = new PostgresSession({
      ...options,
      address: pooled ? sourceOf(sessionLocation(location)) : source,
      heartbeatMs: leaseBeatMs,
      queryTimeoutMs: leaseBeatMs,
      lockTimeoutMs: leaseBeatMs / 2,
      statementTimeoutMs: leaseBeatMs,
      channels: [catalogChannel, secretsChannel, dueChannel],
      onConnected: async (query) => {
        // Leases first: the session is of no use until its locks are held again.
        await this.leases.regainAll(query);
        const server = await serverIdentity(query);
        if (this.pool.server !== undefined && this.pool.server !== server)
          await this.#raiseSequences(query, options.logger);
        this.pool.server = server;
      },
      onHeartbeat: (query) => this.leases.heartbeat(query),
      onUp: () => {
        // Before the first session was up there may be no schema yet: see `openStore`.
        if (this.session.generation > 1) void this.checkWrites();
        this.#notify((listener) => listener.onSession("up"));
      },
      onDown: () => {
        this.leases.suspendAll();
        this.#notify((listener) => listener.onSession("down"));
      },
      onNotification: (channel, payload) => this.#onNotification(channel, payload),
    });
    this.leases = new Leases(this.session, options);
    this.queue = new Queue(pooled ? sourceOf(sessionLocation(location)) : source, options);
    this.#due = new DueRunner(this.#dueQuery, options.logger);
  }

  /**
   * Opens the session.
   *
   * @throws HawserError `store_failed` if Postgres cannot be reached, `transaction_pooler` if the session
   * goes through one
   */
  async open(): Promise<void> {
    try {
      await this.session.open();
    } catch (cause) {
      throw storeFailure("open a session with Postgres", cause);
    }
  }

  /** Reason why nothing can be stored or handled, as far as it is known; undefined if there is none. */
  get problem(): string | undefined {
    const { isUp, attempts } = this.session;
    if (isUp) return this.#writeProblem?.message;
    const failure = attempts.failure(0);
    const reason = failure === undefined ? "" : `: ${storeFailure("open one", failure.error).message}`;
    return `there is no session with Postgres${reason}`;
  }

  /**
   * Looks for what is due, which writes, and so shows whether the pool can: it may have another server, other settings and
   * limits than the session.
   */
  readonly #dueQuery: SessionQuery = async (text, values = []) => {
    try {
      const rows = await this.pool.query<never>("enqueue due messages", { text, values });
      this.#writeProblem = undefined;
      return rows;
    } catch (error) {
      if (this.session.isUp) void this.checkWrites();
      throw error;
    }
  };

  /** Finds out whether the pool can write. Does not reject. */
  readonly checkWrites = shared(async () => {
    try {
      await this.pool.checkWrites();
      this.#writeProblem = undefined;
    } catch (error) {
      this.#writeProblem = error as HawserError;
    }
  });

  async close(): Promise<void> {
    await Promise.all([this.pool.close(), this.session.close(), this.queue.close()]);
  }

  /** After a move to another server, which may have got the tables without their sequences. */
  async #raiseSequences(query: SessionQuery, logger: Logger): Promise<void> {
    try {
      const lines = await raiseSequences({ query: async (text) => ({ rows: await query(text) }) });
      for (const line of lines) logger.warn({}, `${line}; it was raised`);
    } catch (err) {
      logger.warn({ err }, "could not compare the sequences with their tables");
    }
  }

  /** Gives each of so many transactional calls of a user a connection, or warns once that some of them will wait. */
  fitPool({ name, pool, growsPool }: PoolUser, listener: SharedDatabaseListener, calls: number): void {
    this.#handlingCalls.set(listener, calls);
    const all = [...this.#handlingCalls.values()].reduce((sum, each) => sum + each, 0);
    const wanted = Math.min(all + 1, storeConstants.grownPoolSize);
    if (growsPool) this.pool.poolSize = Math.max(this.pool.poolSize, wanted);
    const { poolSize } = this.pool;
    if (all < poolSize || all <= this.#callsWarnedOf) return;
    this.#callsWarnedOf = all;
    const raise = pool === undefined ? "" : `give the pool a max of ${all + 3}, `;
    const remedy = `${raise}set poolSize to ${all + 1}, or lower the concurrency`;
    process.emitWarning(
      `the concurrency of transactional handlers in this process allows ${all} calls at a time, and poolSize ${poolSize} of ` +
        `"${name}" only ${poolSize - 1}: ${all < peerSettingsRanges.poolSize.max ? remedy : "lower the concurrency"}`,
      { code: "HAWSER_POOL_TOO_SMALL", type: "HawserWarning" },
    );
  }

  /** Ends the use of the pool by a user. */
  leavePool(listener: SharedDatabaseListener): void {
    this.#handlingCalls.delete(listener);
  }

  /** Starts the runner of due messages, which the peers of the database share. @returns function that ends this use, and waits for what runs */
  startDue(): () => Promise<void> {
    return this.#due.start();
  }

  #onNotification(channel: string, payload: string): void {
    if (channel === dueChannel) this.#due.changed();
    else if (channel === catalogChannel) {
      // Parsed once for all peers of the process, since each receives every directory change.
      const change = parseCatalogChange(payload);
      if (change !== undefined) this.#notify((listener) => listener.onCatalogChange(change));
    } else this.#notify((listener) => listener.onNotification(channel, payload));
  }

  #notify(call: (listener: SharedDatabaseListener) => void): void {
    for (const listener of [...this.listeners]) call(listener);
  }
}

/** Open databases of the process. A rejected promise is removed. */
const open = new Map<string, { users: number; readonly database: Promise<SharedDatabase> }>();

/**
 * Opens a database, or joins its other users. Users of the same location share one pool: its size is the greatest
 * `poolSize`; clock and logger are those of the first user.
 *
 * @throws as {@link SharedDatabase.open}
 */
export async function acquireDatabase(
  location: DatabaseLocation,
  options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number },
): Promise<{ readonly database: SharedDatabase; release(): Promise<void> }> {
  const { databaseUrl, pool, sessionUrl = null } = location;
  const key = JSON.stringify([
    pool === undefined ? (databaseUrl ?? pgVariables()) : { pool: numberOf(pool) },
    sessionUrl,
  ]);
  const known = open.get(key) ?? { users: 0, database: opened(location, options) };
  open.set(key, known);
  known.users += 1;
  const leave = (): boolean => {
    known.users -= 1;
    if (known.users === 0 && open.get(key) === known) open.delete(key);
    return known.users === 0;
  };
  let database: SharedDatabase;
  try {
    database = await known.database;
  } catch (error) {
    leave();
    throw error;
  }
  database.pool.poolSize = Math.max(database.pool.poolSize, options.poolSize);
  return {
    database,
    release: async () => {
      if (leave()) await database.close();
    },
  };
}

const poolNumbers = new WeakMap<pg.Pool, number>();
let lastPoolNumber = 0;

/** Number that identifies a pool in this process. */
function numberOf(pool: pg.Pool): number {
  const number = poolNumbers.get(pool) ?? ++lastPoolNumber;
  poolNumbers.set(pool, number);
  return number;
}

async function opened(
  location: DatabaseLocation,
  options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number },
): Promise<SharedDatabase> {
  const database = new SharedDatabase(location, options);
  try {
    await database.open();
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Environment variables that identify the location when no URL is given. */
function pgVariables(): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("PG")));
}
