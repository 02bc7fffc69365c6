/**
 * The directory lists which listener serves which topic at which address. Routes list the listeners that a sender has
 * once found in the directory (has met), so that it can store messages for them after they have left the directory.
 */
import {
  type ListenerRow,
  type PeerNameRow,
  type RouteRow,
  storeFunctions,
  tables,
} from "../../../generated/ts/rows/peer.js";
import { queueFunctions } from "../../../generated/ts/rows/queue.js";
import { HawserError } from "../../foundation/errors/index.js";
import { batched } from "./batched.js";
import { columnsOf, overwrite } from "./columns.js";
import type { Database } from "./database.js";
import { unlessRunning } from "./leases.js";
import type { WriterName } from "./transaction.js";

/** Listener of a topic. */
export interface Listener {
  /** Dial address, host:port. */
  readonly addr: string;
  readonly name: string;
  /** Largest payload in bytes that it accepts. */
  readonly maxMessageBytes: number;
  /** True if at-least-once messages are stored for it while it is stopped, also by senders that never met it. */
  readonly durable: boolean;
  /** Epoch at registration; 0 for a row that an operator wrote. */
  readonly epoch: number;
  /** Group of the listener; undefined if none. */
  readonly group: string | undefined;
}

/** Attributes of a listener, the same for all its topics. */
export interface Registration {
  readonly addr: string;
  readonly maxMessageBytes: number;
  readonly durable: boolean;
  /** Group of the listener. Default: none. */
  readonly group?: string | undefined;
  /** Version of its program, for operators. Default: none is shown. */
  readonly version?: string | undefined;
  /** End of its TLS certificate, for operators. Default: it has none. */
  readonly certificateEndsAt?: Date | undefined;
}

/** Topic that a listener serves. */
export interface ServedTopic {
  readonly topic: string;
  /** True for an additional topic that it subscribed to, false for its source topic. */
  readonly subscribed: boolean;
}

/** SQL expression: group of the listener in a directory row; NULL if none. */
function groupSql(alias: string): string {
  return `(SELECT g.group_name FROM ${tables.peerName} AS g WHERE g.name = ${alias}.listener_name)`;
}

/**
 * Directory writes of a database. Each write is fenced: if another process owns the name, it throws `fenced` and
 * changes nothing.
 */
