/**
 * Answers calls: parses and checks the argument, waits for capacity, runs the handler, and ensures an answer by the
 * deadline.
 */
import { type ArgumentFault, BadArgument, NotText } from "../../../generated/ts/nats-functions/argument.js";
import { type Method, methods, type NatsFunctionsHandler } from "../../../generated/ts/nats-functions/methods.js";
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import {
  inSpan,
  type OperationSpan,
  type Semaphore,
  startSpan,
  traceContextIn,
  tracer,
} from "../../foundation/runtime/index.js";
import { parseCall, TooManyError } from "./call-text.js";
import { type Answer, type GatewayClient, nullRow } from "./protocol/index.js";

/** Properties of a call for its handler. */
export interface GatewayCall {
  readonly client: GatewayClient;
  /** Time limit for NATS, in milliseconds from the start of the call. */
  readonly timeoutMs: number;
  /** Start time (`performance.now()`). */
  readonly startedAt: number;
}

/** Remaining time of a call, in whole milliseconds, at least 1. */
export function remainingMs({ startedAt, timeoutMs }: GatewayCall): number {
  return Math.max(1, Math.ceil(timeoutMs - (performance.now() - startedAt)));
}

/** Limits of calls. */
export type CallLimits = Pick<ServeSettings, "callTimeoutMs" | "maxCallTimeoutMs" | "maxResponseBytes">;

/** Time after a call's time limit at which the gateway answers itself, if NATS has not answered by then. */
export const deadlineSlackMs = 500;
/** Time limit of a request whose `timeout` is NULL or negative. */
const requestTimeoutMs = 10_000;

/** Method that only checks whether the session is alive. */
const ping = "Ping";

/** Answers calls with a handler, within their limits. */
export class Calls {
  readonly #handler: NatsFunctionsHandler<GatewayCall>;
  readonly #semaphore: Semaphore;
  readonly #limits: CallLimits;

  constructor(handler: NatsFunctionsHandler<GatewayCall>, semaphore: Semaphore, limits: CallLimits) {
    this.#handler = handler;
    this.#semaphore = semaphore;
    this.#limits = limits;
  }

  /** Answers a call. @throws HawserError, synchronously or as a rejection */
  answer(query: Uint8Array, client: GatewayClient): Answer | Promise<Answer> {
    const { name, method, request } = this.#read(query);
    if (method === undefined) return nullRow;
    const call: GatewayCall = {
      client,
      timeoutMs: this.#timeoutOf(name, method, request),
      startedAt: performance.now(),
    };
    const span = tracer && startCall(name, request);
    if (span !== undefined) return inSpan(span, async () => this.#begin(method, request, call));
    return this.#begin(method, request, call);
  }

  #begin(method: Method, request: unknown, call: GatewayCall): Answer | Promise<Answer> {
    if (!this.#semaphore.tryAcquire()) return this.#waitForCapacity(method, request, call);
    return this.#handle(method, request, call);
  }

  #read(query: Uint8Array): { name: string; method: Method | undefined; request: unknown } {
    let name = "the call";
    try {
      const { method: asked, json, list } = parseCall(query);
      if (asked === ping) return { name, method: undefined, request: undefined };
      const method = Object.hasOwn(methods, asked) ? methods[asked] : undefined;
      if (method === undefined) throw new HawserError("gateway_protocol", `the gateway has no method ${asked}`);
      name = method.sqlName;
      if (list !== undefined && !method.takesList) throw new HawserError("gateway_protocol", `${name} takes no list`);
      return { name, method, request: method.read(json, list) };
    } catch (error) {
      if (error instanceof BadArgument) throw badArgument(name, error.fault);
      throw error instanceof TooManyError ? tooManyError(error.what, error.limit) : error;
    }
  }

