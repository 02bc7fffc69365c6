/**
 * Channels: their keys, owners and cursors, and the keys of topics. A key never changes while its database lives; after
 * each new database session it may be another database (a failover, a restore), so cached keys are looked up again then.
 */
import {
  type ConnKeyMapRow,
  type ConnMessNumberRow,
  type MeshSecretRow,
  type ParkedMessageRow,
  type PeerNameRow,
  storeFunctions,
  type TopicAddrRow,
  type TopicKeyRow,
  tables,
} from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { Clock } from "../runtime/index.js";
import { columnsOf } from "./columns.js";
import type { Database } from "./database.js";
import type { Sender } from "./directory.js";
import { gathered } from "./gathered.js";

/** A message's place in its channel: (epoch, number), compared in this order. `{ epoch: 0, number: 0 }` is before all. */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** A message that is parked. */
export interface ParkedMessage extends Position {
  readonly topicKey: number;
  readonly payload: Uint8Array;
  /** As the frame Batch has it; 0: the payload is plain. */
  readonly compression: number;
  readonly uncompressedBytes: number;
  /** Empty: none. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** How often its handler was started. */
  readonly attempts: number;
  /** In so many ms it is tried again. */
  readonly delayMs: number;
}

/** A channel as its listener sees it. */
export interface Channel {
  readonly connectionKey: number;
  /** `sender:source_topic:listener`, as it was made. */
  readonly composite: string;
  readonly senderName: string;
  readonly sourceTopic: string;
  /** The listener that takes its messages: the one it was made for, or the one it was handed over to. */
  readonly owner: string;
  /** Up to here the handling of all messages is committed. */
  readonly cursor: Position;
  /** The messages beyond the cursor that are done, in order. */
  readonly done: readonly Position[];
  /** The messages that are parked, in order. */
  readonly parked: readonly ParkedMessage[];
  /** How often the next message's handler was started after an unclean exit. */
  readonly attempts: number;
}

/** What is parked of the channel `m`, as columns of the table `k`: an array of each. */
const parkedSql = `
  CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object(
             'epoch', k.epoch, 'number', k.number, 'topicKey', k.topic_key, 'compression', k.compression,
             'uncompressedBytes', k.uncompressed_bytes, 'attempts', k.attempts,
             'delayMs', greatest(0, extract(epoch FROM k.due_at - clock_timestamp()) * 1000)
           ) ORDER BY k.epoch, k.number), '[]') AS parked,
           coalesce(array_agg(k.headers ORDER BY k.epoch, k.number), '{}') AS parked_headers,
           coalesce(array_agg(k.payload ORDER BY k.epoch, k.number), '{}') AS parked_payloads
      FROM ${tables.parkedMessage} AS k
     WHERE k.connection_key = m.connection_key
  ) AS k`;

/** The columns that {@link parkedSql} makes. */
interface ParkedColumns {
  readonly parked: readonly Omit<ParkedMessage, "headers" | "payload">[];
  readonly parked_headers: readonly ParkedMessageRow["headers"][];
  readonly parked_payloads: readonly ParkedMessageRow["payload"][];
}

const map = columnsOf<ConnKeyMapRow>()("connection_key", "composite", "sender_name", "source_topic");
const cursor = columnsOf<ConnMessNumberRow>()("epoch", "v", "attempts");
type ChannelRow = typeof map.row & { [Name in keyof typeof cursor.row]: (typeof cursor.row)[Name] | null } & {
  listener: string;
  done_epochs: readonly bigint[];
  done_numbers: readonly bigint[];
} & ParkedColumns;

/** Joins the cursor of a channel `m` as `c`, whose columns are NULL if it has none. */
export const cursorJoin = "CROSS JOIN LATERAL hawser.cursor_of(m.connection_key) AS c";

const owner = "coalesce(m.owner, m.listener_name)";
// Cursor, marks and what is parked of one moment: marks go when the cursor passes them.
const channelSql = `SELECT ${map.sql("m")}, ${owner} AS listener, ${cursor.sql("c")}, d.done_epochs, d.done_numbers,
                         k.parked, k.parked_headers, k.parked_payloads
                    FROM ${tables.connKeyMap} AS m
                    ${cursorJoin}
                   CROSS JOIN LATERAL (
                     SELECT coalesce(array_agg(n.epoch ORDER BY n.epoch, n.number), '{}') AS done_epochs,
                            coalesce(array_agg(n.number ORDER BY n.epoch, n.number), '{}') AS done_numbers
                       FROM ${tables.doneMessage} AS n
                      WHERE n.connection_key = m.connection_key
                        AND (n.epoch, n.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))
                   ) AS d
                   ${parkedSql}`;

