/**
 * One pool and one session for each process and database, shared by all who open it.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { DatabaseAddress, PostgresSession, serverIdentity } from "../postgres/index.js";
import type { Clock, Logger } from "../runtime/index.js";
import { Database } from "./database.js";
import { Leases } from "./leases.js";
import {
  type CatalogChange,
  catalogChannel,
  parseCatalogChange,
  relayChannel,
  secretsChannel,
} from "./notifications.js";
import { storeFailure } from "./store-failure.js";

const { leaseBeatMs } = storeConstants;

/** Where the database is. */
export interface DatabaseLocation {
  /** A connection URI; without it the PG* variables say where. */
  readonly databaseUrl?: string | undefined;
  /** A direct connection to the same database, where `databaseUrl` goes through a transaction pooler. */
  readonly sessionUrl?: string | undefined;
}

/** What the holders of a shared database hear. */
interface SharedDatabaseListener {
  onSession(state: "up" | "down"): void;
  onCatalogChange(change: CatalogChange): void;
  /** Any other notification. */
  onNotification(channel: string, payload: string): void;
}

/** A pool and a session, and what lives on the session. */
export class SharedDatabase {
  readonly pool: Database;
  readonly session: PostgresSession;
  readonly leases: Leases;
  readonly listeners = new Set<SharedDatabaseListener>();

  constructor(
    { databaseUrl, sessionUrl }: DatabaseLocation,
    options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number },
  ) {
    // One for both: the pool follows the session to the host that it has found.
    const address = DatabaseAddress.of(databaseUrl);
    this.pool = new Database(address, { ...options, pooled: sessionUrl !== undefined });
    this.session = new PostgresSession({
      ...options,
      address: sessionUrl === undefined ? address : DatabaseAddress.of(sessionUrl),
      heartbeatMs: leaseBeatMs,
      queryTimeoutMs: leaseBeatMs,
      lockTimeoutMs: leaseBeatMs / 2,
      statementTimeoutMs: leaseBeatMs,
      channels: [catalogChannel, secretsChannel, relayChannel],
      onConnected: async (query) => {
        // Leases first: until the locks are ours again, nothing else of this session matters.
        await this.leases.regainAll(query);
        this.pool.server = await serverIdentity(query);
      },
      onHeartbeat: (query) => this.leases.checkAll(query),
      onUp: () => this.#tell((listener) => listener.onSession("up")),
      onDown: () => {
        this.leases.suspendAll();
        this.#tell((listener) => listener.onSession("down"));
      },
      onNotification: (channel, payload) => this.#notified(channel, payload),
    });
    this.leases = new Leases(this.session, options);
  }

  /**
   * @throws HawserError `store_failed` if Postgres cannot be reached, `transaction_pooler` if the session leads
   * through one
   */
  async open(): Promise<void> {
    try {
      await this.session.open();
    } catch (cause) {
      throw storeFailure("open a session with Postgres", cause);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.pool.close(), this.session.close()]);
  }

  #notified(channel: string, payload: string): void {
    if (channel !== catalogChannel) {
      this.#tell((listener) => listener.onNotification(channel, payload));
      return;
    }
    // Read once for all peers of the process: each hears of every other's coming and going.
    const change = parseCatalogChange(payload);
    if (change !== undefined) this.#tell((listener) => listener.onCatalogChange(change));
  }

  #tell(call: (listener: SharedDatabaseListener) => void): void {
    for (const listener of [...this.listeners]) call(listener);
  }
}

/** The open databases of the process. A rejected promise is never kept. */
const open = new Map<string, { users: number; readonly database: Promise<SharedDatabase> }>();

/**
 * Opens a database, or joins those who have it open. Same location means same pool: `poolSize` is the greatest that
 * anybody asked for, clock and logger are the first one's.
 *
 * @throws as {@link SharedDatabase.open}
 */
export async function acquireDatabase(
  location: DatabaseLocation,
  options: { readonly clock: Clock; readonly logger: Logger; readonly poolSize: number },
): Promise<{ readonly database: SharedDatabase; release(): Promise<void> }> {
  const key = JSON.stringify([location.databaseUrl ?? pgVariables(), location.sessionUrl ?? null]);
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

/** What stands for the location when no URL was given. */
function pgVariables(): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("PG")));
}
