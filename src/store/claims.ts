/** Group members claim messages that wait for any member of their group or topic. */
import { peerOutboxFunctions } from "../../generated/ts/rows/outbox.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import type { WriterName } from "./transaction.js";

/** Positions of a topic before which no message waits any more; undefined if unknown. */
export interface ClaimFrom {
  /** Position among the messages for any member. */
  readonly any?: Position;
  /** Position among the copies of the member's group. */
  readonly ofGroup?: Position;
}

/** Topics and limits of one claim. */
export interface ClaimRequest {
  readonly topics: ReadonlyMap<string, ClaimFrom>;
  readonly maxMessages: number;
  /** Maximum payload bytes. A single message always fits. */
  readonly maxBytes: number;
}

/** Result of a claim for one topic. */
export interface Claimed {
  /** Channel of the member's claimed messages. */
  readonly channelId: number;
  /** True if another listener has taken over the channel, so that nothing was claimed. */
  readonly isAway: boolean;
  /** Undefined if no topic was searched. */
  readonly topic: string | undefined;
  /** True for copies of the member's group. */
  readonly ofGroup: boolean;
  readonly messages: number;
  /**
   * True if more messages may be claimable. If false, none is left, or other members hold the keys of all that are
   * left.
   */
  readonly hasMore: boolean;
  /** Position before which no message waits any more. */
  readonly from: Position;
  /** Number of the last claimed message, in the member's epoch. */
  readonly lastNumber: number;
}

/** Claim functions of a database. */
export function claims(database: Database) {
  return {
    /**
     * Moves waiting messages into the member's channel of claimed messages.
     *
     * @returns one result per topic with waiting messages and per topic with waiting copies; `fenced` if another
     * process owns the name
     * @throws HawserError `store_failed`; messages may have been claimed nevertheless
     */
    async claimMessages(
      lease: WriterName,
      { topics, maxMessages, maxBytes }: ClaimRequest,
    ): Promise<readonly Claimed[] | "fenced"> {
      const places = [...topics].flatMap(([topic, { any, ofGroup }]) => [
        { topic, from: any, ofGroup: false },
        { topic, from: ofGroup, ofGroup: true },
      ]);
      const rows = await peerOutboxFunctions(database.caller(`claim messages for "${lease.name}"`)).claimMessages({
        name: lease.name,
        epoch: BigInt(lease.epoch),
        topics: places.map(({ topic }) => topic),
        fromEpochs: places.map(({ from }) => BigInt(from?.epoch ?? 0)),
        fromNumbers: places.map(({ from }) => BigInt(from?.number ?? 0)),
        ofGroup: places.map(({ ofGroup }) => ofGroup),
        maxMessages,
        maxBytes: BigInt(maxBytes),
      });
      if (rows[0]?.held === false) return "fenced";
      return rows.map((row) => ({
        channelId: row.channelId!,
        isAway: row.isAway === true,
        topic: row.topic ?? undefined,
        ofGroup: row.ofGroup === true,
        messages: row.claimed ?? 0,
        hasMore: row.hasMore === true,
        from: { epoch: Number(row.fromEpoch), number: Number(row.fromNumber) },
        lastNumber: Number(row.lastNumber),
      }));
    },
  };
}
