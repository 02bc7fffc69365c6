/**
 * The phone book: which listener serves which topic, and where.
 */
import { storeFunctions, type TopicAddrRow, tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import { columnsOf } from "./column-list.js";
import type { Database } from "./database.js";
import type { WriterName } from "./fence.js";
import { unlessRunning } from "./lease-held.js";
import type { Sender } from "./routes.js";

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

/** The phone book. Whoever writes under a name is fenced: after it was lost the call throws `fenced` and changes nothing. */
export interface PhoneBook {
  /** Replaces all rows of the lease's name. A row (topic, address) left by another name is taken over. */
  registerListener(
    lease: WriterName,
    listener: Registration & { readonly topics: readonly ServedTopic[] },
  ): Promise<void>;
  /** Adds a topic to a registered listener. */
  addSubscription(lease: WriterName, topic: string, listener: Registration): Promise<void>;
  /**
   * Takes topics away, from the routes of all senders too, so that sends to them fail with `no_address`; also those that
   * only a predecessor of the name subscribed.
   */
  removeSubscriptions(lease: WriterName, topics: readonly string[]): Promise<void>;
  /** Takes the listener out of the book, for a stop; senders keep their routes. */
  unregister(lease: WriterName, options: { readonly keepDurable: boolean }): Promise<void>;
  /** The listeners of a topic, in the order of their addresses. */
  listenersOf(topic: string): Promise<Listener[]>;
  /**
   * Takes all listeners of a peer's source topic out of the book. Live ones register again.
   *
   * @throws StoreError `name_in_use` if a process has the peer's name; then nothing was written
   */
  clearAddressesOfTopic(peer: Sender): Promise<void>;
}

const listed = columnsOf<TopicAddrRow>()("addr", "client_name", "max_message_bytes", "durable", "epoch");

const sql = {
  listeners: `SELECT ${listed.sql()} FROM ${tables.topicAddr} WHERE topic = $1 ORDER BY addr COLLATE "C"`,
} as const;

/** The phone book of a database. */
export function phoneBook(database: Database): PhoneBook {
  type Functions = ReturnType<typeof storeFunctions>;
  // Each is one statement and one transaction: who is stopped in the middle does not keep the others out of the book.
  const write = async (
    lease: WriterName,
    action: string,
    call: (functions: Functions, writer: { name: string; epoch: bigint }) => Promise<{ held: boolean }>,
  ): Promise<void> => {
    const writer = { name: lease.name, epoch: BigInt(lease.epoch) };
    if ((await call(storeFunctions(database.caller(action)), writer)).held) return;
    throw new StoreError("fenced", `could not ${action}: another process has taken the name "${lease.name}"`);
  };
  const enter = (topics: readonly ServedTopic[], { addr, maxMessageBytes, durable }: Registration, only: boolean) => ({
    addr,
    maxMessageBytes: BigInt(maxMessageBytes),
    durable,
    topics: topics.map(({ topic }) => topic),
    subscribed: topics.map(({ subscribed }) => subscribed),
    only,
  });
  return {
    async registerListener(lease, { topics, ...listener }) {
      await write(lease, `register the listener "${lease.name}"`, (functions, writer) =>
        functions.enterPhoneBook({ ...writer, ...enter(topics, listener, true) }),
      );
    },
    async addSubscription(lease, topic, listener) {
      await write(lease, `subscribe to "${topic}"`, (functions, writer) =>
        functions.enterPhoneBook({ ...writer, ...enter([{ topic, subscribed: true }], listener, false) }),
      );
    },
    async removeSubscriptions(lease, topics) {
      if (topics.length === 0) return;
      const which = topics.length === 1 ? `"${topics[0]}"` : `${topics.length} topics`;
      await write(lease, `unsubscribe from ${which}`, (functions, writer) =>
        functions.leavePhoneBook({ ...writer, all: false, keepDurable: false, topics }),
      );
    },
    async unregister(lease, { keepDurable }) {
      await write(lease, `unregister the listener "${lease.name}"`, (functions, writer) =>
        functions.leavePhoneBook({ ...writer, all: true, keepDurable, topics: [] }),
      );
    },
    async listenersOf(topic) {
      const rows = await database.query<typeof listed.row>(`read the listeners of "${topic}"`, {
        name: "hawser.listeners_of",
        text: sql.listeners,
        values: [topic],
      });
      return rows.map(listenerOf);
    },
    async clearAddressesOfTopic({ name, sourceTopic }) {
      const caller = database.caller(`clear the addresses of "${sourceTopic}"`);
      await unlessRunning(name, () => storeFunctions(caller).clearAddresses({ name, topic: sourceTopic }));
    },
  };
}

/** A row of the phone book, or of routes, as its readers have it. */
export function listenerOf(row: typeof listed.row): Listener {
  return {
    addr: row.addr,
    name: row.client_name,
    maxMessageBytes: Number(row.max_message_bytes),
    durable: row.durable,
    epoch: Number(row.epoch),
  };
}
