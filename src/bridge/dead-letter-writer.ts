/**
 * Writes down what subscribed functions failed for, as long as this process leads.
 */

import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import type { PostgresSession } from "../postgres/index.js";
import type { RareLog } from "../runtime/index.js";
import { sealSql } from "./dead-letter-seal.js";
import { failureOf } from "./executor/failure.js";
import { headerPairs } from "./handlers.js";
import type { BuryStep, KeepStep, Outcome } from "./lanes/index.js";

/** As for each batch. $1: the epoch. */
const fence = "fence AS MATERIALIZED (SELECT FROM hawser.fence_batch($1::bigint) AS f WHERE f.held)";

// A message is buried once, however often it is tried.
const burySql = `
  WITH ${fence},
  buried AS (
    INSERT INTO ${peerTables.deadLetter} (origin, source, topic, payload, headers, error_code, error_message, attempts, handler_id, message_id)
    SELECT 'subscription', $2, $3, $4, $5::jsonb, $6, $7, $8, $9, known.by FROM fence
     CROSS JOIN (SELECT $10 || '.' || ${sealSql("$11::bytea", { topic: "$3::text", payload: "$4::bytea", headers: "$5::jsonb" })} AS by) AS known
     WHERE NOT EXISTS (SELECT FROM ${peerTables.deadLetter} AS d WHERE d.message_id = known.by)
  )
  SELECT count(*) > 0 AS held FROM fence`;

const keepSql = `
  WITH ${fence},
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

/** See above. */
export class DeadLetterWriter {
  readonly #session: PostgresSession;
  readonly #rareLog: RareLog;

  constructor(session: PostgresSession, rareLog: RareLog) {
    this.#session = session;
    this.#rareLog = rareLog;
  }

  /** Makes a dead letter of a message. Does not reject. */
  bury({ subscription, message, error, attempts }: BuryStep, epoch: bigint): Promise<Outcome> {
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
    return this.#outcomeOf(() => this.#held(burySql, values));
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
      // Words of Postgres could show what it was to write.
      const problem = failure.kind === "lost" ? failure.message : `SQLSTATE ${failure.code}`;
      this.#rareLog.warn("a dead letter cannot be written now: what is behind it waits", problem);
      const isAway = failure.kind === "lost" || failure.kind === "unavailable" || !this.#session.isUp;
      if (isAway) return { kind: "unavailable" };
      return { kind: "transient", error: { code: failure.code, message: failure.message } };
    }
  }
}
