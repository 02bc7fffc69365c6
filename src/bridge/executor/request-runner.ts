/**
 * Runs the function of a responder for one request, in a transaction of its own.
 */
import type { Logger } from "../../nats/index.js";
import type { Responder } from "../bindings.js";
import type { RequestOutcome, RequestRunner, ResponderRequest } from "../responders/index.js";
import type { ExecutorPool } from "./executor-pool.js";
import { inTransaction } from "./transaction.js";
import { wrapperCall } from "./wrapper-call.js";

/** How requests are run. */
export interface PostgresRequestRunnerOptions {
  readonly pool: ExecutorPool;
  /** The statement timeout now, in milliseconds. */
  timeoutMs(): number;
  readonly logger: Logger;
}

/** See above. */
export class PostgresRequestRunner implements RequestRunner {
  readonly #options: PostgresRequestRunnerOptions;

  constructor(options: PostgresRequestRunnerOptions) {
    this.#options = options;
  }

  async run(responder: Responder, request: ResponderRequest): Promise<RequestOutcome> {
    const { pool, logger } = this.#options;
    const { subject, reply, payload } = request;
    const text = `SELECT ${wrapperCall(responder.wrapper, ["bytea", "text", "text"])} AS payload`;
    const values = [Buffer.from(responder.token), Buffer.from(payload), subject, reply];
    const ending = await inTransaction<Uint8Array | undefined, object>(pool, logger, {
      runAs: responder.runAs,
      timeoutMs: this.#options.timeoutMs(),
      first: "SELECT",
      run: async (session) => {
        const rows = await session.query<{ payload: Buffer | null }>(text, values);
        return { value: rows[0]?.payload ?? new Uint8Array(), commit: true };
      },
    });
    switch (ending.kind) {
      case "committed":
        return { kind: "answer", payload: ending.value ?? new Uint8Array() };
      case "timed_out":
        return { kind: "failed", code: ending.code, message: ending.message, timedOut: true };
      case "failed":
      case "transient":
        return { kind: "failed", code: ending.code, message: ending.message, timedOut: false };
      default:
        return { kind: "failed", code: "57P03", message: "Postgres went away, or cannot be reached", timedOut: false };
    }
  }
}
