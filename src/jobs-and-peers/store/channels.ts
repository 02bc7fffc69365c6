/**
 * Channels, their ids, owners and cursors, and the ids of topics. An id never changes within a database. A new
 * database session may reach another database (after a failover or a restore), so cached ids are looked up again for
 * each session.
 */
import {
  type ChannelRow,
  type CursorRow,
  type ListenerRow,
  type MeshSecretRow,
  type ParkedMessageRow,
  type PeerNameRow,
  storeFunctions,
  type TopicRow,
  tables,
} from "../../../generated/ts/rows/peer.js";
import type { Clock } from "../../foundation/runtime/index.js";
import type { ParkedMessage } from "../channel/index.js";
import { batched } from "./batched.js";
import { columnsOf } from "./columns.js";
import type { Database } from "./database.js";
import type { Sender } from "./directory.js";
import { checkedHeadersText, messageOf } from "./row-faults.js";

/** Minimum interval between lookups of channel owners, for all channels of a peer together. */
const ownerLookMs = 500;

/**
 * Position of a message in its channel, ordered by epoch, then number. `{ epoch: 0, number: 0 }` precedes all messages.
 */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** Channel as its listener sees it. */
export interface Channel {
  readonly channelId: number;
  /** Name as it was made: `sender:source_topic:listener`. */
  readonly channelName: string;
  readonly senderName: string;
  readonly sourceTopic: string;
  /** Current listener: the original one, or the one to which the channel was handed over. */
  readonly owner: string;
  /** Position up to which the handling of all messages is committed. */
  readonly cursor: Position;
  /** Completed messages beyond the cursor, in order. */
  readonly done: readonly Position[];
  /** Parked messages, in order. */
  readonly parked: readonly ParkedMessage[];
  /** Number of handler starts of the next message after an unclean exit. */
  readonly attempts: number;
}

/** SQL join: parked messages of the channel `m`, as arrays in the columns of `k`. */
const parkedSql = `
  CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object(
             'epoch', k.epoch, 'number', k.number, 'topicId', k.topic_id, 'compression', k.compression,
             'uncompressedBytes', k.uncompressed_bytes, 'attempts', k.attempts,
             'delayMs', greatest(0, extract(epoch FROM k.due_at - clock_timestamp()) * 1000)
           ) ORDER BY k.epoch, k.number), '[]') AS parked,
           coalesce(array_agg(k.headers ORDER BY k.epoch, k.number), '{}') AS parked_headers,
           coalesce(array_agg(k.payload ORDER BY k.epoch, k.number), '{}') AS parked_payloads
      FROM ${tables.parkedMessage} AS k
     WHERE k.channel_id = m.channel_id
  ) AS k`;

/** Columns of {@link parkedSql}. */
interface ParkedColumns {
  readonly parked: readonly (Position & {
    readonly topicId: number;
    /** Compression as in the frame Batch; 0 if uncompressed. */
    readonly compression: number;
    readonly uncompressedBytes: number;
    readonly attempts: number;
    /** Time until the next attempt in ms. */
    readonly delayMs: number;
  })[];
  readonly parked_headers: readonly ParkedMessageRow["headers"][];
  readonly parked_payloads: readonly ParkedMessageRow["payload"][];
}

const map = columnsOf<ChannelRow>()("channel_id", "channel_name", "sender_name", "source_topic");
const cursor = columnsOf<CursorRow>()("epoch", "number", "attempts");
type ChannelStateRow = typeof map.row & { [Name in keyof typeof cursor.row]: (typeof cursor.row)[Name] | null } & {
  listener: string;
  done_epochs: readonly bigint[];
  done_numbers: readonly bigint[];
} & ParkedColumns;

/** SQL join: cursor of the channel `m` as `c`. Its columns are NULL if the channel has none. */
export const cursorJoin = "CROSS JOIN LATERAL hawser.cursor_of(m.channel_id) AS c";

/** SQL expression: listener that owns the channel `m`. */
export const ownerSql = "coalesce(m.owner, m.listener_name)";

/** SQL condition: the stored row `s` is beyond the cursor `c`. Rows up to the cursor are handled, and deleted later. */
export const isWaitingSql = "(s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))";

