/**
 * Dead letters of subscriptions. The leader writes them, and reads those for which a retry was requested.
 */

import type { PostgresSession } from "../../foundation/postgres/index.js";
import type { RareLog } from "../../foundation/runtime/index.js";
import { advanceParameters, advanceValues, failureOf } from "./executor/index.js";
import type { DeadLetterStep, Outcome, RequestedRetry } from "./queue/index.js";
import { queueDefaults } from "./queue/index.js";

/** Number of dead letters that are read at a time for a retry. */
const retryRows = 100;

// Parameters: the message, the position update of its stream (NULL for a subject), and the id of its saved message.
const writeSql = `
  SELECT l.held FROM hawser.add_subscription_dead_letter(
    $1::bigint, $2::bigint, $3, $4, $5::bytea, $6::jsonb, $7, $8, $9::integer, $10, ${advanceParameters(11)}, $17::bigint
  ) AS l`;

const failRetrySql = "SELECT r.held FROM hawser.fail_retry($1::bigint, $2::bigint, $3, $4, $5::integer) AS r";

/** Text without NUL, which NATS subjects and headers may contain and Postgres text cannot. */
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

  /** Writes a dead letter, or the new error of a dead letter whose retry failed. Does not reject. */
  write({ subscription, message, savedId, error, attempts }: DeadLetterStep, epoch: bigint): Promise<Outcome> {
    const { headers, deadLetterId } = message;
    if (deadLetterId !== undefined) {
      const values = [String(epoch), String(deadLetterId), error.code, error.message, attempts];
      return this.#outcomeOf(() => this.#held(failRetrySql, values));
    }
    const values = () => [
      String(epoch),
      String(subscription.id),
      subscription.functionName,
      storable(message.subject),
      Buffer.from(message.payload),
      headers === undefined ? null : headerPairs(headers),
      error.code,
      error.message,
      attempts,
      message.id,
      ...advanceValues(subscription.stream, [message]),
      savedId === undefined ? null : String(savedId),
    ];
    return this.#outcomeOf(() => this.#held(writeSql, values()));
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
      // The text of a Postgres error could contain parts of the message.
      const problem = failure.kind === "lost" ? failure.message : `SQLSTATE ${failure.code}`;
      this.#rareLog.warn("cannot write a dead letter; the messages behind it wait", problem);
      const isAway = failure.kind === "lost" || failure.kind === "unavailable" || !this.#session.isUp;
      if (isAway) return { kind: "unavailable" };
      return { kind: "transient", error: { code: failure.code, message: failure.message } };
    }
  }
}

// Rows and bytes are limited for each subscription, so that a slow one does not delay the retries of others.
const retriesSql = `
  SELECT d.id, d.subscription_id AS "subscriptionId", d.topic, d.payload, d.headers::text AS headers
    FROM hawser.requested_retries($3::bigint[], $1, $2) AS d ORDER BY d.id`;

interface RetryRow {
  readonly id: bigint;
  readonly subscriptionId: bigint;
  readonly topic: string;
  readonly payload: Buffer;
  readonly headers: string | null;
}

/**
 * Reads the next dead letters of subscriptions for which a retry was requested.
 *
 * @param busy subscriptions that are still handling earlier retries
 * @throws errors of the session
 */
export async function readRetries(session: PostgresSession, busy: readonly bigint[]): Promise<RequestedRetry[]> {
  const rows = await session.query<RetryRow>(retriesSql, [retryRows, queueDefaults.maxBatchBytes, busy.map(String)]);
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

/** Converts the header pairs of a dead letter to the JSON object that functions take. */
function headersObject(pairs: string): string {
  const object: Record<string, string[]> = Object.create(null);
  for (const [name, value] of JSON.parse(pairs) as [string, string][]) {
    object[name] ??= [];
    object[name].push(value);
  }
  return JSON.stringify(object);
}

/** Converts the JSON object of headers to the pairs of a dead letter. */
function headerPairs(object: string): string {
  const pairs = Object.entries(JSON.parse(object) as Record<string, string[]>);
  return JSON.stringify(pairs.flatMap(([name, values]) => values.map((value) => [storable(name), storable(value)])));
}
