/** The store of one peer: all its access to Postgres. */
import { EventEmitter } from "node:events";
import { type PeerSettingsInput, peerSettingsDefaults } from "../../../generated/ts/settings/peer.js";
import { type Clock, type Logger, silentLogger, systemClock } from "../../foundation/runtime/index.js";
import { deadLetters, pending, reassign, storedCounts } from "../../operating/operate/index.js";
import { transactional } from "../handlers/transactions/transactional.js";
import { isReady, migrate } from "../migrations/index.js";
import {
  announce,
  type CatalogChange,
  CursorCommitter,
  type CursorCommitterEvents,
  channels,
  cursorCommits,
  type Database,
  directory,
  type Lease,
  messageChannel,
  overflow,
  parseAnnouncement,
  routes,
  secretsChannel,
  storedMessages,
  type TakeNameOptions,
} from "../store/index.js";
import {
  acquireDatabase,
  type DatabaseLocation,
  type HandlingCalls,
  type PoolUser,
  type SharedDatabase,
  type SharedDatabaseListener,
  sessionLocation,
} from "./shared-database.js";

/** Events of a store. Listeners are called one after another, in the order in which they were added. */
interface StoreEvents {
  /** A row of the directory changed. */
  catalog: [change: CatalogChange];
  /** A mesh secret was added or removed. */
  secrets: [];
  /** Messages were stored in a channel of a listener passed to {@link Store.listenForMessages}. */
  announced: [channelId: number, listenerName: string];
  /** The database session is up (again) or down. After "up", query again for missed notifications. */
  session: [state: "up" | "down"];
}

/** Location and pool settings of the database. */
export interface StoreOptions extends DatabaseLocation, Pick<PeerSettingsInput, "poolSize"> {
  /** Default: no log output. */
  readonly logger?: Logger | undefined;
  /** Default: the system clock. */
  readonly clock?: Clock | undefined;
}

const lookUps = new WeakMap<Database, ReturnType<typeof newLookUps>>();

const newLookUps = (database: Database) => ({
  ...routes(database),
  ...channels(database),
  ...storedCounts(database),
});

/** Shared by all stores of a database, so that concurrent lookups of thousands of peers are one statement. */
function lookUpsOf(database: Database): ReturnType<typeof newLookUps> {
  const known = lookUps.get(database) ?? newLookUps(database);
  lookUps.set(database, known);
  return known;
}

/** Connections and log of a store. */
interface Shared {
  readonly database: SharedDatabase;
  readonly user: SharedDatabaseListener;
  readonly location: DatabaseLocation;
  readonly logger: Logger;
}

/** Statements and sessions that a worker needs, with a peer or without. */
export type QueueStore = ReturnType<typeof queueStore>;

function queueStore({ database, user, location, logger }: Shared) {
  const { pool, session, queue } = database;
  return {
    ...transactional(pool),
    topicOfId: lookUpsOf(pool).topicOfId,
    pausedTopics: directory(pool).pausedTopics,
    /** Lets the pool grow with so many transactional calls at a time, or warns once that some of them will wait. */
    fitPool: (of: PoolUser, calls: HandlingCalls): void => database.fitPool(of, user, calls),
    /** The queue of enqueued messages. */
    queue,
    /** Dead letters of the database. */
    deadLetters: deadLetters(pool),
    /** Client for statements that are transactions of their own. */
    client: { query: database.query },
    /** Reason why nothing can be stored or handled, as far as it is known; undefined if there is none. */
    get problem() {
      return database.problem;
    },
    /** True while the session is up. Leases and notifications need it; stored messages and cursors do not. */
    get isUp() {
      return session.isUp;
    },
    /** Migrates the schema to this version, if it is not there already: see {@link migrate}. Then {@link problem} is known. */
    async migrate(): Promise<void> {
      if (!(await isReady(session, logger))) await migrate({ ...sessionLocation(location), logger });
      await database.checkWrites();
    },
    /** Starts the runner of due messages. */
    startDue: () => database.startDue(),
  };
}

/**
 * Opens the store of a worker without a peer, and waits until Postgres answers. All such stores of one process and database share
 * one session and one pool.
 *
 * @throws HawserError as {@link openStore}
 */
