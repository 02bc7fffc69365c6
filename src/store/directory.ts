/**
 * The directory: which listener serves which topic, and where. And routes: the listeners that a sender has met, so that it
 * can store for them after they have left the directory.
 */
import {
  type PeerNameRow,
  type SenderListenerRow,
  storeFunctions,
  type TopicAddrRow,
  tables,
} from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import { columnsOf, overwrite } from "./columns.js";
import type { Database } from "./database.js";
import { gathered } from "./gathered.js";
import { unlessRunning } from "./leases.js";
import type { WriterName } from "./transaction.js";

/** A listener of a topic. */
export interface Listener {
  /** Where it can be dialled, host:port. */
  readonly addr: string;
  readonly name: string;
  /** The greatest payload that it takes, in bytes. */
  readonly maxMessageBytes: number;
  /** At-least-once messages are stored for it also while it is stopped, and by senders that never met it. */
  readonly durable: boolean;
  /** Its epoch when it registered; 0 for a row that an operator wrote. */
  readonly epoch: number;
  /** The group that it is a member of; undefined: of none. */
  readonly group: string | undefined;
}

/** What a listener tells of itself when it enters topics into the directory. */
export interface Registration {
  readonly addr: string;
  readonly maxMessageBytes: number;
  readonly durable: boolean;
  /** The group that it is a member of. Default: of none. */
  readonly group?: string | undefined;
}

/** A topic that a listener serves. */
export interface ServedTopic {
  readonly topic: string;
  /** True for a further topic that it subscribed to, false for its source topic. */
  readonly subscribed: boolean;
}

/** The group of the listener of a row of the directory; NULL: it is a member of none. */
export function groupSql(alias: string): string {
  return `(SELECT g.group_name FROM ${tables.peerName} AS g WHERE g.name = ${alias}.client_name)`;
}

/** The directory of a database. A writer in a name is fenced: after it was lost the call throws `fenced` and changes nothing. */
export function directory(database: Database) {
  type Functions = ReturnType<typeof storeFunctions>;
  // Each is one statement and one transaction: a process that is stopped in the middle holds up no other.
  const write = async (
    lease: WriterName,
    action: string,
    call: (functions: Functions, writer: { name: string; epoch: bigint }) => Promise<{ held: boolean }>,
  ): Promise<void> => {
    const writer = { name: lease.name, epoch: BigInt(lease.epoch) };
    if ((await call(storeFunctions(database.caller(action)), writer)).held) return;
    throw new HawserError("fenced", `could not ${action}: another process has taken the name "${lease.name}"`);
  };
  const enter = (topics: readonly ServedTopic[], { group, ...listener }: Registration, only: boolean) => ({
    addr: listener.addr,
    maxMessageBytes: BigInt(listener.maxMessageBytes),
    durable: listener.durable,
    topics: topics.map(({ topic }) => topic),
    subscribed: topics.map(({ subscribed }) => subscribed),
    only,
    groupName: group ?? null,
  });
  return {
    /** Replaces all rows of the lease's name. A row (topic, address) left by another name is taken over. */
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
    /**
     * Takes topics away, from the routes of all senders too, so that sends to them fail with `no_listener`; also those that
     * only a predecessor of the name subscribed.
     */
    async removeSubscriptions(lease: WriterName, topics: readonly string[]): Promise<void> {
      if (topics.length === 0) return;
      const which = topics.length === 1 ? `"${topics[0]}"` : `${topics.length} topics`;
      await write(lease, `unsubscribe from ${which}`, (functions, writer) =>
        functions.leaveDirectory({ ...writer, all: false, keepDurable: false, topics }),
      );
    },
    /** Takes the listener out of the directory, for a stop; senders keep their routes. */
    async unregister(lease: WriterName, { keepDurable }: { readonly keepDurable: boolean }): Promise<void> {
      await write(lease, `unregister the listener "${lease.name}"`, (functions, writer) =>
        functions.leaveDirectory({ ...writer, all: true, keepDurable, topics: [] }),
      );
    },
    /**
     * Takes all listeners of a peer's source topic out of the directory. Live ones register again.
     *
     * @throws HawserError `name_in_use` if a process has the peer's name; then nothing was written
     */
    async clearAddressesOfTopic({ name, sourceTopic }: Sender): Promise<void> {
      const caller = database.caller(`clear the addresses of "${sourceTopic}"`);
      await unlessRunning(name, () => storeFunctions(caller).clearAddresses({ name, topic: sourceTopic }));
    },
  };
}

/** A sender: its name and its source topic. */
export interface Sender {
  readonly name: string;
  readonly sourceTopic: string;
}

/** A listener that a sender has met. */
export interface Route {
  /** Its last known address. */
  readonly addr: string;
  readonly name: string;
  /** The greatest payload that it takes, as last heard, in bytes. */
  readonly maxMessageBytes: number;
}

