/**
 * Dead letters of subscriptions: written while this process leads, and read again when they are to be retried.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import type { RareLog } from "../runtime/index.js";
import { advanceCall, advanceValues, failureOf } from "./executor/index.js";
import { fenceSql } from "./leadership/index.js";
import type { DeadLetterStep, KeepStep, Outcome, RetryJob } from "./queue/index.js";

// A message is dead-lettered once, however often it is tried. That of a stream is done with that: its position passes it in
// the same statement.
const writeSql = (isOfStream: boolean) => `
  WITH ${fenceSql},
  moved AS MATERIALIZED (
    SELECT ${isOfStream ? `a.state FROM fence CROSS JOIN LATERAL ${advanceCall("$9", "$11", 12)} AS a` : "'advanced' AS state FROM fence"}
  ),
  written AS (
    INSERT INTO ${peerTables.deadLetter} (origin, source, topic, payload, headers, error_code, error_message, attempts, handler_id, message_id)
    SELECT 'subscription', $2, $3, $4, $5::jsonb, $6, $7, $8, $9, known.by FROM moved
     CROSS JOIN (SELECT $10 || '.' || ${sealSql("$11::bytea", { topic: "$3::text", payload: "$4::bytea", headers: "$5::jsonb" })} AS by) AS known
     WHERE moved.state = 'advanced' AND NOT EXISTS (SELECT FROM ${peerTables.deadLetter} AS d WHERE d.message_id = known.by)
  )
  SELECT count(*) > 0 AS held FROM moved WHERE moved.state <> 'moved'`;

const keepSql = `
  WITH ${fenceSql},
  kept AS (
    UPDATE ${peerTables.deadLetter} AS d
       SET retry_requested = false, error_code = $3, error_message = $4, attempts = d.attempts + $5
      FROM fence WHERE d.id = $2
  )
  SELECT count(*) > 0 AS held FROM fence`;

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

  /** Makes a dead letter of a message. Does not reject. */
  write({ subscription, message, error, attempts }: DeadLetterStep, epoch: bigint): Promise<Outcome> {
    const { headers } = message;
    const values = [
      String(epoch),
      subscription.functionName,
      storable(message.subject),
      Buffer.from(message.payload),
      headers === undefined ? null : headerPairs(headers, storable),
      error.code,
      error.message,
      attempts,
      String(subscription.id),
      message.id,
      Buffer.from(subscription.token),
    ];
    const { stream } = subscription;
    if (stream === undefined) return this.#outcomeOf(() => this.#held(writeSql(false), values));
    return this.#outcomeOf(() => this.#held(writeSql(true), [...values, ...advanceValues(stream, [message])]));
  }

  /** A dead letter has failed again. Does not reject. */
  keep({ job, error, attempts }: KeepStep, epoch: bigint): Promise<Outcome> {
    const values = [String(epoch), String(job.deadLetterId), error.code, error.message, attempts];
    return this.#outcomeOf(() => this.#held(keepSql, values));
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

/**
 * SQL for the seal of a dead letter: the last characters of its `message_id`, behind a dot. It tells the dead letters that
 * the bridge wrote from rows that others put beside them. Peers may write the table, and would have messages of their own
 * making handled as if NATS had brought them; the token of the wrapper they cannot read.
 *
 * @param token of its wrapper @param letter SQL for its topic, payload and headers as they are stored
 */
function sealSql(
  token: string,
  { topic, payload, headers }: { readonly topic: string; readonly payload: string; readonly headers: string },
): string {
  const hashes = [`convert_to(${topic}, 'UTF8')`, payload, `convert_to(coalesce(${headers}::text, ''), 'UTF8')`];
  // Each of 32 bytes: nothing can be appended, nor moved from one to the next.
  return `encode(sha256(${[token, ...hashes.map((hashed) => `sha256(${hashed})`)].join(" || ")}), 'hex')`;
}

/** A dead letter that is to be handled again, and the subscription whose function failed. */
export interface RequestedRetry extends RetryJob {
  readonly subscriptionId: bigint;
}

const sealOfLetter = sealSql("h.token", { topic: "l.topic", payload: "l.payload", headers: "l.headers" });

// So many and so much of each subscription: those of one that takes its time do not keep the others waiting.
const retriesSql = `
  SELECT d.id, d.handler_id AS "subscriptionId", d.topic, d.payload, d.headers::text AS headers
    FROM ${tables.natsHandler} AS h
   CROSS JOIN LATERAL (
      SELECT l.*, sum(octet_length(l.payload)) OVER (ORDER BY l.id) - octet_length(l.payload) AS bytes_before
        FROM ${peerTables.deadLetter} AS l
       WHERE l.handler_id = h.id AND l.origin = 'subscription' AND l.retry_requested AND right(l.message_id, 65) = '.' || ${sealOfLetter}
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
function headerPairs(object: string, storable: (text: string) => string): string {
  const pairs = Object.entries(JSON.parse(object) as Record<string, string[]>);
  return JSON.stringify(pairs.flatMap(([name, values]) => values.map((value) => [storable(name), storable(value)])));
}
