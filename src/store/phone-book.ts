/**
 * The phone book: which listener serves which topic, and where.
 */
import { type TopicAddrRow, tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import { columnsOf, overwrite, parameters } from "./column-list.js";
import type { Database } from "./database.js";
import type { WriterName } from "./fence.js";
import type { Transaction } from "./transaction.js";

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
}

/** What a listener tells of itself, the same for all its topics. */
export interface Registration {
  readonly addr: string;
  readonly maxMessageBytes: number;
  readonly durable: boolean;
}

/** A topic that a listener serves. */
export interface ServedTopic {
  readonly topic: string;
  /** True for a further topic that it subscribed to, false for its source topic. */
  readonly subscribed: boolean;
}

/** The phone book. All writes are fenced: after the name was lost they throw `fenced` and change nothing. */
export interface PhoneBook {
  /** Replaces all rows of the lease's name. A row (topic, address) left by another name is taken over. */
  registerListener(
    lease: WriterName,
    listener: Registration & { readonly topics: readonly ServedTopic[] },
  ): Promise<void>;
  /** Adds a topic to a registered listener. */
  addSubscription(lease: WriterName, topic: string, listener: Registration): Promise<void>;
  /**
   * Takes a topic away, from the routes of all senders too, so that sends to it fail with `no_address`; also one that
   * only a predecessor of the name subscribed.
   */
  removeSubscription(lease: WriterName, topic: string): Promise<void>;
  /** Takes the listener out of the book, for a stop; senders keep their routes. */
  unregister(lease: WriterName, options: { readonly keepDurable: boolean }): Promise<void>;
  /** The listeners of a topic, in the order of their addresses. */
  listenersOf(topic: string): Promise<Listener[]>;
  /** Takes all listeners of a topic out of the book. Live ones register again. */
  clearAddressesOfTopic(topic: string): Promise<void>;
}

const listed = columnsOf<TopicAddrRow>()("addr", "client_name", "max_message_bytes", "durable", "epoch");
const key = columnsOf<TopicAddrRow>()("topic", "addr");
const rest = columnsOf<TopicAddrRow>()("client_name", "epoch", "max_message_bytes", "durable", "subscribed");
const written = { names: [...key.names, ...rest.names] };

const sql = {
  listeners: `SELECT ${listed.sql()} FROM ${tables.topicAddr} WHERE topic = $1 ORDER BY addr COLLATE "C"`,
  add: `INSERT INTO ${tables.topicAddr} (${written.names.join(", ")}) VALUES (${parameters(written)})
        ON CONFLICT (${key.sql()}) DO UPDATE SET ${overwrite(rest)}, registered_at = now()`,
  removeName: `DELETE FROM ${tables.topicAddr} WHERE client_name = $1`,
  removeUnlessDurable: `DELETE FROM ${tables.topicAddr} WHERE client_name = $1 AND NOT durable`,
  removeNameFromTopic: `DELETE FROM ${tables.topicAddr} WHERE topic = $1 AND client_name = $2`,
  forgetRoutes: `DELETE FROM ${tables.senderListener} WHERE listener_topic = $1 AND client_name = $2`,
  // One writer at a time: two that take over each other's rows would wait in a circle, and NOTIFY serialises them anyway.
  lock: "SELECT pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0))",
  removeTopic: `DELETE FROM ${tables.topicAddr} WHERE topic = $1`,
} as const;

/** The phone book of a database. */
export function phoneBook(database: Database): PhoneBook {
  const write = async (lease: WriterName, action: string, work: (transaction: Transaction) => Promise<void>) => {
    const result = await database.fenced(action, lease, async (transaction) => {
      await transaction.query(sql.lock);
      await work(transaction);
    });
    if (result === "fenced") {
      throw new StoreError("fenced", `could not ${action}: another process has taken the name "${lease.name}"`);
    }
  };
  return {
    async registerListener(lease, { topics, ...listener }) {
      await write(lease, `register the listener "${lease.name}"`, async (transaction) => {
        await transaction.query(sql.removeName, [lease.name]);
        for (const topic of topics) await transaction.query(sql.add, addValues(lease, topic, listener));
      });
    },
    async addSubscription(lease, topic, listener) {
      await write(lease, `subscribe to "${topic}"`, async (transaction) => {
        await transaction.query(sql.add, addValues(lease, { topic, subscribed: true }, listener));
      });
    },
    async removeSubscription(lease, topic) {
      await write(lease, `unsubscribe from "${topic}"`, async (transaction) => {
        await transaction.query(sql.removeNameFromTopic, [topic, lease.name]);
        await transaction.query(sql.forgetRoutes, [topic, lease.name]);
      });
    },
    async unregister(lease, { keepDurable }) {
      await write(lease, `unregister the listener "${lease.name}"`, async (transaction) => {
        await transaction.query(keepDurable ? sql.removeUnlessDurable : sql.removeName, [lease.name]);
      });
    },
    async listenersOf(topic) {
      const rows = await database.query<typeof listed.row>(`read the listeners of "${topic}"`, {
        name: "hawser.listeners_of",
        text: sql.listeners,
        values: [topic],
      });
      return rows.map((row) => ({
        addr: row.addr,
        name: row.client_name,
        maxMessageBytes: Number(row.max_message_bytes),
        durable: row.durable,
        epoch: Number(row.epoch),
      }));
    },
    async clearAddressesOfTopic(topic) {
      await database.query(`clear the addresses of "${topic}"`, { text: sql.removeTopic, values: [topic] });
    },
  };
}

function addValues(lease: WriterName, { topic, subscribed }: ServedTopic, listener: Registration): unknown[] {
  const { addr, maxMessageBytes, durable } = listener;
  const row = {
    topic,
    addr,
    client_name: lease.name,
    epoch: lease.epoch,
    max_message_bytes: maxMessageBytes,
    durable,
    subscribed,
  };
  return written.names.map((name) => row[name]);
}
