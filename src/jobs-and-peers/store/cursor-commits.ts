/** Commits cursors, and in the same transaction what leaves the channels with them. */

import { type StoreFunctions, storeFunctions } from "../../../generated/ts/rows/peer.js";
import { type Columns, sqlstateOf, untranslatable } from "../../foundation/postgres/index.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import { escaped, type LeftMessage, laneOf, leftArguments } from "./leaving.js";
import type { QueuePlace } from "./queued-message.js";
import type { WriterName } from "./transaction.js";

/** New cursor of a channel, and the messages that leave the channel with it, in order. The cursor may be unchanged. */
export interface CursorCommit extends Position {
  readonly channelId: number;
  readonly left?: readonly LeftMessage[];
}

/** Result of a batch of commits. */
export interface CommittedCursors {
  /** Channels whose cursor is now at or beyond the new position, moved by this call or an earlier one. */
  readonly committed: readonly number[];
  /** Channels of another listener. Nothing was written for them. */
  readonly notOwned: readonly number[];
  /** Roles and ranks of the rows of messages with a worker. */
  readonly rows: ReadonlyMap<LeftMessage, Pick<QueuePlace, "role" | "rank">>;
}

/** Answer of the store about lanes of a channel. */
export interface LanesLeft {
  /** True if the queue has rows of the channel. */
  readonly hasRows: boolean;
  /** Keys of the lanes of which it has some. */
  readonly left: ReadonlySet<string | undefined>;
}

/** Cursor writes of a database. */
export function cursorCommits(database: Database) {
  const functions = storeFunctions(database.frequentCaller("commit cursors", committedRow));
  return {
    /**
     * Moves cursors forward, each channel at most once, and deletes the stored rows at or below them, in one transaction. A message that leaves
     * is written only if the cursor was before it, so that a call with an unknown outcome can be repeated.
     *
     * @returns `fenced` if another process owns the name; nothing was written then
     * @throws HawserError `store_failed`
     */
    commitCursors: (lease: WriterName, commits: readonly CursorCommit[]) => commitCursors(functions, lease, commits),
    /** Deletes a channel's stored rows at or below its committed cursor. */
    async deleteRowsUpTo(
      lease: WriterName,
      channelId: number,
      { epoch, number }: Position,
    ): Promise<"deleted" | "fenced"> {
      // A commit that does not move the cursor: it deletes under the same conditions.
      const result = await commitCursors(functions, lease, [{ channelId, epoch, number }]);
      return result === "fenced" ? "fenced" : "deleted";
    },
    /**
     * Reads of which lanes of a channel the queue has rows, by their keys. @throws HawserError `store_failed`
     *
     * @param topics topics whose rows count
     * @returns `fenced` if another process owns the name
     */
    async lanesLeft(
      { name, epoch }: WriterName,
      channelId: number,
      keys: readonly (string | undefined)[],
      topics: readonly string[],
    ): Promise<LanesLeft | "fenced"> {
      const caller = storeFunctions(database.caller(`read which messages of channel ${channelId} are in the queue`));
      const lanes = new Map(keys.map((key) => [laneOf(key), key]));
      const given = { name, epoch: BigInt(epoch), channelId, lanes: [...lanes.keys()], topics: [...topics] };
      const found = await caller.lanesLeft(given);
      if (!found.held) return "fenced";
      const left = new Set((found.lanes ?? []).map((lane) => lanes.get(lane)));
      return { hasRows: found.hasRows === true, left };
    },
  };
}

/** Cursor writes of a database. */
export type CursorCommits = ReturnType<typeof cursorCommits>;

/**
 * Commits cursors. A text that the database encoding cannot represent must not block the cursors of all channels, so
 * the commit is repeated with escaped texts.
 */
async function commitCursors(
  functions: StoreFunctions,
  lease: WriterName,
  commits: readonly CursorCommit[],
): Promise<CommittedCursors | "fenced"> {
  const left = commits.flatMap((commit) => commit.left ?? []);
  const commit = (text?: (plain: string) => string) =>
    functions.commitCursors({
      name: lease.name,
      epoch: BigInt(lease.epoch),
      channelIds: commits.map(({ channelId }) => channelId),
      cursorEpochs: commits.map(({ epoch }) => BigInt(epoch)),
      cursors: commits.map(({ number }) => BigInt(number)),
      ...leftArguments(left, text),
    });
  const rows = await commit().catch((error) => {
    if (left.length === 0 || sqlstateOf(error) !== untranslatable) throw error;
    return commit(escaped);
  });
  if (rows[0]?.held === false) return "fenced";
  const committed: number[] = [];
  const notOwned: number[] = [];
  for (const { channelId, moved } of rows) (moved === null ? notOwned : committed).push(channelId as number);
  const ofWorkers = new Map<LeftMessage, Pick<QueuePlace, "role" | "rank">>();
  const { ranks = null, role = null } = rows[0] ?? {};
  if (ranks !== null && role !== null) {
    for (const [index, rank] of ranks.split(",").entries())
      if (rank !== "0") ofWorkers.set(left[index]!, { role, rank: BigInt(rank) });
  }
  return { committed, notOwned, rows: ofWorkers };
}

/** Converts a row of `hawser.commit_cursors`, as the driver would. */
function committedRow([held, channelId, moved, ranks, role]: Columns): object {
  return {
    held: held === "t",
    channel_id: Number(channelId),
    moved: moved === null ? null : moved === "t",
    ranks,
    role,
  };
}
