/** Sent messages as rows of the queue, for any listener of their topic. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import type { Database } from "./database.js";
import { type Sender, senderKey } from "./directory.js";

/** Sent message that no listener has yet. */
export interface OverflowMessage {
  readonly topic: string;
  /** Uncompressed payload of at least one byte. Not kept after the call. */
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
}

/** Messages with the same topic and headers are written by one call. */
interface Call {
  readonly topic: string;
  /** Values by name, as `enqueue` takes them. */
  readonly headers: Record<string, string[]>;
  readonly message_id: string | undefined;
}

const enqueueSql = `
  SELECT sum(cardinality(hawser.enqueue_peer(c.topic, p.payloads, c.headers, NULL, c.message_id, NULL, NULL, false, $1, 0)))
    FROM ROWS FROM (jsonb_to_recordset($2) AS (topic text, headers jsonb, message_id text)) WITH ORDINALITY AS c (topic, headers, message_id, call)
    JOIN (
      SELECT l.call, array_agg(substring($5::bytea FROM (l.past - l.bytes + 1)::integer FOR l.bytes) ORDER BY l.nth) AS payloads
        FROM (
          SELECT u.*, sum(u.bytes) OVER (ORDER BY u.nth) AS past
            FROM unnest($3::integer[], $4::integer[]) WITH ORDINALITY AS u (call, bytes, nth)
        ) AS l
       GROUP BY l.call
    ) AS p USING (call)`;

/** Writes sent messages of a database into its queue. */
export function overflow(database: Database) {
  return {
    /**
     * Enqueues messages of a peer in one transaction, each for any listener of its topic. A repeated call writes them
     * again.
     *
     * @throws HawserError `store_failed`; its `outcome` is `unknown` if the messages may have been written, and absent if
     * they certainly were not
     */
    async enqueueSent(sender: Sender, messages: readonly OverflowMessage[]): Promise<void> {
      const calls: Call[] = [];
      const callOf = new Map<string, number>();
      const indices = messages.map(({ topic, headers = [] }) => {
        const given = JSON.stringify([topic, headers]);
        let call = callOf.get(given);
        if (call === undefined) {
          call = calls.push({ topic, ...marksOf(headers) });
          callOf.set(given, call);
        }
        return call;
      });
      const which = messages.length === 1 ? "a message" : `${messages.length} messages`;
      await database.query(`enqueue ${which} of "${sender.name}"`, {
        name: "hawser.enqueue_sent",
        text: enqueueSql,
        values: [
          senderKey(sender),
          JSON.stringify(calls),
          indices,
          messages.map(({ payload }) => payload.length),
          Buffer.concat(messages.map(({ payload }) => payload)),
        ],
      });
    },
  };
}

/** Separates the message id from the other headers. */
function marksOf(pairs: Headers): Omit<Call, "topic"> {
  const headers: Record<string, string[]> = Object.create(null);
  let id: string | undefined;
  for (const [name, value] of pairs) {
    if (name.toLowerCase() === protocolConstants.messageIdHeader) id ??= value;
    else (headers[name] ??= []).push(value);
  }
  return { headers, message_id: id };
}
