/** Search for a message by its id: the places in the database where it is, or was. */
import { views } from "../../generated/ts/rows/outbox.js";
import { tables } from "../../generated/ts/rows/peer.js";
import type { Database } from "./database.js";

/** Place of a message in the database. */
export type FoundMessage =
  /** Waits in the outbox for its time. */
  | { readonly place: "scheduled"; readonly id: string; readonly destination: string; readonly at: Date }
  /** Stored for its listener, or handled already and not yet deleted. */
  | {
      readonly place: "stored";
      readonly topic: string;
      readonly listener: string;
      readonly at: Date;
      readonly handled: boolean;
    }
  /** Its channel's cursor has passed its number, and nothing else is known of it: it was handled, or given up. */
  | { readonly place: "passed"; readonly listener: string }
  | {
      readonly place: "dead";
      readonly id: string;
      readonly topic: string;
      readonly errorCode: string;
      readonly at: Date;
    };

/** Place of a message of a peer: its channel's composite, the sender's epoch, and the number. */
const placePattern = /^(.+)\/(\d{1,19})\/(\d{1,19})$/s;

const channel = `${tables.connKeyMap} AS m LEFT JOIN ${tables.connMessNumber} AS c USING (connection_key)`;
const owner = "coalesce(m.owner, m.listener_name)";

const sql = {
  scheduled: `SELECT 'scheduled' AS place, l.id::text AS id, l.destination, l.enqueued_at AS at
                FROM ${views.outboxScheduled} AS l WHERE l.message_id = $1 ORDER BY l.id LIMIT 10`,
  stored: `SELECT 'stored' AS place, coalesce(t.topic, '') AS topic, ${owner} AS listener, s.stored_at AS at,
                  (s.epoch, $3::bigint) <= (coalesce(c.epoch, 0), coalesce(c.v, 0)) AS handled
             FROM ${channel}
             JOIN ${tables.connMessage} AS s ON s.connection_key = m.connection_key AND s.epoch = $2 AND s.number >= $3
                                            AND s.number - s.messages < $3
             LEFT JOIN ${tables.topicKey} AS t ON t.k = s.topic_key
            WHERE m.composite = $1 ORDER BY s.number LIMIT 1`,
  passed: `SELECT 'passed' AS place, ${owner} AS listener FROM ${channel}
            WHERE m.composite = $1 AND ($2::bigint, $3::bigint) <= (c.epoch, c.v)`,
  dead: `SELECT 'dead' AS place, d.id::text AS id, d.topic, d.error_code AS "errorCode", d.created_at AS at
           FROM ${tables.deadLetter} AS d WHERE d.message_id = $1 ORDER BY d.id LIMIT 10`,
  deadOfPeer: `SELECT 'dead' AS place, d.id::text AS id, d.topic, d.error_code AS "errorCode", d.created_at AS at
                 FROM ${tables.deadLetter} AS d
                WHERE d.origin = 'peer' AND d.source = $1 AND d.epoch = $2 AND d.number = $3 ORDER BY d.id LIMIT 10`,
} as const;

/** Steps of the search, in the order of a message's way. Each needs other privileges, so the caller runs them one by one. */
export type FindStep = "scheduled" | "stored" | "dead";

/**
 * Searches for a message in one of its places.
 *
 * @param messageId message id of the sender or enqueuer, or `channel/epoch/number` of a message of a peer, which its
 * handler sees as its id
 * @returns places in which the message is; empty if it is not there
 * @throws HawserError as {@link Database.query}
 */
export async function findMessage(database: Database, messageId: string, step: FindStep): Promise<FoundMessage[]> {
  const read = (text: string, values: readonly unknown[]) =>
    database.query<FoundMessage>("search for a message", { text, values });
  const [, source, epoch, number] = placePattern.exec(messageId) ?? [];
  const values = [source, epoch, number];
  const maximum = 2n ** 63n;
  const isPlace = source !== undefined && BigInt(epoch!) < maximum && BigInt(number!) < maximum;
  switch (step) {
    case "scheduled":
      return read(sql.scheduled, [messageId]);
    case "stored": {
      if (!isPlace) return [];
      const stored = await read(sql.stored, values);
      return stored.length > 0 ? stored : read(sql.passed, values);
    }
    case "dead":
      return [...(await read(sql.dead, [messageId])), ...(isPlace ? await read(sql.deadOfPeer, values) : [])];
  }
}
