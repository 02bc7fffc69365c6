/** Dead letters of messages that the leader has in memory, or reads from streams. */
import type { PostgresSession } from "../../foundation/postgres/index.js";
import type { RareLog } from "../../foundation/runtime/index.js";
import { advanceParameters, advanceValues, failureOf } from "./executor/index.js";
import type { DeadLetterStep, Outcome } from "./queue/index.js";

// Parameters: the message, the position update of its stream (NULL for a subject), and the id of its saved message.
const writeSql = `
  SELECT l.held FROM hawser.add_subscription_dead_letter(
    $1::bigint, $2::bigint, $3, $4, $5::bytea, $6::jsonb, $7, $8, $9::integer, $10, ${advanceParameters(11)}, $17::bigint
  ) AS l`;

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

  /** Writes a dead letter. Does not reject. */
  write({ subscription, message, savedId, error, attempts }: DeadLetterStep, epoch: bigint): Promise<Outcome> {
    const { headers } = message;
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

/** Converts the JSON object of headers to the pairs of a dead letter. */
function headerPairs(object: string): string {
  const pairs = Object.entries(JSON.parse(object) as Record<string, string[]>);
  return JSON.stringify(pairs.flatMap(([name, values]) => values.map((value) => [storable(name), storable(value)])));
}