// Cursor, marks and parked messages are read in one snapshot, because marks are deleted when the cursor passes them.
const channelSql = `SELECT ${map.sql("m")}, ${ownerSql} AS listener, ${cursor.sql("c")}, d.done_epochs, d.done_numbers,
                         k.parked, k.parked_headers, k.parked_payloads
                    FROM ${tables.channel} AS m
                    ${cursorJoin}
                   CROSS JOIN LATERAL (
                     SELECT coalesce(array_agg(n.epoch ORDER BY n.epoch, n.number), '{}') AS done_epochs,
                            coalesce(array_agg(n.number ORDER BY n.epoch, n.number), '{}') AS done_numbers
                       FROM ${tables.mark} AS n
                      WHERE n.channel_id = m.channel_id
                        AND (n.epoch, n.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
                   ) AS d
                   ${parkedSql}`;

const sql = {
  openChannels: `SELECT k.channel_id, k.owner
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS a (sender, topic, listener, nth)
                    CROSS JOIN LATERAL hawser.open_channel(a.sender, a.topic, a.listener) AS k
                    ORDER BY a.nth`,
  idsOfTopics: `SELECT k.id
                   FROM unnest($1::text[]) WITH ORDINALITY AS a (topic, nth)
                  CROSS JOIN LATERAL hawser.id_of_topic(a.topic) AS k
                  ORDER BY a.nth`,
  topicOfId: `SELECT topic FROM ${tables.topic} WHERE id = $1`,
  owned: `${channelSql} WHERE ${ownerSql} = $1 ORDER BY m.channel_id`,
  channel: `${channelSql} WHERE m.channel_id = $1`,
  ownedOf: `${channelSql} WHERE m.channel_id = ANY ($1::integer[]) AND ${ownerSql} = $2 ORDER BY m.channel_id`,
  peerEpoch: `SELECT epoch FROM ${tables.peerName} WHERE name = $1`,
  secrets: `SELECT secret FROM ${tables.meshSecret} ORDER BY id DESC`,
} as const;

/** Channel lookups of a database. */
export function channels(database: Database) {
  const openOne = batched(async (asked: readonly { readonly sender: Sender; readonly listenerName: string }[]) => {
    const [first] = asked;
    const which =
      asked.length === 1
        ? `the id of a channel, from "${first?.sender.name}" to "${first?.listenerName}"`
        : `the ids of ${asked.length} channels`;
    const rows = await database.query<{ channel_id: number; owner: string }>(`read ${which}`, {
      name: "hawser.open_channels",
      text: sql.openChannels,
      values: [
        asked.map(({ sender }) => sender.name),
        asked.map(({ sender }) => sender.sourceTopic),
        asked.map(({ listenerName }) => listenerName),
      ],
    });
    return rows.map(({ channel_id, owner }) => ({ channelId: channel_id, owner }));
  });
  const idOfTopic = batched(async (topics: readonly string[]) => {
    const which = topics.length === 1 ? `the id of the topic "${topics[0]}"` : `the ids of ${topics.length} topics`;
    const statement = { name: "hawser.ids_of_topics", text: sql.idsOfTopics, values: [topics] };
    return (await database.query<Pick<TopicRow, "id">>(`read ${which}`, statement)).map(({ id }) => id);
  });
  return {
    /**
     * Id of the channel from a sender to a listener, created on first use, and its current owner. Concurrent lookups
     * share one statement, here and in {@link idOfTopic}.
     */
    openChannel: (sender: Sender, listenerName: string): Promise<{ channelId: number; owner: string }> =>
      openOne({ sender, listenerName }),
    /** Id of a topic, given on first use. */
    idOfTopic,
    /** Topic of an id; undefined if there is none. */
    async topicOfId(topicId: number): Promise<string | undefined> {
      const statement = { name: "hawser.topic_of_id", text: sql.topicOfId, values: [topicId] };
      const [row] = await database.query<Pick<TopicRow, "topic">>(`read the topic of id ${topicId}`, statement);
      return row?.topic;
    },
    /** Channels that a listener owns, by id. */
    async channelsOwnedBy(listenerName: string): Promise<Channel[]> {
      const statement = { text: sql.owned, values: [listenerName] };
      return (await database.query<ChannelStateRow>(`read the channels of "${listenerName}"`, statement)).map(
        channelOf,
      );
    },
    /** Ids of the listener's channels with stored messages, in order. */
    async channelsWithMessages(listenerName: string): Promise<number[]> {
      const caller = database.caller(`search the stored messages of "${listenerName}"`);
      return (await storeFunctions(caller).channelsWithMessages({ listenerName })).map(({ channelId }) => channelId);
    },
    /** Returns one channel; undefined if there is none. */
    async channel(channelId: number): Promise<Channel | undefined> {
      const statement = { name: "hawser.channel", text: sql.channel, values: [channelId] };
      const [row] = await database.query<ChannelStateRow>(`read channel ${channelId}`, statement);
      return row === undefined ? undefined : channelOf(row);
    },
    /** Returns the given channels that the listener owns, by id. */
    async channelsAmong(channelIds: readonly number[], listenerName: string): Promise<Channel[]> {
      const statement = { name: "hawser.owned_channels", text: sql.ownedOf, values: [channelIds, listenerName] };
      const action = `read ${channelIds.length} announced channels`;
      return (await database.query<ChannelStateRow>(action, statement)).map(channelOf);
    },
    /** Epoch of a name; undefined if it was never taken. */
    async peerEpoch(name: string): Promise<number | undefined> {
      const statement = { name: "hawser.peer_epoch", text: sql.peerEpoch, values: [name] };
      const [row] = await database.query<Pick<PeerNameRow, "epoch">>(`read the epoch of "${name}"`, statement);
      return row === undefined ? undefined : Number(row.epoch);
    },
    /** Mesh secrets, newest first. A sender dials with the newest; a listener accepts any of them. */
    async secrets(): Promise<Uint8Array[]> {
      const rows = await database.query<Pick<MeshSecretRow, "secret">>("read the mesh secrets", { text: sql.secrets });
      return rows.map((row) => row.secret);
    },
  };
}

