/** Cancellation of calls over NATS, server side: signals of running calls, and detection of disconnected callers. */
import { Code, ConnectError } from "@connectrpc/connect";
import { errors, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { Cancellation } from "../../foundation/runtime/index.js";
import { isAnswerable } from "../../nats/connections/index.js";
import type { IncomingCall } from "./answer-call.js";
import { firstValue, type HeaderPairs } from "./headers.js";

/** Subject without wildcards and with at least two tokens. The last token identifies the call of a caller. */
const idPattern = /^[^\s*>.]+(?:\.[^\s*>.]+)*\.[^\s*>.]+$/;
const { maxCallIdLength } = rpcConstants;
/** Number of consecutive failed checks after which a caller counts as disconnected. A reconnecting caller can miss one. */
const missesOfLostCaller = 2;
/** Time for the NATS server to report that nobody subscribes. Callers never answer a check. */
const checkTimeoutMs = 1_000;

/** Running call. */
export class NatsCall extends Cancellation implements IncomingCall {
  readonly startedAt = performance.now();
  readonly message: Msg;
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /** Subject on which callers publish the ids of calls that they cancel. */
  readonly cancelSubject: string;
  /**
   * Id of the call. Undefined if the call cannot be canceled: the caller sent no id, or one that is not a usable
   * subject.
   */
  readonly id: string | undefined;

  constructor(message: Msg, headers: HeaderPairs, payload: Uint8Array, cancelSubject: string) {
    super();
    this.message = message;
    this.headers = headers;
    this.payload = payload;
    this.cancelSubject = cancelSubject;
    this.id = idOf(headers);
  }

  /**
   * Caller, as the common prefix of its call ids. Undefined if no code would observe that the caller has disconnected.
   * Also undefined if NATS has rewritten the reply subject, as it does between accounts, because the subject of the id
   * does not exist in this account then.
   */
  get caller(): string | undefined {
    const { id } = this;
    if (id === undefined || !this.isAwaited) return undefined;
    const firstToken = (subject: string) => subject.slice(0, subject.indexOf("."));
    if (firstToken(id) !== firstToken(this.message.reply!)) return undefined;
    return id.slice(0, id.lastIndexOf("."));
  }
}

function idOf(headers: HeaderPairs): string | undefined {
  const id = firstValue(headers, rpcConstants.callHeader);
  return id !== undefined && id.length <= maxCallIdLength && idPattern.test(id) && isAnswerable(id) ? id : undefined;
}

/**
 * Detection of disconnected callers. NATS answers a message to the subject of a call id at once if nobody subscribes to
 * it. Checks only calls that have been running for a full interval and whose handler uses its signal.
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
   * @param calls running calls
   * @param onDenied called if the NATS server does not permit the checks, which stop then
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

  /** Starts the checks unless they are active. Called for each new call. */
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
    const latestStart = performance.now() - this.#intervalMs;
    const byCaller = new Map<string, NatsCall[]>();
    for (const call of this.#calls) {
      const { caller } = call;
      if (caller === undefined || call.startedAt > latestStart) continue;
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
    if (misses < missesOfLostCaller) return;
    this.#misses.delete(caller);
    for (const call of calls) call.abort(new ConnectError("the caller has disconnected", Code.Canceled));
  }

  /** @returns false also if the check was inconclusive */
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
