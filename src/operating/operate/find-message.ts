/** Search for a message by its id: the steps of its way that the database knows. */
import { tables as natsTables } from "../../../generated/ts/rows/nats.js";
import { type OutboxFindResult, outboxFunctions } from "../../../generated/ts/rows/outbox.js";
import { views as peerViews, tables } from "../../../generated/ts/rows/peer.js";
import { type QueueFindResult, queueFunctions, views } from "../../../generated/ts/rows/queue.js";
import { namedRules } from "../../../generated/ts/rules/named.js";
import { checkText } from "../../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { traceConstants } from "../../../generated/ts/settings/queue.js";
import { cursorJoin, type Database } from "../../jobs-and-peers/store/index.js";
import type { HeldBy } from "./outbox-overview.js";

/** Ids by which each step but the first one is searched. */
export interface MessageIds {
  /** Number of the message in the outbox or the queue; undefined if the id that was asked for is no number. */
  readonly number: bigint | undefined;
  /** Id that was asked for, and the message ids of what has that number. */
  readonly ids: readonly string[];
}

/** Message for NATS in the outbox, which keeps it for a while after its relay has passed it. */
export type OutboxMessage = OutboxFindResult & { readonly place: "outbox" };

/** Message in the queue, which has it until it is handled. */
export type QueuedMessageFound = QueueFindResult & { readonly place: "queued" };

/** Message in a channel of a peer, or what is left of it. */
interface InChannel {
  /** `channel/epoch/number`. */
  readonly name: string;
  readonly topic: string;
  readonly listener: string;
  readonly at: Date;
  /** Id of its own, in a header; null: it has none. */
  readonly messageId: string | null;
  readonly traceparent: string | null;
}

/** Place of a message in the database. */
export type FoundMessage =
  /** Enqueued, and not due yet. */
  | {
      readonly place: "scheduled";
      readonly id: string;
      readonly kind: "peer" | "nats" | "held";
      readonly destination: string;
      readonly at: Date;
      readonly dueAt: Date;
      /** As in {@link ScheduledMessage}. */
      readonly heldFor: number;
      readonly waitsFor: readonly HeldBy[] | null;
    }
  | OutboxMessage
  | QueuedMessageFound
  | EndedMessage
  /** Stored for its listener, or passed by the cursor already and not yet deleted. */
  | (InChannel & { readonly place: "stored"; readonly passed: boolean })
  /** Its channel's cursor has passed its number: it was handled, or has left the channel for the queue. */
  | { readonly place: "passed"; readonly listener: string }
  /** Received from NATS, and saved until the leader calls the function. */
  | { readonly place: "saved"; readonly subject: string; readonly function: string; readonly at: Date }
  | {
      readonly place: "dead";
      readonly id: string;
      readonly origin: string;
      readonly topic: string;
      readonly errorCode: string;
      readonly attempts: number;
      readonly at: Date;
      /** Role that enqueued it, that subscribed, or of the listener. */
      readonly role: string;
      /** As in {@link DeadLetterEntry}. */
      readonly worker: string | null;
      readonly messageId: string | null;
      readonly traceparent: string | null;
    };

/** Message that has ended, and of which is kept what became of it. */
export interface EndedMessage {
  readonly place: "ended";
  /** Number that its enqueue returned. */
  readonly id: string;
  readonly state: "done" | "dead" | "cancelled";
  readonly topic: string;
  /** Role that enqueued it. */
  readonly role: string;
  /** Listener that had it last; null: none. */
  readonly listener: string | null;
  readonly attempts: number;
  readonly enqueuedAt: Date | null;
  readonly at: Date;
  /** Duration of the attempt that was done, in ms; null: none was. */
  readonly durationMs: number | null;
  /** Result of the handler, as JSON; null if it returned nothing. */
  readonly result: string | null;
  /** Last progress that its handler reported, as JSON; null if it reported none. */
  readonly progress: string | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly expiresAt: Date;
}

/** Steps of the search, in the order of a message's way. Each needs other privileges, and takes another time. */
export const findSteps = [
  "scheduledNumber",
  "scheduled",
  "outbox",
  "queue",
  "ended",
  "channel",
  "stored",
  "saved",
  "dead",
  "deadByHeader",
] as const;
export type FindStep = (typeof findSteps)[number];

