/**
 * Channels, their ids and cursors, and the ids of topics. An id never changes within a database. A new
 * database session may reach another database (after a failover or a restore), so cached ids are looked up again for
 * each session.
 */
import {
  type ChannelRow,
  type CursorRow,
  type MeshSecretRow,
  type PeerNameRow,
  storeFunctions,
  type TopicRow,
  tables,
} from "../../../generated/ts/rows/peer.js";
import { batched } from "./batched.js";
import { columnsOf } from "./columns.js";
import type { Database } from "./database.js";
import type { Sender } from "./directory.js";

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
  /** Position up to which the handling of all messages is committed. */
  readonly cursor: Position;
  /** True if the queue may have rows of the channel. */
  readonly hasRows: boolean;
}

const map = columnsOf<ChannelRow>()("channel_id", "channel_name", "sender_name", "source_topic");
const cursor = columnsOf<CursorRow>()("epoch", "number", "has_rows");
type ChannelStateRow = typeof map.row & { [Name in keyof typeof cursor.row]: (typeof cursor.row)[Name] | null };

/** SQL join: cursor of the channel `m` as `c`. Its columns are NULL if the channel has none. */
export const cursorJoin = "CROSS JOIN LATERAL hawser.cursor_of(m.channel_id) AS c";

/** SQL condition: the stored row `s` is beyond the cursor `c`. Rows up to the cursor are handled, and deleted later. */
export const isWaitingSql = "(s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))";

const channelSql = `SELECT ${map.sql("m")}, ${cursor.sql("c")} FROM ${tables.channel} AS m ${cursorJoin}`;

const sql = {
  openChannels: `SELECT k.channel_id
                     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS a (sender, topic, listener, nth)
                    CROSS JOIN LATERAL hawser.open_channel(a.sender, a.topic, a.listener) AS k
                    ORDER BY a.nth`,
  idsOfTopics: `SELECT k.id
                   FROM unnest($1::text[]) WITH ORDINALITY AS a (topic, nth)
                  CROSS JOIN LATERAL hawser.id_of_topic(a.topic) AS k
                  ORDER BY a.nth`,
  topicOfId: `SELECT topic FROM ${tables.topic} WHERE id = $1`,
  owned: `${channelSql} WHERE m.listener_name = $1 ORDER BY m.channel_id`,
  channel: `${channelSql} WHERE m.channel_id = $1`,
  ownedOf: `${channelSql} WHERE m.channel_id = ANY ($1::integer[]) AND m.listener_name = $2 ORDER BY m.channel_id`,
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
    const rows = await database.query<Pick<ChannelRow, "channel_id">>(`read ${which}`, {
      name: "hawser.open_channels",
      text: sql.openChannels,
      values: [
        asked.map(({ sender }) => sender.name),
        asked.map(({ sender }) => sender.sourceTopic),
        asked.map(({ listenerName }) => listenerName),
      ],
    });
    return rows.map(({ channel_id }) => channel_id);
  });
  const idOfTopic = batched(async (topics: readonly string[]) => {
    const which = topics.length === 1 ? `the id of the topic "${topics[0]}"` : `the ids of ${topics.length} topics`;
    const statement = { name: "hawser.ids_of_topics", text: sql.idsOfTopics, values: [topics] };
    return (await database.query<Pick<TopicRow, "id">>(`read ${which}`, statement)).map(({ id }) => id);
  });
  return {
    /**
     * Id of the channel from a sender to a listener, created on first use. Concurrent lookups share one statement, here
     * and in {@link idOfTopic}.
     */
    openChannel: (sender: Sender, listenerName: string): Promise<number> => openOne({ sender, listenerName }),
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
    cursor: positionOf(row),
    hasRows: row.has_rows === true,
  };
}

function positionOf(row: { readonly epoch: bigint | null; readonly number: bigint | null }): Position {
  return { epoch: Number(row.epoch ?? 0), number: Number(row.number ?? 0) };
}
