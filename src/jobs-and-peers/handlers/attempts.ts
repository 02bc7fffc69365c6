/** Attempts to handle messages and requests: the handlers that run, which end by a stop, a timeout or a cancelled message, and the failures. */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { type Cancellation, inTime } from "../../foundation/runtime/index.js";
import { type HandledMessage, type HandlerResult, type Headers, headerValue } from "../channel/index.js";
import type { Transaction } from "../store/index.js";
import type { HandledLink } from "./handled-link.js";
import { cutOff, failed, retryLater } from "./handler-result.js";
import type { HandlingContext } from "./handling-context.js";

/** Time that a handler has to end after its message was cancelled, before the connection of its transaction is closed. */
const cancelledMs = 5_000;

/** Handler whose promise is pending. */
interface PendingHandler {
  /** Its messages; a request has none. */
  readonly messages: readonly HandledMessage[];
  /** Transaction whose connection is closed if the handler must end. */
  readonly client: Transaction | undefined;
}

export class Attempts {
  /** Handlers whose promise is pending, by their cancellations. */
  readonly #pending = new Map<Cancellation, PendingHandler>();
  readonly #cancelled = new WeakSet<HandledMessage>();
  /** Messages whose handlers are cut off. */
  readonly #cutOff = new WeakSet<HandledMessage>();
  /** Reason with which the peer stops, from the beginning of the stop on. */
  stopReason: HawserError | undefined;
  /** True from the deadline of the stop on. */
  isAborted = false;

  readonly #status: HandlingContext["status"];

  constructor({ status }: Pick<HandlingContext, "status">) {
    this.#status = status;
  }

  /** Tells all message handlers that the peer stops. Those that start from now on are told by their callers. */
  stop(reason: HawserError): void {
    this.stopReason = reason;
    for (const cancellation of this.#pending.keys()) cancellation.stop(reason);
  }

  /** Aborts the signals of all running message handlers. An error that they throw from now on is no attempt. */
  abort(reason: HawserError): void {
    this.isAborted = true;
    for (const cancellation of this.#pending.keys()) cancellation.abort(reason);
  }

  /** Cuts off the handlers of some messages, and rolls back their transactions. */
  async cutOff(messages: ReadonlySet<HandledMessage>): Promise<void> {
    for (const message of messages) this.#cutOff.add(message);
    const pending = [...this.#pending.values()].filter((one) => one.messages.some((each) => messages.has(each)));
    await Promise.all(pending.map(({ client }) => endClient(client)));
  }

  /**
   * Ends a message: it does not start any more, and nothing that its handler does counts. If that runs, the signal is aborted, and the
   * connection of a transaction is closed after `cancelledMs`. The other messages of a batch that has no transaction go on.
   */
  cancel(message: HandledMessage): void {
    this.#cancelled.add(message);
    for (const [cancellation, { messages, client }] of this.#pending) {
      if (!messages.includes(message) || (messages.length > 1 && client === undefined)) continue;
      cancellation.abort(new HawserError("aborted", "the message was cancelled"));
      setTimeout(() => this.#pending.has(cancellation) && void endClient(client), cancelledMs).unref();
    }
  }

  /** True for a message that {@link cancel} has ended. */
  isCancelled(message: HandledMessage): boolean {
    return this.#cancelled.has(message);
  }

  /** True if a message was cancelled, or its handler cut off: its transaction must not commit. */
  isWithdrawn(message: HandledMessage): boolean {
    return this.#cancelled.has(message) || this.#cutOff.has(message);
  }

  /** Result of a message that was cancelled, or cut off by a stop, while Postgres was told of its start; undefined if it may begin. */
  overtakenBy(link: HandledLink, message: HandledMessage): HandlerResult | undefined {
    if (this.isCancelled(message)) return retryLater;
    if (this.isAborted) return cutOff;
    return link.isClosed ? retryLater : undefined;
  }

  /**
   * Waits for a handler, at most `timeoutMs`; the connection of its transaction is closed after that, as a handler that exceeds its
   * timeout must not keep writing after the rollback.
   *
   * @throws HawserError `handler_failed` on timeout; the error of the handler
   */
  async wait(
    returned: unknown,
    cancellation: Cancellation,
    timeoutMs: number | undefined,
    pending: PendingHandler,
  ): Promise<unknown> {
    this.#pending.set(cancellation, pending);
    try {
      if (timeoutMs === undefined) return await returned;
      const onTimeout = (): HawserError => {
        void endClient(pending.client);
        const error = new HawserError("handler_failed", `the handler did not complete within ${timeoutMs} ms`);
        cancellation.abort(error);
        return error;
      };
      return await inTime(timeoutMs, onTimeout, async () => await returned);
    } finally {
      this.#pending.delete(cancellation);
    }
  }

  /** Result of a failed call. Reports the failure as a status, unless the handler wants the message again. */
  failed(message: HandledMessage, topic: string, attempt: number, error: unknown): HandlerResult {
    const { headers } = message;
    const result = failed(error, headers === undefined ? Infinity : expiresAt(headers));
    if (this.isAborted && result.kind === "failed" && result.delayMs === undefined) return cutOff;
    if (result.kind !== "deferred") this.report(message, topic, attempt, result, error);
    return result;
  }

  /** Reports a failed attempt as a status. */
  report(
    { sender, messageId: id }: HandledMessage,
    topic: string,
    attempt: number,
    { errorCode: code, errorMessage: message }: { readonly errorCode: string; readonly errorMessage: string },
    error: unknown,
  ): void {
    const peer = sender?.name ?? "";
    this.#status.report({ kind: "attempt_failed", topic, peer, id, attempt, code, message, error });
  }
}

async function endClient(client: Transaction | undefined): Promise<void> {
  await (client as (Transaction & { end(): Promise<void> }) | undefined)?.end().catch(() => undefined);
}

/** True if the value is a promise or another thenable. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    (typeof value === "object" || typeof value === "function") &&
    value !== null &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

/** Last checked headers without a time to live. */
let lastWithoutExpiry: Headers | undefined;

/** Time in ms since a message with these headers expired; 0 or negative if it has not expired. */
export function expiredMs(headers: Headers): number {
  if (headers === lastWithoutExpiry) return 0;
  const until = expiresAt(headers);
  if (until !== Infinity) return Date.now() - until;
  lastWithoutExpiry = headers;
  return 0;
}

/** Time in ms since 1970 at which a message with these headers expires; Infinity if it does not. */
function expiresAt(headers: Headers): number {
  return Number(headerValue(headers, protocolConstants.messageExpiresHeader) ?? Infinity);
}
