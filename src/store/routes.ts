/**
 * Routes: the listeners that a sender has met, so that it can store for them after they have left the phone book.
 */
import { type SenderListenerRow, type TopicAddrRow, tables } from "../../generated/ts/rows/peer.js";
import { columnsOf, overwrite } from "./column-list.js";
import type { Database } from "./database.js";
import { gathered } from "./gathered.js";
import { type Listener, listenerOf } from "./phone-book.js";

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
interface TopicListeners {
  /** Those in the phone book, in the order of their addresses. */
  readonly listeners: readonly Listener[];
  /** Those that the sender has met, in the order of their addresses. */
  readonly routes: readonly Route[];
}

/** What senders remember, and what the phone book has beside it. What is asked at the same time is one statement. */
export interface Routes {
  /** Who serves a topic, and whom the sender has met there. */
  listenersAndRoutes(sender: Sender, topic: string): Promise<TopicListeners>;
  /**
   * Remembers a listener of a topic, or what is new about it, if it is in the phone book: one that unsubscribes at the
   * same time leaves no route behind.
   */
  rememberRoute(sender: Sender, topic: string, route: Route): Promise<void>;
}

const book = columnsOf<TopicAddrRow>()("topic", "addr", "client_name", "max_message_bytes", "durable", "epoch");
const known = columnsOf<SenderListenerRow>()(
  "sender_key",
  "listener_topic",
  "addr",
  "client_name",
  "max_message_bytes",
);
type BookRow = typeof book.row & { readonly sender_key: string | null };
const key = columnsOf<SenderListenerRow>()("sender_key", "listener_topic", "client_name");
const rest = columnsOf<SenderListenerRow>()("addr", "max_message_bytes");
/** Named one by one: columns that a later version adds keep their defaults. */
const written = columnsOf<SenderListenerRow>()(...key.names, ...rest.names);

const sql = {
  read: `SELECT * FROM (
           SELECT NULL AS sender_key, ${book.sql()} FROM ${tables.topicAddr} WHERE topic = ANY ($2::text[])
           UNION ALL
           SELECT ${known.sql()}, false, 0 FROM ${tables.senderListener}
            WHERE sender_key = ANY ($1::text[]) AND listener_topic = ANY ($2::text[])
         ) AS found
         ORDER BY addr COLLATE "C", client_name COLLATE "C"`,
  // Whoever unsubscribes deletes the row of the phone book first and the routes after it: either it waits for the lock,
  // and then deletes this route too, or it has locked the row already, and there is no route to remember. Not waited for:
  // two who each wait for one of the other's rows would wait in a circle.
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

/** The key of a sender's routes: `name:source_topic`. */
export function senderKey({ name, sourceTopic }: Sender): string {
  return `${name}:${sourceTopic}`;
}

/** The routes in a database. */
export function routes(database: Database): Routes {
  const read = gathered(async (asked: readonly { readonly senderKey: string; readonly topic: string }[]) => {
    const topics = [...new Set(asked.map(({ topic }) => topic))];
    const rows = await database.query<BookRow>(`read the listeners and routes of ${topics.length} topics`, {
      name: "hawser.listeners_and_routes",
      text: sql.read,
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
      text: sql.remember,
      values: [JSON.stringify([...last.values()])],
    });
    return [];
  });
  return {
    listenersAndRoutes: (sender, topic) => read({ senderKey: senderKey(sender), topic }),
    async rememberRoute(sender, topic, { addr, name, maxMessageBytes }) {
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
