/**
 * Dead letters of subscriptions: written while this process leads, and read again when they are to be retried.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import type { RareLog } from "../runtime/index.js";
import { advanceParameters, advanceValues, failureOf } from "./executor/index.js";
import type { DeadLetterStep, Outcome, RequestedRetry } from "./queue/index.js";

// The values, what advances the stream (nothing for a subject), and the number of a saved message.
const writeSql = `
  SELECT l.held FROM hawser.add_subscription_dead_letter(
    $1::bigint, $2::bigint, $3, $4, $5::bytea, $6::jsonb, $7, $8, $9::integer, $10, ${advanceParameters(11)}, $17::bigint
  ) AS l`;

const keepSql = "SELECT r.held FROM hawser.fail_retry($1::bigint, $2::bigint, $3, $4, $5::integer) AS r";

/** What Postgres can hold of a text that came by NATS: no NUL, which subjects and headers may have. */
export function storable(text: string): string {
  return text.replaceAll("\0", "\ufffd");
}

export class DeadLetterWriter {
  readonly #session: PostgresSession;
  readonly #rareLog: RareLog;

  constructor(session: PostgresSession, rareLog: RareLog) {
    this.#session = session;
    this.#rareLog = rareLog;
  }

  /** Makes a dead letter of a message, or writes its new error to one that has failed again. Does not reject. */
  write({ subscription, message, savedId, error, attempts }: DeadLetterStep, epoch: bigint): Promise<Outcome> {
    const { headers, deadLetterId } = message;
    if (deadLetterId !== undefined) {
      const values = [String(epoch), String(deadLetterId), error.code, error.message, attempts];
      return this.#outcomeOf(() => this.#held(keepSql, values));
    }
    const values = [
      String(epoch),
      String(subscription.id),
      subscription.functionName,
      storable(message.subject),
      Buffer.from(message.payload),
      headers === undefined ? null : headerPairs(headers, storable),
      error.code,
      error.message,
      attempts,
      message.id,
      ...advanceValues(subscription.stream, [message]),
      savedId === undefined ? null : String(savedId),
    ];
    return this.#outcomeOf(() => this.#held(writeSql, values));
  }

  async #held(text: string, values: unknown[]): Promise<boolean> {
    const [row] = await this.#session.query<{ held: boolean }>(text, values);
    return row!.held;
  }

  async #outcomeOf(work: () => Promise<boolean>): Promise<Outcome> {
    const startedAt = performance.now();
    try {
      if (!(await work())) return { kind: "deposed" };
      return { kind: "committed", durationMs: performance.now() - startedAt };
    } catch (cause) {
      const failure = failureOf(cause, 0, Number.POSITIVE_INFINITY);
      // Postgres's words could show the message.
      const problem = failure.kind === "lost" ? failure.message : `SQLSTATE ${failure.code}`;
      this.#rareLog.warn("a dead letter cannot be written now: what is behind it waits", problem);
      const isAway = failure.kind === "lost" || failure.kind === "unavailable" || !this.#session.isUp;
      if (isAway) return { kind: "unavailable" };
      return { kind: "transient", error: { code: failure.code, message: failure.message } };
    }
  }
}

// So many and so much of each subscription: those of one that takes its time do not keep the others waiting.
const retriesSql = `
  SELECT d.id, d.handler_id AS "subscriptionId", d.topic, d.payload, d.headers::text AS headers
    FROM ${tables.natsHandler} AS h
   CROSS JOIN LATERAL (
      SELECT l.*, sum(octet_length(l.payload)) OVER (ORDER BY l.id) - octet_length(l.payload) AS bytes_before
        FROM ${peerTables.deadLetter} AS l
       WHERE l.handler_id = h.id AND l.origin = 'subscription' AND l.retry_requested AND l.role IS NOT NULL
       ORDER BY l.id LIMIT $1
    ) AS d
   WHERE h.kind <> 'responder' AND h.id <> ALL ($3::bigint[]) AND d.bytes_before <= $2 AND EXISTS (SELECT FROM ${peerTables.deadLetter} AS l WHERE l.retry_requested)
   ORDER BY d.id`;

interface RetryRow {
  readonly id: bigint;
  readonly subscriptionId: bigint;
  readonly topic: string;
  readonly payload: Buffer;
  readonly headers: string | null;
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
  return rows.map(({ id, subscriptionId, topic, payload, headers }) => ({
    subscriptionId,
    message: {
      id: `dead-letter-${id}`,
      deadLetterId: id,
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
function headerPairs(object: string, storable: (text: string) => string): string {
  const pairs = Object.entries(JSON.parse(object) as Record<string, string[]>);
  return JSON.stringify(pairs.flatMap(([name, values]) => values.map((value) => [storable(name), storable(value)])));
}
