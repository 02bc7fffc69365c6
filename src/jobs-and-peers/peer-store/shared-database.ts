/** A pool and a session or two per process and database, shared by all its peers, or by all its workers. */
import type pg from "pg";
import { peerSettingsRanges, storeConstants } from "../../../generated/ts/settings/peer.js";
import { queueConstants, scheduleConstants } from "../../../generated/ts/settings/queue.js";
import type { HawserError } from "../../foundation/errors/index.js";
import { PostgresSession, type SessionQuery, serverIdentity, sourceOf } from "../../foundation/postgres/index.js";
import { type Clock, delay, type Logger, shared } from "../../foundation/runtime/index.js";
import { raiseSequences } from "../migrations/index.js";
import { DueRunner } from "../queue/schedules/index.js";
import {
  type CatalogChange,
  catalogChannel,
  Database,
  dueChannel,
  Leases,
  parseCatalogChange,
  Queue,
  queueApplicationName,
  secretsChannel,
  storeFailure,
} from "../store/index.js";

const { leaseBeatMs } = storeConstants;
const { idleBeatMs } = queueConstants;

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

/** `peers` hold names and hear of the directory, in a session beside that of the queue; `workers` have the queue alone. */
export type DatabaseUsers = "peers" | "workers";

/** Options of a database that the users of a process share. */
export interface SharedOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly poolSize: number;
  /** Default: `peers`. */
  readonly users?: DatabaseUsers | undefined;
}

/** Peer or worker with handlers that use the pool. */
export interface PoolUser {
  readonly name: string;
  /** Pool of the user. */
  readonly pool: pg.Pool | undefined;
  /** True if the pool grows with the calls of its transactional handlers. */
  readonly growsPool: boolean;
}

/** Number of transactional calls that a user may run at a time. */
export interface HandlingCalls {
  readonly all: number;
  /** As far as handlers have a `concurrency` of their own. */
  readonly asked: number;
}

/** Growth of pools. An object, because tests ask more often. */
export const poolGrowth = {
  /** Time between two questions of a pool for more connections. */
  everyMs: 500,
  /** The same after it got none. */
  againMs: 5_000,
};

/**
 * SQL query: connections that the server, the login and the database have left (superusers have some more), and how many of
 * them a pool may take. A quarter stays for other programs and for processes that start, of those of the server at least 10.
 * A pool takes a quarter of the rest, and at most half of its share among the processes that take from the queue: they may
 * all ask at once, and Postgres does not show a connection that is being opened. A login without rights sees no type of a
 * session of another role.
 */
const connectionsLeftSql = `
  SELECT greatest(0, least(l.of_server, l.of_role, l.of_database))::integer AS left,
         greatest(0, least(
           (l.of_server - greatest(10, a.most / 4)) / greatest(4, 2 * l.processes),
           (l.of_role - (r.rolconnlimit + 3) / 4) / greatest(4, 2 * l.processes_of_role),
           (l.of_database - (d.datconnlimit + 3) / 4) / greatest(4, 2 * l.processes_of_database)
         ))::integer AS share
    FROM (SELECT current_setting('max_connections')::integer AS most) AS a, pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d, LATERAL (
           SELECT a.most - current_setting('superuser_reserved_connections')::integer - coalesce(current_setting('reserved_connections', true)::integer, 0)
                    - count(*) AS of_server,
                  CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit - count(*) FILTER (WHERE s.is_of_role) END AS of_role,
                  CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit - count(*) FILTER (WHERE s.is_of_database) END AS of_database,
                  count(*) FILTER (WHERE s.takes) AS processes,
                  count(*) FILTER (WHERE s.takes AND s.is_of_role) AS processes_of_role,
                  count(*) FILTER (WHERE s.takes AND s.is_of_database) AS processes_of_database
             FROM (
                    SELECT usename = session_user AS is_of_role, datname = current_database() AS is_of_database, application_name = '${queueApplicationName}' AS takes
                      FROM pg_catalog.pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usesysid IS NOT NULL
                  ) AS s
         ) AS l
   WHERE r.rolname = session_user AND d.datname = current_database()`;

/** Row of {@link connectionsLeftSql}. */
interface ConnectionsLeft {
  readonly left: number;
  readonly share: number;
}

/** Callbacks of a user of a shared database. */
export interface SharedDatabaseListener {
  onSession(state: "up" | "down"): void;
  onCatalogChange(change: CatalogChange): void;
  /** Called for all other notifications. */
  onNotification(channel: string, payload: string): void;
}

