/**
 * The store of one Peer: everything a peer does in Postgres.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { type PeerSettingsInput, peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { DatabaseAddress, type SessionQuery } from "../postgres/index.js";
import { type Clock, type Logger, silentLogger, systemClock } from "../runtime/index.js";
import { type ChannelOwners, type Channels, channelOwners, channels } from "./channels.js";
import { type Claims, claims } from "./claims.js";
import { type CursorCommits, cursorCommits } from "./cursor-commits.js";
import { CursorCommitter, type CursorCommitterEvents } from "./cursor-committer.js";
import type { Database } from "./database.js";
import { type DeadLetters, deadLetters } from "./dead-letters.js";
import { type Directory, directory, type Routes, routes } from "./directory.js";
import type { Lease, TakeNameOptions } from "./leases.js";
import { type MigrationReport, migrate } from "./migrate.js";
import {
  type Announce,
  announcements,
  type CatalogChange,
  messageChannel,
  parseAnnouncement,
  relayChannel,
  secretsChannel,
} from "./notifications.js";
import { type ParkedMessages, parkedMessages } from "./parked-messages.js";
import { type Backlogs, backlogs, type Orphans, orphans, type Pending, pending } from "./pending.js";
import { type Reassign, reassign } from "./reassign.js";
import { acquireDatabase, type DatabaseLocation } from "./shared-database.js";
import { type StoredMessages, storedMessages } from "./stored-messages.js";
import { type Transactional, transactional } from "./transactional.js";

const { waitingChannel } = outboxConstants;

/** What a store tells. Listeners run one after another, in the order in which they were added. */
interface StoreEvents {
  /** A row of the directory changed. */
  catalog: [change: CatalogChange];
  /** A mesh secret was added or taken away. */
  secrets: [];
  /** A relay of the outbox for peers has ended. */
  relayEnded: [];
  /** Messages were stored in a channel of a listener named to {@link Store.listenForMessages}. */
  announced: [connectionKey: number, listenerName: string];
  /** A topic has messages to claim. Heard after {@link Store.listenForWaiting}. */
  waiting: [topic: string];
  /** The database session is there (again), or lost. After "up", look again for what was not announced meanwhile. */
  session: [state: "up" | "down"];
}

/** Where the database is, and how it is used. */
export interface StoreOptions extends DatabaseLocation, Pick<PeerSettingsInput, "poolSize"> {
  /** Default: says nothing. */
  readonly logger?: Logger | undefined;
  /** Default: the process's clock. */
  readonly clock?: Clock | undefined;
}

/** Everything a peer does in Postgres. Every method throws StoreError, or PostgresError. */
export interface Store
  extends Directory,
    Routes,
    Channels,
    ChannelOwners,
    StoredMessages,
    Claims,
    CursorCommits,
    ParkedMessages,
    Transactional,
    Pending,
    Backlogs,
    Reassign,
    Orphans,
    Announce,
    AsyncDisposable {
  /** Messages that were given up. */
  readonly deadLetters: DeadLetters;
  /** Grows with each new database session. Keys that were cached before may be another database's: look them up again. */
  readonly generation: number;
  /** The session is there. Stored messages and cursors do not need it; leases and notifications do. */
  readonly isUp: boolean;
  /** Brings the schema to this version: see {@link migrate}. */
  migrate(): Promise<MigrationReport>;
  /** Takes a name: see {@link Lease}. Leases not released by then end with {@link close}, unclean. */
  takeName(name: string, options: TakeNameOptions): Promise<Lease>;
  /** What a relay of enqueued messages works with: where it opens a session of its own, and whom it asks whether one works. */
  readonly relayAccess: { readonly address: DatabaseAddress; readonly ask: SessionQuery };
  /** Makes the group commit of a listener's cursors. */
  cursorCommitter(lease: Lease, events: CursorCommitterEvents): CursorCommitter;
  /** From here on, and over lost sessions, `announced` tells of this listener's channels. */
  listenForMessages(listenerName: string): Promise<void>;
  /** From here on, and over lost sessions, `waiting` tells of topics with messages to claim. */
  listenForWaiting(): Promise<void>;
  /** Adds a listener. Returns what takes it away. */
  on<Name extends keyof StoreEvents>(event: Name, listener: (...details: StoreEvents[Name]) => void): () => void;
  /** Ends the use of the database; the last user of a process closes its connections. May be called twice. */
  close(): Promise<void>;
}

type LookUps = Routes & Channels & ChannelOwners;

const lookUps = new WeakMap<Database, LookUps>();

