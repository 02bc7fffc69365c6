/**
 * Messages that wait for a member of a group: members claim them.
 */
import { peerOutboxFunctions } from "../../generated/ts/rows/outbox.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import type { WriterName } from "./transaction.js";

/** The positions of a topic before which nothing waits any more. Undefined: not known. */
export interface ClaimFrom {
  /** Among the messages for any member. */
  readonly any?: Position;
  /** Among the copies of the member's group. */
  readonly ofGroup?: Position;
}

/** What a member asks for. */
export interface ClaimRequest {
  readonly topics: ReadonlyMap<string, ClaimFrom>;
  readonly maxMessages: number;
  /** Of the payloads. One message always fits. */
  readonly maxBytes: number;
}

/** Result of a claim for one topic. */
export interface Claimed {
  /** The member's channel of claimed messages. */
  readonly connectionKey: number;
  /** Another listener has taken the channel over: nothing was claimed. */
  readonly isAway: boolean;
  /** Undefined if nothing was looked for. */
  readonly topic: string | undefined;
  /** They are copies of the member's group. */
  readonly ofGroup: boolean;
  readonly messages: number;
  /** More can be claimed, or may be. If not, others have the keys of all that is left, or nothing is left. */
  readonly hasMore: boolean;
  /** Before it nothing waits any more. */
  readonly from: Position;
  /** The number of the last claimed message, in the member's epoch. */
  readonly lastNumber: number;
}

/** Claims messages of a database. */
export function claims(database: Database) {
  return {
    /**
     * Moves messages that wait into the member's channel of claimed ones.
     *
     * @returns for each topic of which messages wait, and for each of which copies do, what was claimed; `fenced` if another process has the name now
     * @throws HawserError `store_failed`: perhaps messages were claimed all the same
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
        connectionKey: row.connectionKey!,
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
