/**
 * Routes: the listeners that a sender has met, so that it can store for them after they have left the phone book.
 */
import { type SenderListenerRow, tables } from "../../generated/ts/rows/peer.js";
import { columnsOf, overwrite, parameters } from "./column-list.js";
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
  /** Remembers a listener of a topic, or what is new about it. */
  rememberRoute(sender: Sender, topic: string, route: Route): Promise<void>;
}

const listed = columnsOf<SenderListenerRow>()("addr", "client_name", "max_message_bytes");
const key = columnsOf<SenderListenerRow>()("sender_key", "listener_topic", "client_name");
const rest = columnsOf<SenderListenerRow>()("addr", "max_message_bytes");
const written = { names: [...key.names, ...rest.names] };

const sql = {
  list: `SELECT ${listed.sql()} FROM ${tables.senderListener}
         WHERE sender_key = $1 AND listener_topic = $2 ORDER BY addr COLLATE "C", client_name COLLATE "C"`,
  remember: `INSERT INTO ${tables.senderListener} AS known (${written.names.join(", ")}) VALUES (${parameters(written)})
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
      const row = {
        sender_key: senderKey(sender),
        listener_topic: topic,
        client_name: name,
        addr,
        max_message_bytes: maxMessageBytes,
      };
      await database.query(`remember the route of "${sender.name}" to "${topic}"`, {
        name: "hawser.remember_route",
        text: sql.remember,
        values: written.names.map((column) => row[column]),
      });
    },
  };
}