function channelOf(row: ChannelStateRow): Channel {
  return {
    channelId: row.channel_id,
    channelName: row.channel_name,
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
  const at = performance.now();
  return parked.map(({ epoch, number, topicId, compression, uncompressedBytes, attempts, delayMs }, index) => {
    const encoding = compression === 0 ? undefined : { compression, uncompressedBytes };
    const headers = checkedHeadersText(parked_headers[index] ?? null);
    const message = messageOf({ epoch, number }, topicId, parked_payloads[index]!, encoding, headers);
    return { message, attempts, dueAt: at + delayMs };
  });
}

function positionOf(row: { readonly epoch: bigint | null; readonly number: bigint | null }): Position {
  return { epoch: Number(row.epoch ?? 0), number: Number(row.number ?? 0) };
}

/** Current owner of a channel and its address. A sender reads it before it dials again. */
export interface ChannelOwner {
  readonly name: string;
  /** Last registered address, host:port; undefined while it is not in the directory. */
  readonly addr: string | undefined;
  /** Largest payload in bytes that it accepts; undefined while it is not in the directory. */
  readonly maxMessageBytes: number | undefined;
}

const listed = columnsOf<ListenerRow>()("addr", "max_message_bytes");
type OwnerRow = Pick<ChannelRow, "channel_id"> & { name: string } & {
  [Name in keyof typeof listed.row]: (typeof listed.row)[Name] | null;
};

const ownersSql = `
    SELECT m.channel_id, ${ownerSql} AS name, ${listed.sql("a")}
      FROM ${tables.channel} AS m
      LEFT JOIN LATERAL (
        SELECT ${listed.sql()} FROM ${tables.listener} AS b
         WHERE b.listener_name = ${ownerSql}
         ORDER BY b.epoch DESC, b.registered_at DESC LIMIT 1
      ) AS a ON true
     WHERE m.channel_id = ANY ($1::integer[])`;

/** Owner lookups of a database's channels. */
export function channelOwners(database: Database, clock: Clock) {
  // Senders of absent listeners poll, each for its own channel. Their lookups share statements.
  const channelOwner = batched(
    async (channelIds: readonly number[]) => {
      const statement = { name: "hawser.channel_owners", text: ownersSql, values: [channelIds] };
      const action = `read the owners of ${channelIds.length} channels`;
      const rows = await database.query<OwnerRow>(action, statement);
      const owners = new Map(rows.map((row) => [row.channel_id, ownerOf(row)]));
      return channelIds.map((id) => owners.get(id));
    },
    { clock, ms: ownerLookMs },
  );
  return {
    /**
     * Owner of a channel; undefined if the channel does not exist. Lookups within `ownerLookMs` share one statement.
     */
    channelOwner,
  };
}

function ownerOf({ name, addr, max_message_bytes }: OwnerRow): ChannelOwner {
  const maxMessageBytes = max_message_bytes === null ? undefined : Number(max_message_bytes);
  return { name, addr: addr ?? undefined, maxMessageBytes };
}
