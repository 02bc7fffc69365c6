/**
 * Parked messages: messages with a long retry delay, and the messages of their keys behind them. The cursor passes
 * them. The next owner of the channel reads them together with its cursor.
 */
import { storeFunctions } from "../../../generated/ts/rows/peer.js";
import type { ParkedMessage } from "../channel/index.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import type { WriterName } from "./transaction.js";

/** Parking functions of a database. Both throw HawserError `store_failed`. */
export function parkedMessages(database: Database) {
  return {
    /**
     * Parks messages of one channel, each at most once, with their marks, unless they are completed. For messages that
     * are already parked, updates the attempts and the time. May be repeated.
     *
     * @returns `fenced` or `notOwned` if nothing was written because another process owns the name, or another listener
     * the channel
     */
    async parkMessages(
      { name, epoch }: WriterName,
      channelId: number,
      messages: readonly ParkedMessage[],
    ): Promise<"parked" | "fenced" | "notOwned"> {
      const now = performance.now();
      const headers = messages.map(({ message }) =>
        Buffer.from(message.headers ? JSON.stringify(message.headers) : ""),
      );
      const action = `park ${messages.length} messages of channel ${channelId}`;
      const { held, owned } = await storeFunctions(database.caller(action)).parkMessages({
        name,
        epoch: BigInt(epoch),
        channelId,
        messages: JSON.stringify(
          messages.map(({ message: { position, topicId, encoding, payload }, attempts, dueAt }, index) => ({
            epoch: position.epoch,
            number: position.number,
            topic_id: topicId,
            compression: encoding?.compression ?? 0,
            uncompressed_bytes: encoding?.uncompressedBytes ?? payload.length,
            attempts,
            delay_ms: Math.max(0, Math.round(dueAt - now)),
            header_bytes: headers[index]!.length,
            payload_bytes: payload.length,
          })),
        ),
        payloads: Buffer.concat(messages.flatMap(({ message }, index) => [headers[index]!, message.payload])),
      });
      if (!held) return "fenced";
      return owned ? "parked" : "notOwned";
    },
    /** Counts one more start of a parked message. @returns number of starts; 0 if the message is not parked */
    async countParked(
      { name, epoch }: WriterName,
      channelId: number,
      { epoch: messageEpoch, number }: Position,
    ): Promise<number | "fenced"> {
      const caller = storeFunctions(
        database.caller(`count a start of parked message ${number} of channel ${channelId}`),
      );
      const { held, attempts } = await caller.countParked({
        name,
        epoch: BigInt(epoch),
        channelId,
        messageEpoch: BigInt(messageEpoch),
        number: BigInt(number),
      });
      return held ? (attempts ?? 0) : "fenced";
    },
  };
}
