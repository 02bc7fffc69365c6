/**
 * The answering side of cancellation over NATS: the signals of running calls, and the watch on their callers.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import { errors, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import { isAnswerable } from "../nats/index.js";
import type { IncomingCall } from "./answer-call.js";
import { firstValue, type HeaderPairs } from "./headers.js";

/** Words with dots between them, without wildcards. The last one tells the calls of a caller apart. */
const idPattern = /^[^\s*>.]+(?:\.[^\s*>.]+)*\.[^\s*>.]+$/;
const maxIdLength = 255;

/** A call that is being handled. */
export class NatsCall implements IncomingCall {
  readonly startedAt = performance.now();
  readonly message: Msg;
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /** Subject to which callers publish the ids of calls that they cancel. */
  readonly cancelSubject: string;
  /** Undefined for a call that cannot be canceled: its caller does not know how, or is not reached at the subject of the id. */
  readonly id: string | undefined;
  #controller: AbortController | undefined;
  #reason: ConnectError | undefined;

  constructor(message: Msg, headers: HeaderPairs, payload: Uint8Array, cancelSubject: string) {
    this.message = message;
    this.headers = headers;
    this.payload = payload;
    this.cancelSubject = cancelSubject;
    this.id = idOf(headers);
  }

  /** Made when it is asked for: most handlers do not. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  abort(reason: ConnectError): void {
    this.#reason ??= reason;
    this.#controller?.abort(reason);
  }

  /**
   * The caller, by the common part of the subjects of its ids. Undefined if nobody would hear of it that it has gone, or if
   * NATS has replaced the subject for the answer, as it does between accounts: there the subject of the id is not known.
   */
  get caller(): string | undefined {
    const { id } = this;
    if (id === undefined || this.#controller === undefined || this.#controller.signal.aborted) return undefined;
    const firstWord = (subject: string) => subject.slice(0, subject.indexOf("."));
    if (firstWord(id) !== firstWord(this.message.reply!)) return undefined;
    return id.slice(0, id.lastIndexOf("."));
  }
}

function idOf(headers: HeaderPairs): string | undefined {
  const id = firstValue(headers, rpcConstants.callHeader);
  return id !== undefined && id.length <= maxIdLength && idPattern.test(id) && isAnswerable(id) ? id : undefined;
}

/** A caller that two checks in a row do not find has gone. A caller that reconnects may miss one. */
const missesOfGoneCaller = 2;
/** Waiting time for the NATS server to answer that nobody subscribes. A caller itself does not answer. */
const checkTimeoutMs = 1_000;

/**
 * Finds out which callers have gone: NATS answers a message to the subject of a call's id at once if nobody subscribes to it.
 * Only calls are checked that have run for an interval, and whose handler uses its signal.
 */
export class CallerWatch {
  readonly #connection: NatsConnection;
  readonly #calls: ReadonlySet<NatsCall>;
  readonly #intervalMs: number;
  readonly #onDenied: (error: Error) => void;
  readonly #misses = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #isDenied = false;

  /**
   * @param calls that run
   * @param onDenied the NATS server does not permit the checks: no more are made
   */
  constructor(
    connection: NatsConnection,
    calls: ReadonlySet<NatsCall>,
    intervalMs: number,
    onDenied: (error: Error) => void,
  ) {
    this.#connection = connection;
    this.#calls = calls;
    this.#intervalMs = intervalMs;
    this.#onDenied = onDenied;
  }

  /** A call runs. Checks go on as long as one does. */
  begin(): void {
    if (this.#isDenied) return;
    this.#timer ??= setInterval(() => this.#check(), this.#intervalMs).unref();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #check(): void {
    if (this.#calls.size === 0) {
      this.#misses.clear();
      this.end();
      return;
    }
    const begunBefore = performance.now() - this.#intervalMs;
    const byCaller = new Map<string, NatsCall[]>();
    for (const call of this.#calls) {
      const { caller } = call;
      if (caller === undefined || call.startedAt > begunBefore) continue;
      const calls = byCaller.get(caller);
      if (calls === undefined) byCaller.set(caller, [call]);
      else calls.push(call);
    }
    for (const caller of this.#misses.keys()) if (!byCaller.has(caller)) this.#misses.delete(caller);
    for (const [caller, calls] of byCaller) void this.#checkCaller(caller, calls);
  }

  async #checkCaller(caller: string, calls: readonly NatsCall[]): Promise<void> {
    if (!(await this.#isMissing(calls[0]!.id!))) {
      this.#misses.delete(caller);
      return;
    }
    const misses = (this.#misses.get(caller) ?? 0) + 1;
    this.#misses.set(caller, misses);
    if (misses < missesOfGoneCaller) return;
    this.#misses.delete(caller);
    for (const call of calls) call.abort(new ConnectError("the caller has gone", Code.Canceled));
  }

  /** False also if there is no telling. */
  async #isMissing(subject: string): Promise<boolean> {
    try {
      await this.#connection.request(subject, undefined, { timeout: checkTimeoutMs });
      return false;
    } catch (error) {
      for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
        if (cause instanceof errors.NoRespondersError) return true;
        if (cause instanceof errors.PermissionViolationError) this.#deny(cause);
      }
      return false;
    }
  }

  #deny(error: Error): void {
    this.end();
    if (!this.#isDenied) this.#onDenied(error);
    this.#isDenied = true;
  }
}