/** Header by which a stream, and who reads it, knows a message. */
const natsMessageId = "Nats-Msg-Id";
/** Maximum number of places of a message that a step of the search for it shows by one id. */
export const foundPlaces = 10;
const maximum = 2n ** 63n;

/** Place of a message of a peer: its channel's name, the sender's epoch, and the number. */
const placePattern = /^(.+)\/(\d{1,19})\/(-?\d{1,19})$/s;

/** SQL expression: the first value of a header in a list of pairs. */
const headerSql = (headers: string, name: string): string =>
  `(SELECT h.pair ->> 1 FROM jsonb_array_elements(CASE jsonb_typeof(${headers}) WHEN 'array' THEN ${headers} END) AS h (pair)
     WHERE h.pair ->> 0 = '${name}' LIMIT 1)`;
/**
 * SQL condition: one of the headers has a name and a value of `given`. `@>` alone is also true of a pair that is turned
 * around, and for the name as an id, of every pair. A subquery instead would keep the scan from running in parallel.
 *
 * @param pairs path of the pairs
 */
const hasPair = (headers: string, given: string, pairs = "$"): string =>
  `jsonb_path_exists(${headers}, 'strict ${pairs}[*] ? (@[0] == $names[*] && @[1] == $ids[*])', ${given}::jsonb, true)`;
const idAndTrace = (headers: string): string =>
  `${headerSql(headers, protocolConstants.messageIdHeader)} AS "messageId", ${headerSql(headers, traceConstants.parentHeader)} AS traceparent`;

const channel = `${tables.channel} AS m ${cursorJoin}`;

/** Columns of {@link InChannel} but `at`. @param row row of the message @param number SQL expression of its number */
const inChannel = (row: string, number: string, headers: string): string =>
  `m.channel_name || '/' || ${row}.epoch || '/' || ${number} AS name, coalesce(t.topic, '') AS topic,
   m.listener_name AS listener, ${idAndTrace(headers)}`;

/** SQL condition: the cursor has passed the message. */
const passed = (row: string, number: string): string =>
  `((${row}.epoch, ${number}) <= (coalesce(c.epoch, 0), coalesce(c.number, 0)))`;

const scheduled = `SELECT 'scheduled' AS place, l.id::text AS id, l.kind, l.destination, l.enqueued_at AS at, l.deliver_at AS "dueAt", l.held_for AS "heldFor", l.waits_for AS "waitsFor"
  FROM ${views.laterMessage} AS l`;

const dead = `SELECT 'dead' AS place, d.id::text AS id, d.origin, d.topic, d.error_code AS "errorCode", d.attempts, d.created_at AS at, d.role, d.worker,
    coalesce(nullif(d.message_id, d.job_id::text), ${headerSql("d.headers", protocolConstants.messageIdHeader)}) AS "messageId",
    ${headerSql("d.headers", traceConstants.parentHeader)} AS traceparent
  FROM ${peerViews.deadLetter} AS d`;

