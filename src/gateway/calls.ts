/**
 * From the text of a call to its answer: reads and checks the argument, waits its turn, has the handler answer, and sees to
 * it that there is an answer at the deadline.
 */
import { BadArgument, NotText } from "../../generated/ts/nats-functions/argument.js";
import { type Method, methods, type NatsFunctionsHandler } from "../../generated/ts/nats-functions/methods.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { GatewayError } from "../errors/index.js";
import { badArgument, notText, tooBusy, tooLate, tooLong, tooMuch } from "./call-error.js";
import { parseCall, TooMuch } from "./call-text.js";
import type { Capacity } from "./capacity.js";
import { type Answer, type GatewaySession, nullRow } from "./protocol/index.js";

/** What a handler is told of a call. */
export interface GatewayCall {
  readonly session: GatewaySession;
  /** How long NATS may take, in milliseconds from the start of the call. */
  readonly timeoutMs: number;
  /** When it started, by `performance.now()`. */
  readonly startedAt: number;
}

/** What is left of a call's time, in whole milliseconds, at least 1. */
export function leftMs({ startedAt, timeoutMs }: GatewayCall): number {
  return Math.max(1, Math.ceil(timeoutMs - (performance.now() - startedAt)));
}

/** Limits of calls; see `ServeSettings`. */
export interface CallLimits {
  readonly callTimeoutMs: number;
  readonly maxCallTimeoutMs: number;
  readonly maxResponseBytes: number;
}

const { deadlineSlackMs, requestTimeoutMs } = gatewayConstants;

/** Asked only whether the session is alive. */
const ping = "Ping";

/** Answers calls. */
export class Calls {
  readonly #handler: NatsFunctionsHandler<GatewayCall>;
  readonly #capacity: Capacity;
  readonly #limits: CallLimits;

  constructor(handler: NatsFunctionsHandler<GatewayCall>, capacity: Capacity, limits: CallLimits) {
    this.#handler = handler;
    this.#capacity = capacity;
    this.#limits = limits;
  }

  /** @throws HawserError, also as a rejection */
  answer(query: Uint8Array, session: GatewaySession): Answer | Promise<Answer> {
    const { name, method, request } = this.#read(query);
    if (method === undefined) return nullRow;
    const call: GatewayCall = {
      session,
      timeoutMs: this.#timeoutOf(name, method, request),
      startedAt: performance.now(),
    };
    if (!this.#capacity.tryTake()) return this.#wait(method, request, call);
    return this.#handle(method, request, call);
  }

  #read(query: Uint8Array): { name: string; method: Method | undefined; request: unknown } {
    let name = "the call";
    try {
      const { method: asked, json, list } = parseCall(query);
      if (asked === ping) return { name, method: undefined, request: undefined };
      const method = Object.hasOwn(methods, asked) ? methods[asked] : undefined;
      if (method === undefined) throw new GatewayError("gateway_protocol", `the gateway has no method ${asked}`);
      name = method.sqlName;
      if (list !== undefined && !method.takesList) throw new GatewayError("gateway_protocol", `${name} takes no list`);
      return { name, method, request: method.read(json, list) };
    } catch (error) {
      if (error instanceof BadArgument) throw badArgument(name, error.fault);
      throw error instanceof TooMuch ? tooMuch(error.what, error.limit) : error;
    }
  }

  /** The call's own time limit, where it has one; else the gateway's. */
  #timeoutOf(name: string, method: Method, request: unknown): number {
    const { callTimeoutMs, maxCallTimeoutMs } = this.#limits;
    if (method.timeoutMs === undefined) return callTimeoutMs;
    const given = method.timeoutMs(request);
    if (given === undefined || given < 0) return Math.min(requestTimeoutMs, maxCallTimeoutMs);
    if (given <= maxCallTimeoutMs) return given;
    throw new GatewayError(
      "invalid_argument",
      `${name}: the argument timeout is ${given} ms, and the longest that this gateway allows is ${maxCallTimeoutMs} ms`,
      { hint: "Give a shorter timeout, or start `hawser serve` with a greater --max-call-timeout-ms." },
    );
  }

  async #wait(method: Method, request: unknown, call: GatewayCall): Promise<Answer> {
    // Not to the last moment: whoever is let in then has no time for NATS any more, and takes the place from others.
    const waitMs = Math.ceil(call.timeoutMs / 2);
    if (!(await this.#capacity.take(waitMs))) throw tooBusy(method.sqlName, this.#capacity.limit, waitMs);
    // Whoever has been told that nothing is known of the call is not surprised by it later.
    if (!call.session.isOpen) {
      this.#capacity.release();
      throw new GatewayError("aborted", `${method.sqlName}: the session ended before its turn came; nothing was sent`);
    }
    return this.#handle(method, request, call);
  }

  /** Has a place, and gives it back. */
  #handle(method: Method, request: unknown, call: GatewayCall): Answer | Promise<Answer> {
    let result: unknown;
    try {
      result = method.handle(this.#handler, request, call);
    } catch (error) {
      this.#capacity.release();
      throw error;
    }
    if (result instanceof Promise) return this.#await(method, request, call, result);
    this.#capacity.release();
    return this.#write(method, request, result);
  }

  async #await(method: Method, request: unknown, call: GatewayCall, result: Promise<unknown>): Promise<Answer> {
    // The place is taken until the command has ended, whatever its caller has been told.
    result.then(
      () => this.#capacity.release(),
      () => this.#capacity.release(),
    );
    const waited = performance.now() - call.startedAt;
    const limitMs = call.timeoutMs + deadlineSlackMs;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(tooLate(method.sqlName, method.changes, limitMs)), Math.max(0, limitMs - waited));
    });
    try {
      return this.#write(method, request, await Promise.race([result, late]));
    } finally {
      clearTimeout(timer);
    }
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
    if (bytes > this.#limits.maxResponseBytes) throw tooLong(method.sqlName, bytes, this.#limits.maxResponseBytes);
    return { kind: "row", value };
  }
}