/** A pool, a session, and the leases of the session. */
export class SharedDatabase {
  readonly pool: Database;
  /** Session that tells of its loss, and hears of what is due: that of the names, or of the queue for workers. */
  readonly session: PostgresSession;
  readonly leases: Leases;
  readonly queue: Queue;
  readonly #users: DatabaseUsers;
  /** Interval at which workers look for what is due. */
  #pollMs: number = scheduleConstants.pollMs;
  readonly #due: DueRunner;
  readonly listeners = new Set<SharedDatabaseListener>();
  /** Number of transactional calls that each user has at a time. */
  readonly #handlingCalls = new Map<SharedDatabaseListener, HandlingCalls>();
  readonly #logger: Logger;
  /** Largest number of them for which a warning was given, or a line in the log. */
  #callsWarnedOf = 0;
  /** Largest number of them for which the log says that Postgres has no connections to spare. */
  #callsToldOf = 0;
  /** Greatest `poolSize` of the users. */
  #leastSize: number;
  /** Number of connections up to which the pool grows; 0 if it does not. */
  #growsTo = 0;
  #isGrowing = false;
  readonly #closed = new AbortController();
  readonly #clock: Clock;
  /** Reason why the last check of the pool failed. */
  #writeProblem: HawserError | undefined;

  constructor(location: DatabaseLocation, { users = "peers", ...options }: SharedOptions) {
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#users = users;
    // Shared, so that the pool follows the session to the host that it has found.
    const source = sourceOf(location);
    const pooled = location.sessionUrl !== undefined;
    this.pool = new Database(source, { ...options, pooled });
    this.pool.onShort = () => void this.#grow();
    this.pool.onClosed = (connections) => this.#shrink(connections);
    this.#leastSize = options.poolSize;
    const address = pooled ? sourceOf(sessionLocation(location)) : source;
    const onConnected = async (query: SessionQuery): Promise<void> => {
      // Leases first: the session is of no use until its locks are held again.
      await this.leases.regainAll(query);
      const server = await serverIdentity(query);
      if (this.pool.server !== undefined && this.pool.server !== server)
        await this.#raiseSequences(query, options.logger);
      this.pool.server = server;
      if (users === "workers") this.#pollMs = await pollMsOf(query);
    };
    const onSession = (state: "up" | "down"): void => {
      if (state === "down") this.leases.suspendAll();
      // Before the first session was up there may be no schema yet: see `openStore`.
      else if (this.session.generation > 1) void this.checkWrites();
      this.#notify((listener) => listener.onSession(state));
    };
    const onNotification = (channel: string, payload: string): void => this.#onNotification(channel, payload);
    if (users === "workers") {
      this.queue = new Queue(address, { ...options, channels: [dueChannel], onConnected, onSession, onNotification });
      this.session = this.queue.session;
    } else {
      this.queue = new Queue(address, options);
      this.session = new PostgresSession({
        ...options,
        ...{ address, onConnected, onNotification },
        heartbeatMs: leaseBeatMs,
        queryTimeoutMs: leaseBeatMs,
        lockTimeoutMs: leaseBeatMs / 2,
        statementTimeoutMs: leaseBeatMs,
        channels: [catalogChannel, secretsChannel, dueChannel],
        onHeartbeat: (query) => this.leases.heartbeat(query),
        onUp: () => onSession("up"),
        onDown: () => onSession("down"),
      });
    }
    this.leases = new Leases(this.session, options);
    this.#due = new DueRunner(this.#dueQuery, options.logger, users === "workers" ? () => this.#pollMs : undefined);
  }

