/**
 * Releases what is stored for a listener that will not return, or is away: it becomes rows of the queue, for another listener or for any of its
 * topics. A channel never changes hands; what its sender stores in it later is released in turn.
 */

import { storeFunctions, tables } from "../../../generated/ts/rows/peer.js";
import { queueFunctions } from "../../../generated/ts/rows/queue.js";
import { columnChecks } from "../../../generated/ts/rules/peer/catalog.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { asHawserError, HawserError, refuse } from "../../foundation/errors/index.js";
import type { StoredRow } from "../../jobs-and-peers/channel/index.js";
import {
  cursorJoin,
  type Database,
  isWaitingSql,
  type LeftMessage,
  leftArguments,
  leftMessage,
  nameHeldSql,
  type Position,
  storedMessages,
  unlessRunning,
} from "../../jobs-and-peers/store/index.js";
import { decompress } from "../../jobs-and-peers/wire/index.js";
import { waitingMessagesSql } from "./pending.js";

/** Stored messages to release, and who gets them. */
export interface ReassignOptions {
  /** Listener that is away. */
  readonly from: string;
  /** The only listener that gets the messages; it need not run. Default: any listener of their topics. */
  readonly to?: string | undefined;
  /** Ids of the channels, as far as they are those of `from`. Default: all, and then `from` leaves the directory for good. */
  readonly channelIds?: readonly number[] | undefined;
  /** Releases even if `from` is running: it then ends with `name_lost`. Default false. */
  readonly force?: boolean | undefined;
}

/** Channel whose stored messages were released. */
export interface ReleasedChannel {
  readonly channelId: number;
  /** Its name: `sender:source_topic:listener`. */
  readonly channelName: string;
  /** Number of its messages. */
  readonly stored: number;
}

/** Channel of a listener. */
export interface ListenedChannel extends ReleasedChannel {
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
  channels: `
    SELECT m.channel_id AS "channelId", m.channel_name AS "channelName",
           coalesce(w.stored, 0)::float8 AS stored, coalesce(w.topics, '{}') AS topics
      FROM ${tables.channel} AS m
      ${cursorJoin}
      LEFT JOIN LATERAL (
        SELECT sum(k.count) AS stored, array_agg(coalesce(t.topic, 'topic id ' || k.topic_id) ORDER BY 1) AS topics
          FROM (
            SELECT s.topic_id, sum(${waitingMessagesSql}) AS count
              FROM ${tables.storedMessage} AS s
             WHERE s.channel_id = m.channel_id AND ${isWaitingSql}
             GROUP BY s.topic_id
          ) AS k
          LEFT JOIN ${tables.topic} AS t ON t.id = k.topic_id
      ) AS w ON true
     WHERE m.listener_name = $1
     ORDER BY m.channel_id`,
  enqueued: `SELECT DISTINCT q.topic COLLATE "C" AS topic FROM hawser.queue_places('{}') AS q WHERE q.recipient IN ($1, '${queueConstants.priorityMark}' || $1) ORDER BY 1`,
  state: `
    SELECT ${nameHeldSql("$1::text")} AS running,
           EXISTS (SELECT FROM ${tables.peerName} WHERE name = $1) AS seen,
           ARRAY(SELECT topic FROM ${tables.listener} WHERE listener_name = $1 ORDER BY topic COLLATE "C") AS topics`,
} as const;