const sql = {
  // Apart from the ids, which have no index.
  scheduledNumber: `${scheduled} WHERE l.id = $1`,
  scheduled: `${scheduled} WHERE l.message_id = ANY ($1) AND l.id IS DISTINCT FROM $2 ORDER BY l.id LIMIT ${foundPlaces}`,
  // A batch has headers for each of its messages.
  inChannel: `SELECT 'stored' AS place, s.stored_at AS at, ${passed("s", "$3::bigint")} AS passed, ${inChannel("s", "$3::bigint", "s.header")}
                FROM ${channel}
                JOIN LATERAL (
                  SELECT f.epoch, f.topic_id, f.stored_at,
                         CASE f.messages WHEN 1 THEN f.headers ELSE f.headers -> ($3 - f.number + f.messages - 1)::integer END AS header
                    FROM ${tables.storedMessage} AS f
                   WHERE f.channel_id = m.channel_id AND f.epoch = $2 AND f.number >= $3 AND f.number - f.messages < $3
                   ORDER BY f.number LIMIT 1
                ) AS s ON true
                LEFT JOIN ${tables.topic} AS t ON t.id = s.topic_id
               WHERE m.channel_name = $1`,
  passed: `SELECT 'passed' AS place, m.listener_name AS listener FROM ${tables.channel} AS m ${cursorJoin}
            WHERE m.channel_name = $1 AND ($2::bigint, $3::bigint) <= (c.epoch, c.number)`,
  stored: `SELECT 'stored' AS place, s.stored_at AS at, ${passed("s", "e.number")} AS passed, ${inChannel("s", "e.number", "e.header")}
             FROM (
               SELECT f.channel_id, f.epoch, f.number - f.messages AS before, f.topic_id, f.stored_at,
                      CASE f.messages WHEN 1 THEN jsonb_build_array(f.headers) ELSE f.headers END AS headers
                 FROM ${tables.storedMessage} AS f
                WHERE (f.headers @> ANY ($1::jsonb[]) AND ${hasPair("f.headers", "$3")}
                       OR f.headers @> ANY ($2::jsonb[]) AND ${hasPair("f.headers", "$3", '$[*] ? (@.type() == "array")')})
                LIMIT ${foundPlaces}
             ) AS s
             JOIN ${channel} ON m.channel_id = s.channel_id
            CROSS JOIN LATERAL (
              SELECT s.before + h.nth AS number, h.header FROM jsonb_array_elements(s.headers) WITH ORDINALITY AS h (header, nth)
               WHERE ${hasPair("h.header", "$3")}
            ) AS e
             LEFT JOIN ${tables.topic} AS t ON t.id = s.topic_id
            ORDER BY s.stored_at, m.channel_name, e.number LIMIT ${foundPlaces}`,
  saved: `SELECT 'saved' AS place, s.subject, h.function_schema || '.' || h.function_name AS function, s.saved_at AS at
            FROM ${natsTables.savedMessage} AS s
            JOIN ${natsTables.natsHandler} AS h ON h.id = s.handler_id
           WHERE s.message_id = ANY ($1) OR EXISTS (SELECT FROM unnest($2::text[]) AS t (header) WHERE strpos(s.headers, t.header) > 0)
           ORDER BY s.id LIMIT ${foundPlaces}`,
  dead: `${dead} WHERE d.message_id = ANY ($1) ORDER BY d.id LIMIT ${foundPlaces}`,
  deadByHeader: `${dead} WHERE d.headers @> ANY ($1::jsonb[]) AND ${hasPair("d.headers", "$3")}
             AND (d.message_id = ANY ($2)) IS NOT TRUE ORDER BY d.id LIMIT ${foundPlaces}`,
} as const;

/** Number of an enqueued message, as `hawser.enqueue` returns it; undefined for another id. */
function numberOf(id: string): bigint | undefined {
  const number = /^[1-9]\d{0,18}$/.test(id) ? BigInt(id) : maximum;
  return number < maximum ? number : undefined;
}

/** Places in which {@link findByNumber} searches. */
export type NumberedPlace = "outbox" | "queue";

/** Messages of the outbox, or the queue, with this number. @throws HawserError as {@link Database.query} */
export async function findByNumber(
  database: Database,
  id: string,
  place: NumberedPlace,
): Promise<(OutboxMessage | QueuedMessageFound)[]> {
  const number = numberOf(id);
  if (number === undefined) return [];
  return (place === "outbox" ? inOutbox : inQueue)(database, { number, messageId: null });
}

/** Ids by which the other steps are searched. */
export function messageIdsOf(id: string, found: readonly (OutboxMessage | QueuedMessageFound)[]): MessageIds {
  const ids = new Set([id, ...found.flatMap(({ messageId }) => messageId ?? [])]);
  return { number: numberOf(id), ids: [...ids] };
}

/** Rules of the ids by which a step searches. Of the queue also places in channels, whose names may have spaces. */
const searchedIds = { outbox: namedRules.enqueuedMessageId, queue: namedRules.searchedMessageId } as const;

/** What a message is searched by: one of the two. */
interface EnqueuedId {
  readonly number: bigint | null;
  readonly messageId: string | null;
}