const sql = {
  connectionKeys: `SELECT k.connection_key, k.owner
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS a (sender, topic, listener, nth)
                    CROSS JOIN LATERAL hawser.connection_key(a.sender, a.topic, a.listener) AS k
                    ORDER BY a.nth`,
  keysOfTopics: `SELECT k.k
                   FROM unnest($1::text[]) WITH ORDINALITY AS a (topic, nth)
                  CROSS JOIN LATERAL hawser.key_of_topic(a.topic) AS k
                  ORDER BY a.nth`,
  topicOfKey: `SELECT topic FROM ${tables.topicKey} WHERE k = $1`,
  owned: `${channelSql} WHERE ${owner} = $1 ORDER BY m.connection_key`,
  channel: `${channelSql} WHERE m.connection_key = $1`,
  ownedOf: `${channelSql} WHERE m.connection_key = ANY ($1::integer[]) AND ${owner} = $2 ORDER BY m.connection_key`,
  peerEpoch: `SELECT epoch FROM ${tables.peerName} WHERE name = $1`,
  secrets: `SELECT secret FROM ${tables.meshSecret} ORDER BY id DESC`,
} as const;

/** The channels of a database. */
export function channels(database: Database) {
  const channelKey = gathered(async (asked: readonly { readonly sender: Sender; readonly listenerName: string }[]) => {
    const [first] = asked;
    const which =
      asked.length === 1 ? `from "${first?.sender.name}" to "${first?.listenerName}"` : `${asked.length} times`;
    const rows = await database.query<{ connection_key: number; owner: string }>(
      `read the key of a channel, ${which}`,
      {
        name: "hawser.connection_keys",
        text: sql.connectionKeys,
        values: [
          asked.map(({ sender }) => sender.name),
          asked.map(({ sender }) => sender.sourceTopic),
          asked.map(({ listenerName }) => listenerName),
        ],
      },
    );
    return rows.map(({ connection_key, owner }) => ({ connectionKey: connection_key, owner }));
  });
  const topicKey = gathered(async (topics: readonly string[]) => {
    const which = topics.length === 1 ? `the key of the topic "${topics[0]}"` : `the keys of ${topics.length} topics`;
    const statement = { name: "hawser.keys_of_topics", text: sql.keysOfTopics, values: [topics] };
    return (await database.query<Pick<TopicKeyRow, "k">>(`read ${which}`, statement)).map(({ k }) => k);
  });
  return {
    /**
     * The key of the channel from a sender to a listener, made on first use, and the channel's present owner. Here and for
     * topics, all that are asked for at the same time are one statement.
     */
    connectionKey: (sender: Sender, listenerName: string): Promise<{ connectionKey: number; owner: string }> =>
      channelKey({ sender, listenerName }),
    /** The key of a topic, made on first use. */
    topicKey,
    /** The topic of a key; undefined if there is none. */
    async topicOfKey(topicKey: number): Promise<string | undefined> {
      const statement = { name: "hawser.topic_of_key", text: sql.topicOfKey, values: [topicKey] };
      const [row] = await database.query<Pick<TopicKeyRow, "topic">>(`read the topic of key ${topicKey}`, statement);
      return row?.topic;
    },
    /** The channels that a listener owns, in key order. */
    async channelsOwnedBy(listenerName: string): Promise<Channel[]> {
      const statement = { text: sql.owned, values: [listenerName] };
      return (await database.query<ChannelRow>(`read the channels of "${listenerName}"`, statement)).map(channelOf);
    },
    /**
     * The keys of those of its channels in which messages are stored, in key order; and of a member of a group the topics with
     * messages that it may claim.
     */
    async channelsWithMessages(listenerName: string): Promise<{ connectionKeys: number[]; topics: string[] }> {
      const caller = database.caller(`look for stored messages of "${listenerName}"`);
      const rows = await storeFunctions(caller).channelsWithMessages({ listenerName });
      return {
        connectionKeys: rows.flatMap(({ connectionKey, topic }) => (topic === null ? connectionKey : [])),
        topics: rows.flatMap(({ topic }) => topic ?? []),
      };
    },
    /** One channel; undefined if there is none. */
    async channel(connectionKey: number): Promise<Channel | undefined> {
      const statement = { name: "hawser.channel", text: sql.channel, values: [connectionKey] };
      const [row] = await database.query<ChannelRow>(`read channel ${connectionKey}`, statement);
      return row === undefined ? undefined : channelOf(row);
    },
    /** Reads the channels with these keys that the listener owns, in key order. */
    async channelsAmong(connectionKeys: readonly number[], listenerName: string): Promise<Channel[]> {
      const statement = { name: "hawser.owned_channels", text: sql.ownedOf, values: [connectionKeys, listenerName] };
      const action = `read ${connectionKeys.length} announced channels`;
      return (await database.query<ChannelRow>(action, statement)).map(channelOf);
    },
    /** The epoch of a name; undefined if it was never taken. */
    async peerEpoch(name: string): Promise<number | undefined> {
      const statement = { name: "hawser.peer_epoch", text: sql.peerEpoch, values: [name] };
      const [row] = await database.query<Pick<PeerNameRow, "epoch">>(`read the epoch of "${name}"`, statement);
      return row === undefined ? undefined : Number(row.epoch);
    },
    /** The mesh secrets, newest first: that is the one to dial with; a listener takes any of them. */
    async secrets(): Promise<Uint8Array[]> {
      const rows = await database.query<Pick<MeshSecretRow, "secret">>("read the mesh secrets", { text: sql.secrets });
      return rows.map((row) => row.secret);
    },
  };
}