  /**
   * Opens the session.
   *
   * @throws HawserError `store_failed` if Postgres cannot be reached, `transaction_pooler` if the session
   * goes through one
   */
  async open(): Promise<void> {
    try {
      await (this.#users === "workers" ? this.queue.openNow() : this.session.open());
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

  /** Runs a statement as a transaction of its own. */
  readonly query = async (
    text: string,
    values: readonly unknown[] = [],
  ): Promise<{ rows: Record<string, unknown>[] }> => ({
    rows: await this.pool.query("run a statement for a handler", { text, values }),
  });

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
    this.#closed.abort();
    await Promise.all([this.pool.close(), this.queue.close(), this.#users === "peers" && this.session.close()]);
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

  /** Lets the pool grow with so many transactional calls of a user, or tells once that some of them will wait. */
  fitPool({ name, pool, growsPool }: PoolUser, listener: SharedDatabaseListener, calls: HandlingCalls): void {
    this.#handlingCalls.set(listener, calls);
    const sum = (kind: keyof HandlingCalls) =>
      [...this.#handlingCalls.values()].reduce((count, each) => count + each[kind], 0);
    const [all, asked] = [sum("all"), sum("asked")];
    const { max } = peerSettingsRanges.poolSize;
    const grows = growsPool || this.#growsTo > 0;
    if (grows) {
      this.#growsTo = Math.min(all + 1, max);
      void this.#grow();
    }
    const poolSize = grows ? max : this.pool.poolSize;
    if (all < poolSize || all <= this.#callsWarnedOf) return;
    this.#callsWarnedOf = all;
    if (asked < poolSize) {
      this.#logger.warn(
        { calls: all, poolSize },
        `transactional handlers of "${name}" may run ${all} at a time, and poolSize is ${grows ? "at most " : ""}${poolSize}: ` +
          `${poolSize - 1} run, and others wait`,
      );
      return;
    }
    const raise = pool === undefined ? "" : `give the pool a max of ${asked + 3}, `;
    const remedy = `${raise}set poolSize to ${asked + 1}, or lower the concurrency`;
    process.emitWarning(
      `the concurrency of transactional handlers in this process allows ${asked} calls at a time, and poolSize ${poolSize} of ` +
        `"${name}" only ${poolSize - 1}: ${asked < max ? remedy : "lower the concurrency"}`,
      { code: "HAWSER_POOL_TOO_SMALL", type: "HawserWarning" },
    );
  }

  /** Takes more connections into the pool as long as transactional handlers wait for one, it may have more, and Postgres has some to spare. Does not reject. */
  async #grow(): Promise<void> {
    if (this.#isGrowing) return;
    this.#isGrowing = true;
    // Processes that start at once see each other by then.
    let pauseMs = poolGrowth.everyMs;
    while (this.pool.poolSize < this.#growsTo && this.pool.waiting > 0 && !this.#closed.signal.aborted) {
      if (!(await delay(pauseMs, this.#closed.signal, this.#clock))) break;
      // While the session is down nothing is known.
      const [found] = await this.session.query<ConnectionsLeft>(connectionsLeftSql).catch(() => []);
      // Others see as little of those that this pool has not opened yet.
      const share = Math.max(0, (found?.share ?? 0) - this.pool.unopened);
      const { poolSize, waiting } = this.pool;
      if (share > 0) await this.pool.grow(Math.min(share, waiting, this.#growsTo - poolSize));
      else if (found !== undefined) this.#sayItCannotGrow(found.left);
      pauseMs = share > 0 ? poolGrowth.everyMs : poolGrowth.againMs;
    }
    this.#isGrowing = false;
  }

  /** Gives up the right to connections that are closed: others may take them, so that the pool asks before it opens some again. */
  #shrink(connections: number): void {
    const { poolSize } = this.pool;
    if (this.#growsTo > 0 && connections < poolSize && this.pool.waiting === 0)
      this.pool.poolSize = Math.max(this.#leastSize, connections);
  }

  #sayItCannotGrow(left: number): void {
    const { poolSize } = this.pool;
    const calls = [...this.#handlingCalls.values()].reduce((count, { all }) => count + all, 0);
    if (calls <= this.#callsToldOf) return;
    this.#callsToldOf = calls;
    this.#logger.warn(
      { calls, poolSize, left },
      `transactional handlers may run ${calls} at a time, and the pool has ${poolSize} connections, as Postgres has only ${left} left, ` +
        `which stay for other programs: ${poolSize - 1} run, and others wait`,
    );
  }

  /** Has at least so many connections. */
  hasAtLeast(poolSize: number): void {
    this.#leastSize = Math.max(this.#leastSize, poolSize);
    this.pool.poolSize = Math.max(this.pool.poolSize, poolSize);
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
    if (channel === dueChannel) this.#due.changed(payload);
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
 * Opens a database, or joins its other users. Peers of the same location share one pool, and so do workers: its size is the
 * greatest `poolSize`; clock and logger are those of the first user.
 *
 * @throws as {@link SharedDatabase.open}
 */
export async function acquireDatabase(
  location: DatabaseLocation,
  options: SharedOptions,
): Promise<{ readonly database: SharedDatabase; release(): Promise<void> }> {
  const { databaseUrl, pool, sessionUrl = null } = location;
  const key = JSON.stringify([
    pool === undefined ? (databaseUrl ?? pgVariables()) : { pool: numberOf(pool) },
    sessionUrl,
    options.users ?? "peers",
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
  database.hasAtLeast(options.poolSize);
  return {
    database,
    release: async () => {
      if (leave()) await database.close();
    },
  };
}

/** Interval of the polls for what is due, in ms. A prepared transaction cannot notify, so a server that permits it is polled more often. */
async function pollMsOf(query: SessionQuery): Promise<number> {
  const [row] = await query<{ notified: boolean }>(
    "SELECT current_setting('max_prepared_transactions') = '0' AS notified",
  );
  return row!.notified ? idleBeatMs : scheduleConstants.pollMs;
}

const poolNumbers = new WeakMap<pg.Pool, number>();
let lastPoolNumber = 0;

/** Number that identifies a pool in this process. */
function numberOf(pool: pg.Pool): number {
  const number = poolNumbers.get(pool) ?? ++lastPoolNumber;
  poolNumbers.set(pool, number);
  return number;
}

async function opened(location: DatabaseLocation, options: SharedOptions): Promise<SharedDatabase> {
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
