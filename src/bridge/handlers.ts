/**
 * Which SQL functions NATS reaches, as the database says it.
 */

import { tables } from "../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import { functionNameSql, wrapperJoinSql } from "../store/nats/wrapper-join.js";
import type { Responder, Subscription } from "./bindings.js";
import { sealSql } from "./dead-letter-seal.js";
import type { RetryJob } from "./lanes/index.js";

/** All of them, by kind, the oldest first. */
export interface Handlers {
  readonly subscriptions: readonly Subscription[];
  readonly responders: readonly Responder[];
}

/** A dead letter that is to be handled again, and the handler that it failed in. */
export interface RequestedRetry extends RetryJob {
  readonly handlerId: bigint;
}

// Without its wrapper a handler is gone, whether its row is or not.
const handlersSql = `
  SELECT h.id, h.kind, h.subject, ${functionNameSql} AS "functionName",
         h.argument_types AS "argumentTypes", h.wrapper, h.token, r.rolname AS "runAs", w.oid IS NOT NULL AS "isThere"
    FROM ${tables.natsHandler} AS h
    ${wrapperJoinSql("LEFT JOIN")}
    LEFT JOIN pg_roles AS r ON r.oid = w.proowner
   ORDER BY h.id`;

const pruneSql = "SELECT pruned FROM hawser.prune_handlers()";

const sealOfLetter = sealSql("h.token", { topic: "l.topic", payload: "l.payload", headers: "l.headers" });

// So many and so much of each handler: those of one that takes its time do not keep the others waiting.
const retriesSql = `
  SELECT d.id, d.handler_id AS "handlerId", d.topic, d.payload, d.headers::text AS headers
    FROM ${tables.natsHandler} AS h
   CROSS JOIN LATERAL (
      SELECT l.*, sum(octet_length(l.payload)) OVER (ORDER BY l.id) - octet_length(l.payload) AS bytes_before
        FROM ${peerTables.deadLetter} AS l
       WHERE l.handler_id = h.id AND l.origin = 'subscription' AND l.retry_requested AND right(l.message_id, 65) = '.' || ${sealOfLetter}
       ORDER BY l.id LIMIT $1
    ) AS d
   WHERE h.kind = 'subscription' AND h.id <> ALL ($3::bigint[]) AND d.bytes_before <= $2 AND EXISTS (SELECT FROM ${peerTables.deadLetter} AS l WHERE l.retry_requested)
   ORDER BY d.id`;

interface HandlerRow {
  readonly id: bigint;
  readonly kind: "subscription" | "responder";
  readonly subject: string;
  readonly functionName: string;
  readonly argumentTypes: string;
  readonly wrapper: string;
  readonly token: Buffer;
  readonly runAs: string;
  readonly isThere: boolean;
}

interface RetryRow {
  readonly id: bigint;
  readonly handlerId: bigint;
  readonly topic: string;
  readonly payload: Buffer;
  readonly headers: string | null;
}

/** Reads them. @throws whatever the session throws */
export async function readHandlers(session: PostgresSession): Promise<Handlers> {
  const rows = await session.query<HandlerRow>(handlersSql);
  const present = rows.filter(({ isThere }) => isThere);
  // Where there are no event triggers, nobody else has noticed.
  if (present.length < rows.length && !(await session.isStandby())) await session.query(pruneSql);
  return {
    subscriptions: present.filter(({ kind }) => kind === "subscription").map(subscriptionOf),
    responders: present.filter(({ kind }) => kind === "responder").map(responderOf),
  };
}

/**
 * Dead letters of subscriptions that are to be handled again.
 *
 * @param busy subscriptions whose last ones are not done yet
 * @throws whatever the session throws
 */
export async function readRetries(session: PostgresSession, busy: readonly bigint[]): Promise<RequestedRetry[]> {
  const { retryRows, maxBatchBytes } = bridgeConstants;
  const rows = await session.query<RetryRow>(retriesSql, [retryRows, maxBatchBytes, busy.map(String)]);
  return rows.map(({ id, handlerId, topic, payload, headers }) => ({
    handlerId,
    deadLetterId: id,
    message: {
      id: `dead-letter-${id}`,
      subject: topic,
      payload,
      headers: headers === null ? undefined : headersObject(headers),
      receivedAt: performance.now(),
    },
  }));
}

/** From the pairs of a dead letter to the object that functions take. */
function headersObject(pairs: string): string {
  const object: Record<string, string[]> = Object.create(null);
  for (const [name, value] of JSON.parse(pairs) as [string, string][]) {
    object[name] ??= [];
    object[name].push(value);
  }
  return JSON.stringify(object);
}

/** The other way round. @param storable what of each text is kept */
export function headerPairs(object: string, storable: (text: string) => string): string {
  const pairs = Object.entries(JSON.parse(object) as Record<string, string[]>);
  return JSON.stringify(pairs.flatMap(([name, values]) => values.map((value) => [storable(name), storable(value)])));
}

function subscriptionOf({ argumentTypes, isThere: _, ...row }: HandlerRow): Subscription {
  return {
    ...row,
    kind: "subscription",
    takesSubject: argumentTypes !== "bytea",
    takesHeaders: argumentTypes === "bytea, text, jsonb",
  };
}

function responderOf({ argumentTypes: _, isThere: __, ...row }: HandlerRow): Responder {
  return { ...row, kind: "responder" };
}