async function inQueue(database: Database, by: EnqueuedId): Promise<QueuedMessageFound[]> {
  const caller = database.caller("search for a message in the queue");
  const found = await queueFunctions(caller).queueFind({ ...by, limit: foundPlaces });
  return found.map((message) => ({ ...message, place: "queued" }));
}

/** Its dead letter is found by another step, too. */
async function ended(database: Database, number: bigint): Promise<EndedMessage[]> {
  const caller = database.caller("search for the result of a message");
  const { state, topic, role, endedAt, expiresAt, ...found } = await queueFunctions(caller).job({ id: number });
  if (topic === null || role === null || endedAt === null || expiresAt === null) return [];
  return [
    {
      place: "ended",
      id: String(number),
      state: state as EndedMessage["state"],
      ...{ topic, role, at: endedAt, expiresAt },
      listener: found.listener,
      attempts: found.attempts ?? 0,
      enqueuedAt: found.enqueuedAt,
      durationMs: found.durationMs === null ? null : Number(found.durationMs),
      result: found.result,
      progress: found.progress,
      errorCode: found.errorCode,
      errorMessage: found.errorMessage,
    },
  ];
}

async function inOutbox(database: Database, by: EnqueuedId): Promise<OutboxMessage[]> {
  const caller = database.caller("search for a message in the outbox");
  const found = await outboxFunctions(caller).outboxFind({ ...by, limit: foundPlaces });
  return found.map((message) => ({ ...message, place: "outbox" }));
}

/**
 * Searches for a message in one of its places.
 *
 * @param asked message id of the sender or enqueuer, id that `hawser.enqueue` returned, or `channel/epoch/number` of
 * a message that was sent, which its handler sees as its id
 * @returns places in which the message is, at most 10 for each id; empty if it is not there
 * @throws HawserError as {@link Database.query}
 */
export async function findMessage(
  database: Database,
  asked: string,
  { number, ids }: MessageIds,
  step: FindStep,
): Promise<FoundMessage[]> {
  const read = (text: string, values: readonly unknown[]) =>
    database.query<FoundMessage>("search for a message", { text, values });
  const [, source, epoch, within] = placePattern.exec(asked) ?? [];
  const isPlace = source !== undefined && BigInt(epoch!) < maximum && BigInt(within!) < maximum;
  const place = isPlace ? [source, epoch, within] : [null, null, null];
  const pairs = (...names: string[]) => names.flatMap((name) => ids.map((id) => JSON.stringify([name, id])));
  const { messageIdHeader } = protocolConstants;
  switch (step) {
    case "scheduledNumber":
      return number === undefined ? [] : read(sql.scheduledNumber, [number]);
    case "scheduled":
      return read(sql.scheduled, [ids, number ?? null]);
    case "outbox":
    case "queue": {
      const found: (OutboxMessage | QueuedMessageFound)[] = [];
      for (const messageId of ids)
        if (checkText("messageId", searchedIds[step], messageId) === undefined)
          found.push(...(await (step === "outbox" ? inOutbox : inQueue)(database, { number: null, messageId })));
      return found.filter((message) => message.id !== number);
    }
    case "ended":
      return number === undefined ? [] : ended(database, number);
    case "channel": {
      if (!isPlace) return [];
      const found = await read(sql.inChannel, place);
      return found.length > 0 ? found : read(sql.passed, place);
    }
    case "stored":
      return read(sql.stored, [
        pairs(messageIdHeader).map((pair) => `[${pair}]`),
        pairs(messageIdHeader).map((pair) => `[[${pair}]]`),
        { names: [messageIdHeader], ids },
      ]);
    case "saved":
      return read(sql.saved, [ids, ids.map((id) => `${JSON.stringify(natsMessageId)}:[${JSON.stringify(id)}]`)]);
    case "dead":
      return read(sql.dead, [ids]);
    case "deadByHeader": {
      const names = [messageIdHeader, natsMessageId];
      return read(sql.deadByHeader, [pairs(...names).map((pair) => `[${pair}]`), ids, { names, ids }]);
    }
  }
}