/** A topic as a sender finds it. */
export interface TopicListeners {
  /** Those in the directory, in the order of their addresses. */
  readonly listeners: readonly Listener[];
  /** Those that the sender has met, in the order of their addresses. */
  readonly routes: readonly Route[];
}

const book = columnsOf<TopicAddrRow>()("topic", "addr", "client_name", "max_message_bytes", "durable", "epoch");
const known = columnsOf<SenderListenerRow>()(
  "sender_key",
  "listener_topic",
  "addr",
  "client_name",
  "max_message_bytes",
);
type BookRow = typeof book.row & Pick<PeerNameRow, "group_name"> & { readonly sender_key: string | null };
const key = columnsOf<SenderListenerRow>()("sender_key", "listener_topic", "client_name");
const rest = columnsOf<SenderListenerRow>()("addr", "max_message_bytes");
/** Named one by one: columns that a later version adds keep their defaults. */
const written = columnsOf<SenderListenerRow>()(...key.names, ...rest.names);

const routeSql = {
  read: `SELECT * FROM (
           SELECT NULL AS sender_key, ${book.sql("t")}, ${groupSql("t")} AS group_name
             FROM ${tables.topicAddr} AS t WHERE topic = ANY ($2::text[])
           UNION ALL
           SELECT ${known.sql()}, false, 0, NULL FROM ${tables.senderListener}
            WHERE sender_key = ANY ($1::text[]) AND listener_topic = ANY ($2::text[])
         ) AS found
         ORDER BY addr COLLATE "C", client_name COLLATE "C"`,
  // A peer that unsubscribes deletes the row of the directory first and the routes after it: either it waits for the lock,
  // and then deletes this route too, or it has locked the row already, and there is no route to remember. Not waited for:
  // two peers that each wait for a row of the other would wait in a circle.
  remember: `INSERT INTO ${tables.senderListener} AS known (${written.sql()})
             SELECT ${written.sql("met")} FROM jsonb_populate_recordset(NULL::${tables.senderListener}, $1) AS met
             CROSS JOIN LATERAL (
               SELECT FROM ${tables.topicAddr} AS book
               WHERE book.topic = met.listener_topic AND book.client_name = met.client_name
               LIMIT 1 FOR KEY SHARE SKIP LOCKED
             ) AS listed
             ON CONFLICT (${key.sql()}) DO UPDATE SET ${overwrite(rest)}
             WHERE (${rest.sql("known")}) IS DISTINCT FROM (${rest.sql("excluded")})`,
} as const;

/** A row of the directory, or of routes, as its readers have it. */
function listenerOf(row: BookRow): Listener {
  return {
    addr: row.addr,
    name: row.client_name,
    maxMessageBytes: Number(row.max_message_bytes),
    durable: row.durable,
    epoch: Number(row.epoch),
    group: row.group_name ?? undefined,
  };
}

/** The key of a sender's routes: `name:source_topic`. */
export function senderKey({ name, sourceTopic }: Sender): string {
  return `${name}:${sourceTopic}`;
}

/** What senders in a database remember, and what its directory has beside it. What is asked at the same time is one statement. */
export function routes(database: Database) {
  const read = gathered(async (asked: readonly { readonly senderKey: string; readonly topic: string }[]) => {
    const topics = [...new Set(asked.map(({ topic }) => topic))];
    const rows = await database.query<BookRow>(`read the listeners and routes of ${topics.length} topics`, {
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
  const remember = gathered(async (rows: readonly MetListener[]) => {
    // No row twice: one statement cannot write it twice. The last one counts.
    const last = new Map(
      rows.map((row) => [JSON.stringify([row.sender_key, row.listener_topic, row.client_name]), row]),
    );
    await database.query(`remember ${last.size} routes`, {
      name: "hawser.remember_routes",
      text: routeSql.remember,
      values: [JSON.stringify([...last.values()])],
    });
    return [];
  });
  return {
    /** The listeners that serve a topic, and those that the sender has met there. */
    listenersAndRoutes: (sender: Sender, topic: string): Promise<TopicListeners> =>
      read({ senderKey: senderKey(sender), topic }),
    /**
     * Remembers a listener of a topic, or what is new about it, if it is in the directory: one that unsubscribes at the
     * same time leaves no route behind.
     */
    async rememberRoute(sender: Sender, topic: string, { addr, name, maxMessageBytes }: Route): Promise<void> {
      await remember({
        sender_key: senderKey(sender),
        listener_topic: topic,
        client_name: name,
        addr,
        max_message_bytes: maxMessageBytes,
      });
    },
  };
}

/** A row to be written, as JSON. */
type MetListener = { readonly [Name in keyof SenderListenerRow]: string | number };

function placeOf(senderKey: string | null, topic: string): string {
  return JSON.stringify([senderKey, topic]);
}
