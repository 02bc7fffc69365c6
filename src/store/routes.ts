/**
 * Routes: the listeners that a sender has met, so that it can store for them after they have left the phone book.
 */
import { type SenderListenerRow, tables } from "../../generated/ts/rows/peer.js";
import { columnsOf, overwrite } from "./column-list.js";
import type { Database } from "./database.js";

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

/** What senders remember. */
export interface Routes {
  /** The listeners of a topic that the sender has met, in the order of their addresses. */
  routesOf(sender: Sender, topic: string): Promise<Route[]>;
  /**
   * Remembers a listener of a topic, or what is new about it, if it is in the phone book: one that unsubscribes at the
   * same time leaves no route behind.
   */
  rememberRoute(sender: Sender, topic: string, route: Route): Promise<void>;
}

const listed = columnsOf<SenderListenerRow>()("addr", "client_name", "max_message_bytes");
const key = columnsOf<SenderListenerRow>()("sender_key", "listener_topic", "client_name");
const rest = columnsOf<SenderListenerRow>()("addr", "max_message_bytes");
/** Named one by one: columns that a later version adds keep their defaults. */
const written = columnsOf<SenderListenerRow>()(...key.names, ...rest.names);

const sql = {
  list: `SELECT ${listed.sql()} FROM ${tables.senderListener}
         WHERE sender_key = $1 AND listener_topic = $2 ORDER BY addr COLLATE "C", client_name COLLATE "C"`,
  // Whoever unsubscribes deletes the row of the phone book first and the routes after it: either it waits for the lock,
  // and then deletes this route too, or this waits for it, and then finds no row.
  remember: `INSERT INTO ${tables.senderListener} AS known (${written.sql()})
             SELECT ${written.sql("met")} FROM jsonb_populate_record(NULL::${tables.senderListener}, $1) AS met
             CROSS JOIN LATERAL (
               SELECT FROM ${tables.topicAddr} AS book
               WHERE book.topic = met.listener_topic AND book.client_name = met.client_name
               LIMIT 1 FOR KEY SHARE
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
  return {
    async routesOf(sender, topic) {
      const rows = await database.query<typeof listed.row>(`read the routes of "${sender.name}" to "${topic}"`, {
        name: "hawser.routes_of",
        text: sql.list,
        values: [senderKey(sender), topic],
      });
      return rows.map((row) => ({
        addr: row.addr,
        name: row.client_name,
        maxMessageBytes: Number(row.max_message_bytes),
      }));
    },
    async rememberRoute(sender, topic, { addr, name, maxMessageBytes }) {
      const row: { [Name in keyof SenderListenerRow]: string | number } = {
        sender_key: senderKey(sender),
        listener_topic: topic,
        client_name: name,
        addr,
        max_message_bytes: maxMessageBytes,
      };
      await database.query(`remember the route of "${sender.name}" to "${topic}"`, {
        name: "hawser.remember_route",
        text: sql.remember,
        values: [JSON.stringify(row)],
      });
    },
  };
}