  /** Time limit in the argument of the call, or else the gateway's. */
  #timeoutOf(name: string, method: Method, request: unknown): number {
    const { callTimeoutMs, maxCallTimeoutMs } = this.#limits;
    if (method.timeoutMs === undefined) return callTimeoutMs;
    const given = method.timeoutMs(request);
    if (given === undefined || given < 0) return Math.min(requestTimeoutMs, maxCallTimeoutMs);
    if (given <= maxCallTimeoutMs) return given;
    throw new HawserError(
      "invalid_argument",
      `${name}: the argument timeout is ${given} ms, and this gateway allows at most ${maxCallTimeoutMs} ms`,
      { remedy: "Give a shorter timeout, or start `hawser serve` with a greater --tune maxCallTimeoutMs." },
    );
  }

  async #waitForCapacity(method: Method, request: unknown, call: GatewayCall): Promise<Answer> {
    // A call waits for at most half of its time. A call that starts later would have too little time left for NATS, and
    // would take capacity from others.
    const waitMs = Math.ceil(call.timeoutMs / 2);
    const waiting = new AbortController();
    const end = (): void => waiting.abort(busyError(method.sqlName, this.#semaphore.limit, waitMs));
    const timer = setTimeout(end, waitMs);
    await this.#semaphore.acquire(1, waiting.signal).finally(() => clearTimeout(timer));
    // The caller of a closed session was told that the outcome is unknown; a call that takes effect later would be
    // unexpected.
    if (!call.client.isOpen) {
      this.#semaphore.release();
      throw new HawserError(
        "aborted",
        `${method.sqlName}: the session ended before the call started; nothing was sent`,
      );
    }
    return this.#handle(method, request, call);
  }

  /** Runs the handler with the capacity that was acquired, and releases it. */
  #handle(method: Method, request: unknown, call: GatewayCall): Answer | Promise<Answer> {
    let result: unknown;
    try {
      result = method.handle(this.#handler, request, call);
    } catch (error) {
      this.#semaphore.release();
      throw error;
    }
    if (result instanceof Promise) return this.#await(method, request, call, result);
    this.#semaphore.release();
    return this.#write(method, request, result);
  }

  #await(method: Method, request: unknown, call: GatewayCall, result: Promise<unknown>): Promise<Answer> {
    const waited = performance.now() - call.startedAt;
    const limitMs = call.timeoutMs + deadlineSlackMs;
    return new Promise((resolve, reject) => {
      const late = (): void => reject(timeoutError(method.sqlName, method.changes, limitMs));
      const timer = setTimeout(late, Math.max(0, limitMs - waited));
      // Capacity is held until the command has ended, even if its caller already has an error.
      const ended = result.finally(() => {
        clearTimeout(timer);
        this.#semaphore.release();
      });
      ended.then((value) => this.#write(method, request, value)).then(resolve, reject);
    });
  }

  #write(method: Method, request: unknown, result: unknown): Answer {
    let value: string | null;
    try {
      value = method.write(result, request);
    } catch (error) {
      throw error instanceof NotText ? notText(method.sqlName, request, error.message) : error;
    }
    if (value === null) return nullRow;
    const bytes = Buffer.byteLength(value);
    if (bytes > this.#limits.maxResponseBytes)
      throw tooLargeError(method.sqlName, bytes, this.#limits.maxResponseBytes);
    return { kind: "row", value };
  }
}

/** Starts the span of a call, if it needs one. */
function startCall(sqlName: string, request: unknown): OperationSpan | undefined {
  const { headers } = request as { readonly headers?: unknown };
  const from = [traceContextIn(headers)];
  return startSpan({ kind: "call", system: "nats", destination: sqlName, from }, "sometimes");
}

/** Error of an invalid argument. */
function badArgument(sqlName: string, { kind, argument, value, rule }: ArgumentFault): HawserError {
  switch (kind) {
    case "null":
      return new HawserError("null_argument", `${sqlName}: the argument ${argument} is NULL, and needs a value`, {
        remedy: `Give ${argument} a value${emptyOf(argument)}.`,
      });
    case "rule":
      return new HawserError("invalid_argument", `${sqlName}: the argument ${argument} is ${value}, and ${rule}`, {
        remedy: `Give an argument that obeys the rule: it ${rule}.`,
      });
    case "form":
      return new HawserError("gateway_protocol", `${sqlName}: ${argument === "" ? "the call" : argument}: ${rule}`);
  }
}

/** Hint for an empty value, if the caller may have meant one. */
function emptyOf(argument: string): string {
  if (argument === "payloads") return "; an array without messages is '{}'";
  return /^payloads?\b/.test(argument) ? "; an empty message is '', and in JSON 'null'" : "";
}

/** Error of a call with more items than the gateway parses. */
function tooManyError(what: "values" | "messages", limit: number): HawserError {
  return what === "values"
    ? new HawserError("gateway_limit", `the call has headers with more than ${limit} values`, {
        remedy: "Give fewer headers, or fewer values.",
      })
    : new HawserError("gateway_limit", `the call has a list of more than ${limit} messages`, {
        remedy: `Split it into lists of at most ${limit} messages.`,
      });
}

/** Error of a value that is not valid text. */
function notText(sqlName: string, request: unknown, why: string): HawserError {
  return new HawserError("not_text", `${sqlName}: the value${placeOf(request)} is not valid text: ${why}`);
}

/** Error of a call that got no capacity in time. */
function busyError(sqlName: string, capacity: number, waitedMs: number): HawserError {
  return new HawserError(
    "gateway_busy",
    `${sqlName}: ${capacity} commands are running, the maximum of the option capacity, and none ended within ${waitedMs} ms; nothing was sent`,
  );
}

/** Error of a call without an answer at its deadline. */
function timeoutError(sqlName: string, changes: boolean, limitMs: number): HawserError {
  const message = `${sqlName}: no answer arrived within ${limitMs} ms`;
  return changes
    ? new HawserError("outcome_unknown", `${message}, and the outcome is unknown`)
    : new HawserError("nats_timeout", message);
}

/** Error of an answer above the limit. */
function tooLargeError(sqlName: string, bytes: number, maxBytes: number): HawserError {
  return new HawserError(
    "gateway_limit",
    `${sqlName}: the encoded answer has ${bytes} bytes, and the limit is ${maxBytes}`,
    { remedy: "Read less, or start `hawser serve` with a greater --tune maxResponseBytes." },
  );
}

/** Location of a value, from the names in the request. */
function placeOf(request: unknown): string {
  const names = ["bucket", "key", "store", "name"] as const;
  const given = names.flatMap((name) => {
    const value = (request as Partial<Record<(typeof names)[number], string>>)[name];
    return value === undefined ? [] : [`${name} "${value}"`];
  });
  return given.length === 0 ? "" : ` of ${given.join(", ")}`;
}

/** Called after each call with its outcome and duration. @param method first word of the call */
export type CallObserver = (method: string, outcome: "ok" | "error", durationMs: number) => void;

type Answering = (query: Uint8Array, client: GatewayClient) => Answer | Promise<Answer>;

const space = 0x20;

/** Maximum length of a method name, in bytes. */
const longestMethod = 64;

/** Reports the outcomes of `answer` to the observer. */
export function observed(answer: Answering, observer: CallObserver | undefined): Answering {
  if (observer === undefined) return answer;
  return (query, client) => {
    const startedAt = performance.now();
    const end = query.subarray(0, longestMethod).indexOf(space);
    const method = Buffer.from(query.buffer, query.byteOffset, end === -1 ? 0 : end).toString("latin1");
    const report = (outcome: "ok" | "error"): void => observer(method, outcome, performance.now() - startedAt);
    try {
      const answered = answer(query, client);
      if (!(answered instanceof Promise)) {
        report("ok");
        return answered;
      }
      return answered.then(
        (value) => {
          report("ok");
          return value;
        },
        (error: unknown) => {
          report("error");
          throw error;
        },
      );
    } catch (error) {
      report("error");
      throw error;
    }
  };
}