/** One for all stores of a database: what thousands of peers of one process ask at the same time is one statement. */
function lookUpsOf(database: Database, clock: Clock): LookUps {
  let known = lookUps.get(database);
  if (known === undefined) {
    known = { ...routes(database), ...channels(database), ...channelOwners(database, clock) };
    lookUps.set(database, known);
  }
  return known;
}

/**
 * Opens the store, and waits until Postgres answers. All stores of one process and database share one session and one
 * pool.
 *
 * @throws StoreError `store_failed` if Postgres cannot be reached; PostgresError `invalid_argument` if a URL cannot be
 * read, `transaction_pooler` if the session leads through one
 */
export async function openStore(options: StoreOptions = {}): Promise<Store> {
  const { clock = systemClock, logger = silentLogger, poolSize = peerSettingsDefaults.poolSize } = options;
  const { database, release } = await acquireDatabase(options, { clock, logger, poolSize });
  const { pool, session, leases } = database;
  const commits = cursorCommits(pool);
  const { announce } = announcements(pool, logger);
  const taken = new Set<Lease>();
  const announcedTo = new Map<string, string>();
  let listensForWaiting = false;
  const listeners: { [Name in keyof StoreEvents]: Set<(...details: StoreEvents[Name]) => void> } = {
    catalog: new Set(),
    secrets: new Set(),
    relayEnded: new Set(),
    announced: new Set(),
    waiting: new Set(),
    session: new Set(),
  };
  const emit = <Name extends keyof StoreEvents>(event: Name, ...details: StoreEvents[Name]): void => {
    for (const listener of [...listeners[event]]) listener(...details);
  };
  const databaseListener = {
    onSession: (state: "up" | "down") => emit("session", state),
    onCatalogChange: (change: CatalogChange) => emit("catalog", change),
    onNotification(channel: string, payload: string): void {
      if (channel === secretsChannel) emit("secrets");
      if (channel === relayChannel) emit("relayEnded");
      if (channel === waitingChannel) emit("waiting", payload);
      const listenerName = announcedTo.get(channel);
      const connectionKey = parseAnnouncement(payload);
      if (listenerName !== undefined && connectionKey !== undefined) emit("announced", connectionKey, listenerName);
    },
  };
  database.listeners.add(databaseListener);
  let closed: Promise<void> | undefined;

  const store: Omit<Store, "generation" | "isUp"> = {
    ...directory(pool),
    ...lookUpsOf(pool, clock),
    ...storedMessages(pool),
    ...claims(pool),
    ...commits,
    ...parkedMessages(pool),
    ...transactional(pool),
    ...pending(pool),
    ...backlogs(pool),
    ...reassign(pool, logger),
    ...orphans(pool),
    announce,
    deadLetters: deadLetters(pool, announce),
    migrate: () => migrate({ databaseUrl: options.sessionUrl ?? options.databaseUrl, logger }),
    async takeName(name, takeOptions) {
      const lease = await leases.take(name, takeOptions);
      taken.add(lease);
      lease.onChange((state) => {
        if (state === "lost" || state === "released") taken.delete(lease);
      });
      return lease;
    },
    relayAccess: {
      address: DatabaseAddress.of(options.sessionUrl ?? options.databaseUrl),
      ask: (text, values = []) => pool.query("look for a relay", { text, values }),
    },
    cursorCommitter: (lease, events) => new CursorCommitter(lease, commits, { clock, events }),
    async listenForMessages(listenerName) {
      const channel = messageChannel(listenerName);
      if (announcedTo.has(channel)) return;
      announcedTo.set(channel, listenerName);
      await session.listen(channel);
    },
    async listenForWaiting() {
      if (listensForWaiting) return;
      listensForWaiting = true;
      await session.listen(waitingChannel);
    },
    on(event, listener) {
      listeners[event].add(listener);
      return () => listeners[event].delete(listener);
    },
    close() {
      closed ??= (async () => {
        database.listeners.delete(databaseListener);
        for (const set of Object.values(listeners)) set.clear();
        await Promise.all([...taken].map((lease) => lease.release({ clean: false })));
        const heard = [...announcedTo.keys(), ...(listensForWaiting ? [waitingChannel] : [])];
        await Promise.all(heard.map((channel) => session.unlisten(channel)));
        await release();
      })();
      return closed;
    },
    [Symbol.asyncDispose]: () => store.close(),
  };
  return Object.defineProperties(store, {
    generation: { get: () => session.generation, enumerable: true },
    isUp: { get: () => session.isUp, enumerable: true },
  }) as Store;
}