export function directory(database: Database) {
  type Functions = ReturnType<typeof storeFunctions>;
  // Each write is one statement and one transaction, so that a process suspended midway blocks no other.
  const write = async (
    lease: WriterName,
    action: string,
    call: (functions: Functions, writer: { name: string; epoch: bigint }) => Promise<{ held: boolean }>,
  ): Promise<void> => {
    const writer = { name: lease.name, epoch: BigInt(lease.epoch) };
    if ((await call(storeFunctions(database.caller(action)), writer)).held) return;
    throw new HawserError("fenced", `could not ${action}: another process has taken the name "${lease.name}"`);
  };
  const enter = (topics: readonly ServedTopic[], listener: Registration, only: boolean) => ({
    addr: listener.addr,
    maxMessageBytes: BigInt(listener.maxMessageBytes),
    durable: listener.durable,
    topics: topics.map(({ topic }) => topic),
    subscribed: topics.map(({ subscribed }) => subscribed),
    only,
    groupName: listener.group ?? null,
    version: listener.version ?? null,
    certificateEndsAt: listener.certificateEndsAt ?? null,
  });
  return {
    /** Replaces all rows of the lease's name. Takes over a row (topic, address) of another name. */
    async registerListener(
      lease: WriterName,
      { topics, ...listener }: Registration & { readonly topics: readonly ServedTopic[] },
    ): Promise<void> {
      await write(lease, `register the listener "${lease.name}"`, (functions, writer) =>
        functions.enterDirectory({ ...writer, ...enter(topics, listener, true) }),
      );
    },
    /** Adds a topic to a registered listener. */
    async addSubscription(lease: WriterName, served: ServedTopic, listener: Registration): Promise<void> {
      await write(lease, `subscribe to "${served.topic}"`, (functions, writer) =>
        functions.enterDirectory({ ...writer, ...enter([served], listener, false) }),
      );
    },
    /** Updates the group, version and certificate of a registered listener; its topics stay as they are. */
    async updateListener(lease: WriterName, listener: Registration): Promise<void> {
      await write(lease, `update the listener "${lease.name}"`, (functions, writer) =>
        functions.enterDirectory({ ...writer, ...enter([], listener, false) }),
      );
    },
    /**
     * Removes topics from the listener, including topics that only an earlier owner of the name subscribed to, and from
     * the routes of all senders. Sends to them then fail with `no_listener`.
     */
    async removeSubscriptions(lease: WriterName, topics: readonly string[]): Promise<void> {
      if (topics.length === 0) return;
      const which = topics.length === 1 ? `"${topics[0]}"` : `${topics.length} topics`;
      await write(lease, `unsubscribe from ${which}`, (functions, writer) =>
        functions.leaveDirectory({ ...writer, all: false, keepDurable: false, topics }),
      );
    },
    /** Removes the listener from the directory when it stops. Senders keep their routes. */
    async unregister(lease: WriterName, { keepDurable }: { readonly keepDurable: boolean }): Promise<void> {
      await write(lease, `unregister the listener "${lease.name}"`, (functions, writer) =>
        functions.leaveDirectory({ ...writer, all: true, keepDurable, topics: [] }),
      );
    },
    /** Those of the topics that are paused in all processes. */
    async pausedTopics(topics: readonly string[]): Promise<string[]> {
      const rows = await queueFunctions(database.caller("read which topics are paused")).pausedTopics({ topics });
      return rows.map(({ topic }) => topic);
    },
    /**
     * Removes all listeners of a peer's source topic from the directory. Running listeners register again.
     *
     * @throws HawserError `name_in_use` if a process owns the peer's name; nothing was written then
     */
    async clearAddressesOfTopic({ name, sourceTopic }: Sender): Promise<void> {
      const caller = database.caller(`clear the addresses of "${sourceTopic}"`);
      await unlessRunning(name, () => storeFunctions(caller).clearAddresses({ name, topic: sourceTopic }));
    },
  };
}

/** Sender: its name and source topic. */
export interface Sender {
  readonly name: string;
  readonly sourceTopic: string;
}

/** Listener that a sender has met. */
export interface Route {
  /** Last known address. */
  readonly addr: string;
  readonly name: string;
  /** Largest payload in bytes that it accepted when last met. */
  readonly maxMessageBytes: number;
}

/** Listeners of a topic that a sender can use. */
export interface TopicListeners {
  /** Listeners in the directory, by address. */
  readonly listeners: readonly Listener[];
  /** Listeners that the sender has met, by address. */
  readonly routes: readonly Route[];
}

const directoryColumns = columnsOf<ListenerRow>()(
  "topic",
  "addr",
  "listener_name",
  "max_message_bytes",
  "durable",
  "epoch",
);
const known = columnsOf<RouteRow>()("sender_key", "listener_topic", "addr", "listener_name", "max_message_bytes");
type KnownListenerRow = typeof directoryColumns.row &
  Pick<PeerNameRow, "group_name"> & { readonly sender_key: string | null };
const key = columnsOf<RouteRow>()("sender_key", "listener_topic", "listener_name");
const rest = columnsOf<RouteRow>()("addr", "max_message_bytes");
/** Columns are named explicitly, so that columns of later versions keep their defaults. */
const written = columnsOf<RouteRow>()(...key.names, ...rest.names);

