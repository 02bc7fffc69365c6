/**
 * Hands the channels of a listener that will not return over to another listener. If the new owner does not serve a topic
 * of a channel, the channel goes on to a listener that does. The id, name, cursor and stored messages of a channel stay; only its owner changes.
 * Senders look up the owner when they dial.
 */

import { type ChannelRow, storeFunctions, tables } from "../../../generated/ts/rows/peer.js";
import { queueFunctions } from "../../../generated/ts/rows/queue.js";
import { columnChecks } from "../../../generated/ts/rules/peer/catalog.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError, refuse } from "../../foundation/errors/index.js";
import {
  announce,
  type Database,
  isWaitingSql,
  nameHeldSql,
  ownerSql,
  unlessRunning,
  type WriterName,
} from "../../jobs-and-peers/store/index.js";
import { waitingMessagesSql } from "./pending.js";

/** Channels to hand over, and their new owner. */
export interface ReassignOptions {
  /** Current owner. */
  readonly from: string;
  /** New owner. It need not run. */
  readonly to: string;
  /**
   * Ids of the channels to hand over, as far as `from` owns them, each with its retry channel. Default: all its
   * channels.
   */
  readonly channelIds?: readonly number[] | undefined;
  /** Hands over even if `from` is running: it then ends with `name_lost`. Default false. */
  readonly force?: boolean | undefined;
}

/** Channel that was handed over. */
export interface HandedOverChannel {
  readonly channelId: number;
  /** Name as it was made: `sender:source_topic:listener`. */
  readonly channelName: string;
  /** Number of stored messages that the old listener had not handled. */
  readonly stored: number;
}

/** Channel that can be handed over. */
export interface OwnedChannel extends HandedOverChannel {
  /** Original listener. */
  readonly madeFor: string;
  /** Topics of the stored messages. */
  readonly topics: readonly string[];
}

/** Number of enqueued messages that one statement hands over. */
const queuedPerCall = 10_000;

/** State of a listener. */
export interface ListenerState {
  /** True if a process owns its name. */
  readonly running: boolean;
  /** True if a peer of this name was started at least once. */
  readonly seen: boolean;
  /** Topics of the listener in the directory. */
  readonly topics: readonly string[];
}

const sql = {
  owned: `
    SELECT m.channel_id AS "channelId", m.channel_name AS "channelName", coalesce(b.listener_name, m.listener_name) AS "madeFor",
           coalesce(w.stored, 0)::float8 AS stored, coalesce(w.topics, '{}') AS topics
      FROM ${tables.channel} AS m
      LEFT JOIN ${tables.channel} AS b ON b.channel_id = m.retry_of
      LEFT JOIN LATERAL (
        SELECT sum(k.count) AS stored, array_agg(coalesce(t.topic, 'topic id ' || k.topic_id) ORDER BY 1) AS topics
          FROM (
            SELECT a.topic_id, sum(a.count) AS count FROM (
            SELECT s.topic_id, ${waitingMessagesSql} AS count
              FROM ${tables.storedMessage} AS s
              LEFT JOIN ${tables.cursor} AS c USING (channel_id)
             WHERE s.channel_id = m.channel_id
               AND ${isWaitingSql}
             UNION ALL
            SELECT p.topic_id, 1 FROM ${tables.parkedMessage} AS p WHERE p.channel_id = m.channel_id
            ) AS a
             GROUP BY a.topic_id
          ) AS k
          LEFT JOIN ${tables.topic} AS t ON t.id = k.topic_id
      ) AS w ON true
     WHERE ${ownerSql} = $1
     ORDER BY m.channel_id`,
  toGiveBack: `
    SELECT m.channel_id
      FROM ${tables.channel} AS m
      LEFT JOIN ${tables.channel} AS b ON b.channel_id = m.retry_of
      JOIN ${tables.peerName} AS p ON p.name = coalesce(b.listener_name, m.listener_name)
     WHERE ${ownerSql} = $1 AND p.name <> $1 AND p.group_name IS NOT NULL
       AND EXISTS (SELECT FROM ${tables.listener} AS t WHERE t.listener_name = p.name AND t.epoch = p.epoch)
       AND ${nameHeldSql("p.name")}
       AND NOT EXISTS (
         SELECT FROM ${tables.storedMessage} AS s
           LEFT JOIN ${tables.cursor} AS c USING (channel_id)
           LEFT JOIN ${tables.topic} AS k ON k.id = s.topic_id
          WHERE s.channel_id = m.channel_id AND ${isWaitingSql}
            AND NOT EXISTS (SELECT FROM ${tables.listener} AS t WHERE t.listener_name = p.name AND t.topic = k.topic)
       )
       AND NOT EXISTS (
         SELECT FROM ${tables.parkedMessage} AS s
           LEFT JOIN ${tables.topic} AS k ON k.id = s.topic_id
          WHERE s.channel_id = m.channel_id
            AND NOT EXISTS (SELECT FROM ${tables.listener} AS t WHERE t.listener_name = p.name AND t.topic = k.topic)
       )
     ORDER BY m.channel_id`,
  enqueued: `SELECT DISTINCT q.topic COLLATE "C" AS topic FROM hawser.queue_places('{}') AS q WHERE q.recipient IN ($1, '${queueConstants.priorityMark}' || $1) ORDER BY 1`,
  state: `
    SELECT ${nameHeldSql("$1::text")} AS running,
           EXISTS (SELECT FROM ${tables.peerName} WHERE name = $1) AS seen,
           ARRAY(SELECT topic FROM ${tables.listener} WHERE listener_name = $1 ORDER BY topic COLLATE "C") AS topics`,
} as const;