/** Functions of a database that release messages. */
export function reassign(database: Database) {
  const { drain } = storedMessages(database);
  const channelsOf = (listenerName: string): Promise<ListenedChannel[]> =>
    database.query(`read the channels of "${listenerName}"`, { text: sql.channels, values: [listenerName] });

  return {
    /**
     * Releases the stored messages of a listener, in transactions of a page of a channel each. The first one raises the epoch of the listener,
     * waits for its running writes and thereby excludes all later ones, and takes it out of the directory; if only some of its channels were
     * named, its durable rows and those of an operator stay.
     *
     * @returns the channels of which something was released
     * @throws HawserError `name_in_use` if `from` is running, `invalid_argument` for an invalid name, `store_failed`;
     * its `outcome` is `unknown` if a part may have been released. The same call can be repeated
     */
    async reassign({ from, to, channelIds, force = false }: ReassignOptions): Promise<ReleasedChannel[]> {
      if (to !== undefined) checkNewListener(to);
      refuseReserved("old", from);
      if (from === to)
        throw new HawserError("invalid_argument", `"${from}" has its messages already; name another peer`);
      const caller = storeFunctions(database.caller(`release the stored messages of "${from}"`));
      const forGood = channelIds === undefined;
      // Committed before the wait at the fence. Otherwise writes that start in between would prolong the wait.
      if (forGood && force) await caller.endOwnership({ name: from, force });
      const release = async (
        channelId?: number,
        after?: Position,
        left: readonly LeftMessage[] = [],
      ): Promise<boolean> => {
        const last = left.at(-1);
        const { released } = await unlessRunning(
          from,
          () =>
            caller.releaseStored({
              ...{ from, to: to ?? null, force, forGood, ...leftArguments(left) },
              channelId: channelId ?? null,
              afterEpoch: after === undefined ? null : BigInt(after.epoch),
              afterNumber: after === undefined ? null : BigInt(after.number),
              cursorEpoch: last === undefined ? null : BigInt(last.epoch),
              cursor: last === undefined ? null : BigInt(last.number),
            }),
          "stop it first, or force it: then it ends with name_lost",
        );
        return released;
      };
      const named = channelIds && new Set(channelIds);
      const waiting = (await channelsOf(from)).filter(
        ({ channelId, stored }) => stored > 0 && named?.has(channelId) !== false,
      );
      if (forGood || waiting.length > 0) await release();
      const released: ReleasedChannel[] = [];
      for (const { channelId, channelName } of waiting) {
        let stored = 0;
        const found = await caller.cursorOf({ channelId });
        let after: Position = { epoch: Number(found.epoch ?? 0), number: Number(found.number ?? 0) };
        for (;;) {
          const { rows, remaining } = await drain(channelId, after);
          const left: LeftMessage[] = [];
          for (const row of rows) left.push(await leftOf({ channelId, channelName }, row, to));
          // Another one has released them, or the server is another one.
          if (left.length === 0 || !(await release(channelId, after, left))) break;
          stored += left.length;
          after = rows.at(-1)!.position;
          if (remaining === 0) break;
        }
        if (stored > 0) released.push({ channelId, channelName, stored });
      }
      return released;
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
    /** Channels of a listener, by id, with their stored messages. */
    channelsOf,
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

/** Stored message as it leaves its channel. One whose payload cannot be uncompressed becomes a dead letter. */
async function leftOf(
  channel: Pick<ReleasedChannel, "channelId" | "channelName">,
  row: StoredRow,
  listener: string | undefined,
): Promise<LeftMessage> {
  const { encoding, payload } = row;
  try {
    const plain =
      encoding === undefined
        ? payload
        : await decompress(
            payload,
            encoding.compression,
            encoding.uncompressedBytes,
            protocolConstants.maxStoredMessageBytes,
          );
    return leftMessage(channel, row, { payload: plain, listener, dead: undefined });
  } catch (error) {
    const { code: errorCode, message: errorMessage } = asHawserError(error);
    // What is wrong with its row says why.
    const dead = row.fault === undefined ? { errorCode, errorMessage } : undefined;
    return leftMessage(channel, row, { payload, listener, dead });
  }
}

function checkNewListener(name: string): void {
  refuse(columnChecks.peers.name(name), "the new listener");
  refuseReserved("new", name);
}

/** Refuses reserved names, which are no listeners. */
function refuseReserved(which: "old" | "new", name: string): void {
  const prefix = protocolConstants.reservedTopicPrefix;
  if (name.startsWith(prefix))
    throw new HawserError(
      "invalid_argument",
      `the ${which} listener "${name}" begins with ${prefix}, which is reserved`,
    );
}
