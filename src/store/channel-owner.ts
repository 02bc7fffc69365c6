/**
 * Who has a channel now, and where it can be dialled: what a sender asks before it dials again.
 */

import { type ConnKeyMapRow, type TopicAddrRow, tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { Clock } from "../runtime/index.js";
import { columnsOf } from "./column-list.js";
import type { Database } from "./database.js";
import { gathered } from "./gathered.js";

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
  /** The channel's owner; undefined if there is no such channel. All that are asked for within a while are one statement. */
  channelOwner(connectionKey: number): Promise<ChannelOwner | undefined>;
}

const listed = columnsOf<TopicAddrRow>()("addr", "max_message_bytes");
type OwnerRow = Pick<ConnKeyMapRow, "connection_key"> & { name: string } & {
  [Name in keyof typeof listed.row]: (typeof listed.row)[Name] | null;
};

const sql = {
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
export function channelOwners(database: Database, clock: Clock): ChannelOwners {
  // Senders whose listeners are away ask again and again, each for its own channel.
  const channelOwner = gathered(
    async (connectionKeys: readonly number[]) => {
      const statement = { name: "hawser.channel_owners", text: sql.owners, values: [connectionKeys] };
      const action = `read the owners of ${connectionKeys.length} channels`;
      const rows = await database.query<OwnerRow>(action, statement);
      const owners = new Map(rows.map((row) => [row.connection_key, ownerOf(row)]));
      return connectionKeys.map((key) => owners.get(key));
    },
    { clock, ms: storeConstants.ownerLookMs },
  );
  return { channelOwner };
}

function ownerOf({ name, addr, max_message_bytes }: OwnerRow): ChannelOwner {
  const maxMessageBytes = max_message_bytes === null ? undefined : Number(max_message_bytes);
  return { name, addr: addr ?? undefined, maxMessageBytes };
}