export async function openQueueStore(options: StoreOptions) {
  const { clock = systemClock, logger = silentLogger, poolSize = 1 } = options;
  const { database, release } = await acquireDatabase(options, { clock, logger, poolSize, users: "workers" });
  const sessionListeners = new Set<(state: "up" | "down") => void>();
  const user: SharedDatabaseListener = {
    onSession: (state) => {
      for (const listener of sessionListeners) listener(state);
    },
    onCatalogChange: () => undefined,
    onNotification: () => undefined,
  };
  database.listeners.add(user);
  let closed: Promise<void> | undefined;
  return Object.assign(queueStore({ database, user, location: options, logger }), {
    /** Has at least so many connections in the pool. */
    hasAtLeast: (connections: number): void => database.hasAtLeast(connections),
    /** Adds a listener of the session. After "up", query again for missed notifications. */
    onSession: (listener: (state: "up" | "down") => void): void => void sessionListeners.add(listener),
    /** Ends the use of the database. The last user in the process closes its connections. May be called twice. */
    close(): Promise<void> {
      closed ??= (async () => {
        sessionListeners.clear();
        database.listeners.delete(user);
        database.leavePool(user);
        await release();
      })();
      return closed;
    },
  });
}

/** All access of a peer to Postgres. Every method throws HawserError. */
export type Store = Awaited<ReturnType<typeof openStore>>;

/**
 * Opens the store and waits until Postgres answers. All stores of one process and database share one session and one
 * pool.
 *
 * @throws HawserError `store_failed` if Postgres cannot be reached; `invalid_argument` for an invalid URL,
 * `transaction_pooler` if the session goes through one
 */
export async function openStore(options: StoreOptions = {}) {
  const { clock = systemClock, logger = silentLogger, poolSize = peerSettingsDefaults.poolSize } = options;
  const { database, release } = await acquireDatabase(options, { clock, logger, poolSize });
  const { pool, session, leases } = database;
  const cursorStore = cursorCommits(pool);
  const taken = new Set<Lease>();
  const announcedTo = new Map<string, string>();
  // Each component of a peer adds listeners.
  const events = new EventEmitter<StoreEvents>().setMaxListeners(0);
  const databaseListener = {
    onSession: (state: "up" | "down") => events.emit("session", state),
    onCatalogChange: (change: CatalogChange) => events.emit("catalog", change),
    onNotification(channel: string, payload: string): void {
      if (channel === secretsChannel) events.emit("secrets");
      const listenerName = announcedTo.get(channel);
      const channelId = parseAnnouncement(payload);
      if (listenerName !== undefined && channelId !== undefined) events.emit("announced", channelId, listenerName);
    },
  };
  database.listeners.add(databaseListener);
  let closed: Promise<void> | undefined;
  /** Ends the use of the database. The last user in the process closes its connections. May be called twice. */
  const close = (): Promise<void> => {
    closed ??= (async () => {
      database.listeners.delete(databaseListener);
      database.leavePool(databaseListener);
      events.removeAllListeners();
      await Promise.all([...taken].map((lease) => lease.release({ clean: false })));
      await Promise.all([...announcedTo.keys()].map((channel) => session.unlisten(channel)));
      await release();
    })();
    return closed;
  };

  const shared = { database, user: databaseListener, location: options, logger };
  return Object.assign(queueStore(shared), {
    ...directory(pool),
    ...lookUpsOf(pool),
    ...storedMessages(pool),
    ...cursorStore,
    ...overflow(pool),
    ...pending(pool),
    ...reassign(pool),
    /** Notifies a listener that messages were stored for it. Does not throw. */
    announce: (listenerName: string, channelId: number): Promise<void> => announce(pool, [[listenerName, channelId]]),
    /** Takes a name: see {@link Lease}. {@link close} releases leases that are still held, as unclean. */
    async takeName(name: string, takeOptions: TakeNameOptions): Promise<Lease> {
      const lease = await leases.take(name, takeOptions);
      taken.add(lease);
      lease.onChange((state) => {
        if (state === "lost" || state === "released") taken.delete(lease);
      });
      return lease;
    },
    /** Creates the group commit of a listener's cursors. */
    cursorCommitter: (lease: Lease, committerEvents: CursorCommitterEvents) =>
      new CursorCommitter(lease, cursorStore, { clock, events: committerEvents }),
    /** Enables `announced` events for this listener's channels, across lost sessions. */
    async listenForMessages(listenerName: string): Promise<void> {
      const channel = messageChannel(listenerName);
      if (announcedTo.has(channel)) return;
      announcedTo.set(channel, listenerName);
      await session.listen(channel);
    },
    /** Adds an event listener. Returns a function that removes it. */
    on<Name extends keyof StoreEvents>(event: Name, listener: (...details: StoreEvents[Name]) => void): () => void {
      events.on(event, listener as never);
      return () => void events.off(event, listener as never);
    },
    close,
    [Symbol.asyncDispose]: close,
  });
}