const routeSql = {
  read: `SELECT * FROM (
           SELECT NULL AS sender_key, ${directoryColumns.sql("t")}, ${groupSql("t")} AS group_name
             FROM ${tables.listener} AS t WHERE topic = ANY ($2::text[])
           UNION ALL
           SELECT ${known.sql()}, false, 0, NULL FROM ${tables.route}
            WHERE sender_key = ANY ($1::text[]) AND listener_topic = ANY ($2::text[])
         ) AS found
         ORDER BY addr COLLATE "C", listener_name COLLATE "C"`,
  // A peer that unsubscribes deletes first its directory row and then its routes. Either it waits for the lock of this
  // statement, and then deletes this route too; or it has locked its row already, and SKIP LOCKED makes this statement
  // write no route. Without SKIP LOCKED, two peers that wait for each other's rows would deadlock.
  remember: `INSERT INTO ${tables.route} AS known (${written.sql()})
             SELECT ${written.sql("met")} FROM jsonb_populate_recordset(NULL::${tables.route}, $1) AS met
             CROSS JOIN LATERAL (
               SELECT FROM ${tables.listener} AS book
               WHERE book.topic = met.listener_topic AND book.listener_name = met.listener_name
               LIMIT 1 FOR KEY SHARE SKIP LOCKED
             ) AS listed
             ON CONFLICT (${key.sql()}) DO UPDATE SET ${overwrite(rest)}
             WHERE (${rest.sql("known")}) IS DISTINCT FROM (${rest.sql("excluded")})`,
} as const;

/** Converts a row of the directory or of the routes. */
function listenerOf(row: KnownListenerRow): Listener {
  return {
    addr: row.addr,
    name: row.listener_name,
    maxMessageBytes: Number(row.max_message_bytes),
    durable: row.durable,
    epoch: Number(row.epoch),
    group: row.group_name ?? undefined,
  };
}

/** Key of a sender's routes: `name:source_topic`. */
export function senderKey({ name, sourceTopic }: Sender): string {
  return `${name}:${sourceTopic}`;
}

/** Lookups of listeners and routes. Concurrent lookups share one statement. */
export function routes(database: Database) {
  const read = batched(async (asked: readonly { readonly senderKey: string; readonly topic: string }[]) => {
    const topics = [...new Set(asked.map(({ topic }) => topic))];
    const rows = await database.query<KnownListenerRow>(`read the listeners and routes of ${topics.length} topics`, {
      name: "hawser.listeners_and_routes",
      text: routeSql.read,
      values: [[...new Set(asked.map((one) => one.senderKey))], topics],
    });
    const found = new Map<string, Listener[]>();
    for (const row of rows) {
      const place = placeOf(row.sender_key, row.topic);
      const here = found.get(place);
      if (here === undefined) found.set(place, [listenerOf(row)]);
      else here.push(listenerOf(row));
    }
    return asked.map(({ senderKey, topic }) => ({
      listeners: found.get(placeOf(null, topic)) ?? [],
      routes: found.get(placeOf(senderKey, topic)) ?? [],
    }));
  });
  const remember = batched(async (rows: readonly MetListener[]) => {
    // One statement cannot write the same row twice, so only the last value counts.
    const last = new Map(
      rows.map((row) => [JSON.stringify([row.sender_key, row.listener_topic, row.listener_name]), row]),
    );
    await database.query(`remember ${last.size} routes`, {
      name: "hawser.remember_routes",
      text: routeSql.remember,
      values: [JSON.stringify([...last.values()])],
    });
    return [];
  });
  return {
    /** Listeners that serve a topic, and listeners of the topic that the sender has met. */
    listenersAndRoutes: (sender: Sender, topic: string): Promise<TopicListeners> =>
      read({ senderKey: senderKey(sender), topic }),
    /**
     * Saves a route to a listener, or its changes, if the listener is in the directory. A concurrent unsubscribe leaves
     * no route behind.
     */
    async rememberRoute(sender: Sender, topic: string, { addr, name, maxMessageBytes }: Route): Promise<void> {
      await remember({
        sender_key: senderKey(sender),
        listener_topic: topic,
        listener_name: name,
        addr,
        max_message_bytes: maxMessageBytes,
      });
    },
  };
}

/** Row to be written, as JSON. */
type MetListener = { readonly [Name in keyof RouteRow]: string | number };

function placeOf(senderKey: string | null, topic: string): string {
  return JSON.stringify([senderKey, topic]);
}