function channelOf(row: ChannelRow): Channel {
  return {
    connectionKey: row.connection_key,
    composite: row.composite,
    senderName: row.sender_name,
    sourceTopic: row.source_topic,
    owner: row.listener,
    cursor: positionOf(row),
    done: row.done_epochs.map((epoch, index) => ({ epoch: Number(epoch), number: Number(row.done_numbers[index]) })),
    parked: parkedOf(row),
    attempts: row.attempts ?? 0,
  };
}

function parkedOf({ parked, parked_headers, parked_payloads }: ParkedColumns): ParkedMessage[] {
  return parked.map((message, index) => {
    const headers = parked_headers[index] ?? null;
    return {
      ...message,
      headers: headers === null ? [] : (JSON.parse(Buffer.from(headers).toString()) as ParkedMessage["headers"]),
      payload: parked_payloads[index]!,
    };
  });
}

function positionOf(row: { readonly epoch: bigint | null; readonly v: bigint | null }): Position {
  return { epoch: Number(row.epoch ?? 0), number: Number(row.v ?? 0) };
}

/** The present listener of a channel, and where it can be dialled: what a sender asks before it dials again. */
export interface ChannelOwner {
  readonly name: string;
  /** Where it registered last, host:port; undefined while it is not in the directory. */
  readonly addr: string | undefined;
  /** The greatest payload that it takes, in bytes; undefined while it is not in the directory. */
  readonly maxMessageBytes: number | undefined;
}

const listed = columnsOf<TopicAddrRow>()("addr", "max_message_bytes");
type OwnerRow = Pick<ConnKeyMapRow, "connection_key"> & { name: string } & {
  [Name in keyof typeof listed.row]: (typeof listed.row)[Name] | null;
};

const ownerSql = {
  owners: `
    SELECT m.connection_key, coalesce(m.owner, m.listener_name) AS name, ${listed.sql("a")}
      FROM ${tables.connKeyMap} AS m
      LEFT JOIN LATERAL (
        SELECT ${listed.sql()} FROM ${tables.topicAddr} AS b
         WHERE b.client_name = coalesce(m.owner, m.listener_name)
         ORDER BY b.epoch DESC, b.registered_at DESC LIMIT 1
      ) AS a ON true
     WHERE m.connection_key = ANY ($1::integer[])`,
} as const;

/** The owners of a database's channels. */
export function channelOwners(database: Database, clock: Clock) {
  // Senders whose listeners are away ask again and again, each for its own channel.
  const channelOwner = gathered(
    async (connectionKeys: readonly number[]) => {
      const statement = { name: "hawser.channel_owners", text: ownerSql.owners, values: [connectionKeys] };
      const action = `read the owners of ${connectionKeys.length} channels`;
      const rows = await database.query<OwnerRow>(action, statement);
      const owners = new Map(rows.map((row) => [row.connection_key, ownerOf(row)]));
      return connectionKeys.map((key) => owners.get(key));
    },
    { clock, ms: storeConstants.ownerLookMs },
  );
  return {
    /** The channel's owner; undefined if there is no such channel. All that are asked for within a while are one statement. */
    channelOwner,
  };
}

function ownerOf({ name, addr, max_message_bytes }: OwnerRow): ChannelOwner {
  const maxMessageBytes = max_message_bytes === null ? undefined : Number(max_message_bytes);
  return { name, addr: addr ?? undefined, maxMessageBytes };
}
