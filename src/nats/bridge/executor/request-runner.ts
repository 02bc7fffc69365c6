/**
 * Runs the function of a responder for one request, in a transaction of its own.
 */
import { namedRules } from "../../../../generated/ts/rules/named.js";
import { type Logger, startSpan, tracer } from "../../../foundation/runtime/index.js";
import type { Responder } from "../bindings.js";
import type { RequestOutcome, RequestRunner, ResponderRequest } from "../responders/index.js";
import type { ExecutorPool } from "./executor-pool.js";
import { proofOf, type TransactionMark, transactionMarkColumn } from "./token.js";
import { type Ending, inTransaction } from "./transaction.js";
import {
  isAboutWrapper,
  traceValues,
  type WrapperVersion,
  wrapperCall,
  wrapperVersionColumns,
  wrapperVersionFrom,
} from "./wrapper.js";

const { maxBytes } = namedRules.natsPayload;

/** Result columns. A result that exceeds the limit of NATS messages is not read from Postgres. */
const resultColumns =
  `pg_catalog.octet_length(called.result) AS bytes, ` +
  `CASE WHEN pg_catalog.octet_length(called.result) <= ${maxBytes} THEN called.result END AS result`;

/** Result of the function; only its length if it exceeds the limit. */
type Result = Uint8Array | { readonly bytes: number };

/** Sessions and callbacks of a {@link PostgresRequestRunner}. */
export interface PostgresRequestRunnerOptions {
  readonly pool: ExecutorPool;
  /** Current statement timeout, in milliseconds. */
  timeoutMs(): number;
  /** Responder that replaced one whose wrapper is missing; undefined if there is none. */
  successor(responder: Responder): Promise<Responder | undefined>;
  readonly logger: Logger;
}

export class PostgresRequestRunner implements RequestRunner {
  readonly #options: PostgresRequestRunnerOptions;

  constructor(options: PostgresRequestRunnerOptions) {
    this.#options = options;
  }

  async run(responder: Responder, request: ResponderRequest): Promise<RequestOutcome> {
    if (tracer === undefined) return await this.#run(responder, request);
    const { subject, payload, trace } = request;
    const { functionName } = responder;
    const bytes = payload.length;
    const span = startSpan(
      { kind: "respond", system: "nats", destination: subject, functionName, from: [trace], bytes },
      "sometimes",
    );
    if (span === undefined) return await this.#run(responder, request);
    const outcome = await span.run(() => this.#run(responder, { ...request, trace: span.context }));
    span.end(outcome.kind === "failed" ? outcome : undefined);
    return outcome;
  }

  async #run(responder: Responder, request: ResponderRequest): Promise<RequestOutcome> {
    const ending = await this.#call(responder, request);
    if (!(await this.#isGone(ending, responder))) return outcomeOf(ending);
    // The responder may have been registered again a moment ago. No function has run yet, so the new one can answer.
    const successor = await this.#options.successor(responder);
    return outcomeOf(successor === undefined ? ending : await this.#call(successor, request));
  }

  #call(responder: Responder, request: ResponderRequest): Promise<Ending<Result | undefined>> {
    const { pool, logger } = this.#options;
    const { subject, reply, payload, trace } = request;
    const setsTrace = trace !== undefined;
    const text = wrapperCall(responder, ["bytea", "text", "text"], { result: resultColumns, setsTrace });
    return inTransaction<Result | undefined, WrapperVersion & TransactionMark>(pool, logger, {
      runAs: responder.runAs,
      timeoutMs: this.#options.timeoutMs(),
      first: `SELECT ${transactionMarkColumn}, ${wrapperVersionColumns} FROM ${wrapperVersionFrom(responder)}`,
      run: async (session, [state]) => {
        if (state?.version == null) return { value: undefined, commit: false };
        const [row] = await session.query<{ bytes: number | null; result: unknown; version: string | null }>(text, [
          ...[String(responder.id), proofOf(responder.token, state)],
          ...[Buffer.from(payload), subject, reply, state.version],
          ...(setsTrace ? traceValues([trace]) : []),
        ]);
        // The wrapper changed before the call.
        if (row === undefined) return { value: undefined, commit: false };
        return { value: resultOf(row), commit: row.version === state.version };
      },
    });
  }

  async #isGone(ending: Ending<unknown>, wrapper: Responder): Promise<boolean> {
    const { pool, logger } = this.#options;
    // With a value, the function has run, and its wrapper changed meanwhile. Its successor must not run as well,
    // because effects outside of the transaction would be repeated.
    if (ending.kind === "rolled_back") return ending.value === undefined;
    return await isAboutWrapper(ending, { wrapper, pool, timeoutMs: this.#options.timeoutMs(), logger });
  }
}

function resultOf({ bytes, result }: { readonly bytes: number | null; readonly result: unknown }): Result {
  if (bytes !== null && bytes > maxBytes) return { bytes };
  return result instanceof Uint8Array ? result : new Uint8Array();
}

function outcomeOf(ending: Ending<Result | undefined>): RequestOutcome {
  switch (ending.kind) {
    case "rolled_back":
      return { kind: "removed" };
    case "committed":
      return ending.value === undefined || ending.value instanceof Uint8Array
        ? { kind: "answer", payload: ending.value ?? new Uint8Array() }
        : { kind: "too_large", bytes: ending.value.bytes };
    case "timed_out":
      return { kind: "failed", code: ending.code, message: ending.message, timedOut: true };
    case "failed":
    case "transient":
      return { kind: "failed", code: ending.code, message: ending.message, timedOut: false };
    default:
      return { kind: "failed", code: "57P03", message: "Postgres is unreachable or shut down", timedOut: false };
  }
}
