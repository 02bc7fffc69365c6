/**
 * Who has a channel now, and where it can be dialled: what a sender asks before it dials again.
 */
import { type TopicAddrRow, tables } from "../../generated/ts/rows/peer.js";
import { columnsOf } from "./column-list.js";
import type { Database } from "./database.js";

/** The present listener of a channel. */
export interface ChannelOwner {
  readonly name: string;
  /** Where it registered last, host:port; undefined while it is not in the phone book. */
  readonly addr: string | undefined;
  /** The greatest payload that it takes, in bytes; undefined while it is not in the phone book. */
  readonly maxMessageBytes: number | undefined;
}

/** Looks for the owners of channels. */
export interface ChannelOwners {
  /** The channel's owner; undefined if there is no such channel. */
  channelOwner(connectionKey: number): Promise<ChannelOwner | undefined>;
}

const listed = columnsOf<TopicAddrRow>()("addr", "max_message_bytes");
type OwnerRow = { name: string } & { [Name in keyof typeof listed.row]: (typeof listed.row)[Name] | null };

const sql = {
  owner: `
    SELECT coalesce(m.owner, m.listener_name) AS name, ${listed.sql("a")}
      FROM ${tables.connKeyMap} AS m
      LEFT JOIN LATERAL (
        SELECT ${listed.sql()} FROM ${tables.topicAddr} AS b
         WHERE b.client_name = coalesce(m.owner, m.listener_name)
         ORDER BY b.epoch DESC, b.registered_at DESC LIMIT 1
      ) AS a ON true
     WHERE m.connection_key = $1`,
} as const;

/** The owners of a database's channels. */
export function channelOwners(database: Database): ChannelOwners {
  return {
    async channelOwner(connectionKey) {
      const statement = { name: "hawser.channel_owner", text: sql.owner, values: [connectionKey] };
      const [row] = await database.query<OwnerRow>(`read the owner of channel ${connectionKey}`, statement);
      if (row === undefined) return undefined;
      const maxMessageBytes = row.max_message_bytes === null ? undefined : Number(row.max_message_bytes);
      return { name: row.name, addr: row.addr ?? undefined, maxMessageBytes };
    },
  };
}