/** Hand-over functions of a database. */
export function reassign(database: Database) {
  /**
   * Notifies the new owners and the senders. A sender looks up the owner when it is notified of one of its channels.
   */
  const notify = (
    channels: readonly (Pick<HandedOverChannel, "channelId" | "channelName"> & { readonly listener: string })[],
  ): Promise<void> =>
    announce(
      database,
      channels.flatMap(({ channelId, channelName, listener }) =>
        [listener, channelName.split(":")[0]!].map((name) => [name, channelId] as const),
      ),
    );
  return {
    /**
     * Hands channels over in one transaction. It raises the epoch of the old listener, waits for its running writes and
     * thereby excludes all later ones. The old listener leaves the directory; if only some of its channels were named,
     * its durable rows and those of an operator stay. A running new owner is notified and reads the stored messages at
     * once.
     *
     * @returns the channels that were handed over; empty if `from` owns none of them (any more)
     * @throws HawserError `name_in_use` if `from` is running, `invalid_argument` for an invalid name, `store_failed`;
     * its `outcome` is `unknown` if the hand-over may have been committed. The same call can be repeated
     */
    async reassign({ from, to, channelIds, force = false }: ReassignOptions): Promise<HandedOverChannel[]> {
      checkNewOwner(to);
      refuseReserved("old", from);
      if (from === to)
        throw new HawserError("invalid_argument", `"${from}" has its channels already; name another peer`);
      const caller = database.caller(`hand the channels of "${from}" over to "${to}"`);
      const all = channelIds === undefined;
      // Committed before the wait at the fence. Otherwise writes that start in between would prolong the wait.
      if (all && force) await storeFunctions(caller).endOwnership({ name: from, force });
      const rows = await unlessRunning(
        from,
        () => storeFunctions(caller).reassignChannels({ from, to, force, all, channelIds: channelIds ?? [] }),
        "stop it first, or force it: then it ends with name_lost",
      );
      const channels = rows.map(({ channelId, channelName, stored }) => {
        return { channelId, channelName, stored: Number(stored) };
      });
      await notify(channels.map((channel) => ({ ...channel, listener: to })));
      return channels;
    },
    /**
     * Hands over the messages that are enqueued for one listener and for no other, and their dead letters, in parts. A
     * handler of the old listener that is running finds its message gone.
     *
     * @returns number of messages
     * @throws HawserError `store_failed`. The same call can be repeated
     */
    async reassignEnqueued(from: string, to: string): Promise<number> {
      const functions = queueFunctions(database.caller(`hand messages enqueued for "${from}" over to "${to}"`));
      let enqueued = 0;
      for (;;) {
        const moved = Number((await functions.reassignQueued({ from, to, most: queuedPerCall })).moved);
        enqueued += moved;
        if (moved < queuedPerCall) return enqueued;
      }
    },
    /**
     * Channels that a group member owns although they were made for other members, if those run again and serve the
     * topics of all stored messages. Includes retry channels.
     */
    async channelsToGiveBack(name: string): Promise<number[]> {
      const action = `read the channels that "${name}" has taken over`;
      const statement = { name: "hawser.channels_to_give_back", text: sql.toGiveBack, values: [name] };
      const rows = await database.query<Pick<ChannelRow, "channel_id">>(action, statement);
      return rows.map((row) => row.channel_id);
    },
    /**
     * Finds a listener for a channel whose owner does not serve a topic. `newOwner` is undefined if there is none, or if
     * the channel was made for its owner; `owned` is false if another listener owns the channel.
     *
     * @throws HawserError `store_failed`
     */
    async newOwnerOf(
      owner: string,
      channelId: number,
      topicId: number,
    ): Promise<{ owned: boolean; newOwner: string | undefined }> {
      const caller = database.caller(`find another listener for a topic of channel ${channelId}`);
      const { owned, heir } = await storeFunctions(caller).heirOfChannel({ name: owner, channelId, topicId });
      return { owned, newOwner: heir ?? undefined };
    },
    /**
     * Changes the owner of channels that the caller has taken over, in one transaction, and notifies listeners and
     * senders. The caller must have no pending work in these channels.
     *
     * @param channels topic ids by channel id. A channel with a topic id goes to its new owner ({@link newOwnerOf}), if there
     * still is one; without a topic id, it returns to the group member that it was made for, if that was started again
     * @returns ids of the channels that have a new owner
     * @throws HawserError `fenced`; `store_failed`: the owners may have changed nevertheless
     */
    async giveBack({ name, epoch }: WriterName, channels: ReadonlyMap<number, number | undefined>): Promise<number[]> {
      const action = `give ${channels.size} channels back that "${name}" has taken over`;
      const rows = await storeFunctions(database.caller(action)).giveBackChannels({
        name,
        epoch: BigInt(epoch),
        channelIds: [...channels.keys()],
        topicIds: [...channels.values()].map((topicId = 0) => topicId),
      });
      const back: { channelId: number; channelName: string; listener: string }[] = [];
      for (const { held, channelId, channelName, listener } of rows) {
        if (!held) throw new HawserError("fenced", `could not ${action}: another process has taken the name`);
        if (channelId !== null && channelName !== null && listener !== null) {
          back.push({ channelId, channelName, listener });
        }
      }
      await notify(back);
      return back.map(({ channelId }) => channelId);
    },
    /** Channels that a listener owns, by id, with their stored messages. Includes retry channels. */
    async ownedChannels(listenerName: string): Promise<OwnedChannel[]> {
      return database.query(`read the channels of "${listenerName}"`, { text: sql.owned, values: [listenerName] });
    },
    /** Topics of the messages that are enqueued for a listener, and for no other. */
    async enqueuedTopics(listenerName: string): Promise<string[]> {
      const rows = await database.query<{ topic: string }>(`read messages enqueued for "${listenerName}"`, {
        text: sql.enqueued,
        values: [`@${listenerName}`],
      });
      return rows.map(({ topic }) => topic);
    },
    /** Reads the state of a listener. */
    async listenerState(name: string): Promise<ListenerState> {
      const [state] = await database.query<ListenerState>(`read the state of "${name}"`, {
        text: sql.state,
        values: [name],
      });
      if (state === undefined)
        throw new HawserError("internal", `could not read the state of "${name}": no row was returned`);
      return state;
    },
  };
}

function checkNewOwner(name: string): void {
  refuse(columnChecks.peers.name(name), "the new listener");
  refuseReserved("new", name);
}

/** Refuses reserved names, which are no listeners: what waits under one belongs to the members of a group. */
function refuseReserved(which: "old" | "new", name: string): void {
  const prefix = protocolConstants.reservedTopicPrefix;
  if (name.startsWith(prefix))
    throw new HawserError(
      "invalid_argument",
      `the ${which} listener "${name}" begins with ${prefix}, which is reserved`,
    );
}
