/**
 * Errors of Hawser: {@link HawserError}, which every layer throws, and {@link Reject} and {@link RetryAfter}, which
 * handlers throw.
 */
import { type ErrorCodeName as ErrorCode, errorTable } from "../../../generated/ts/errors/errors.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { errorMessageOf } from "./message-text.js";

export type { ErrorCode };

/** Options of an error besides its code and message. */
export interface HawserErrorOptions {
  /** Error that led to this one, such as that of Postgres or of a socket. */
  readonly cause?: unknown;
  /** State of the message, if the error ends a send; see {@link HawserError.outcome}. */
  readonly outcome?: "unknown";
  /** Facts beyond the message, for SQL's DETAIL. Never a secret. */
  readonly detail?: string | undefined;
  /** Next step for the reader, if it is more precise than the remedy of the code. */
  readonly remedy?: string | undefined;
  /** False if the same cannot succeed, as other errors of the code may. Default: what the spec says of the code. */
  readonly retryable?: boolean | undefined;
}

/**
 * Error with a stable code. The spec's error table (`proto/hawser/errors/v1/details.proto`) has the meaning and remedy
 * of each code; the message says what happened, with which value, and what to do.
 *
 * `error instanceof HawserError` is also true for an error of another copy of the package: two versions in one process,
 * or a test runner that loads modules twice.
 */
export class HawserError extends Error {
  static {
    recognizeAcrossCopies(HawserError, "HawserError");
  }

  /** Stable code: a key of the error table, such as `busy`. */
  readonly code: ErrorCode;
  /** True if trying the same again may succeed. */
  readonly retryable: boolean;
  /**
   * `unknown` if the message, or the call, may have arrived or may still arrive. Absent if nothing was sent, and for errors
   * that end no send.
   */
  declare readonly outcome?: "unknown";
  /** Facts beyond the message, such as the server's own words: DETAIL in SQL. Absent if there are none. */
  declare readonly detail?: string;
  /**
   * Next step for the reader: the remedy for this case if there is one, otherwise the remedy of the code. HINT in SQL.
   * Enumerable, so that Node prints it with an uncaught error.
   */
  readonly remedy: string;
  /** Exit status of a command that ends with this error. */
  declare readonly exitStatus: number;

  /**
   * @param code key of the error table
   * @param message what happened, with which value, and what to do
   */
  constructor(code: ErrorCode, message: string, options: HawserErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const { retryable, remedy, exitStatus } = errorTable[code];
    this.code = code;
    this.retryable = options.retryable ?? retryable;
    if (options.outcome !== undefined) this.outcome = options.outcome;
    if (options.detail !== undefined) this.detail = options.detail;
    this.remedy = options.remedy ?? remedy;
    Object.defineProperty(this, "exitStatus", { value: exitStatus });
    // Programs recognize an abort by this name, as with Node's own errors.
    if (code === "aborted") setName(this, "AbortError");
  }
}

/**
 * Thrown by users' handlers for a message that can never succeed: the message is dead-lettered at once, and a request
 * is answered with the error.
 */
export class Reject extends HawserError {
  static {
    recognizeAcrossCopies(Reject, "Reject");
  }

  /** @param reason problem with the message, shown in the dead letter and to the sender of a request */
  constructor(reason: string, options: HawserErrorOptions = {}) {
    super("rejected", reason, options);
  }
}

/** Options of a {@link RetryAfter}. */
export interface RetryAfterOptions extends Pick<HawserErrorOptions, "cause"> {
  /**
   * Counts the call as a failed attempt: after the last one that `retry.attempts` allows, the message becomes a dead letter.
   * Default: false.
   */
  readonly countsAttempt?: boolean | undefined;
  /** Reason for the delay, shown in the dead letter if attempts are counted. */
  readonly reason?: string | undefined;
}

const maxRetryMs = queueConstants.maxLaterDays * 86_400_000;

/**
 * Thrown by users' handlers for a message that cannot be handled yet: the message is handled again at a time. Its
 * transaction is rolled back, and later messages of its key wait with it. A message whose time to live ends before that time
 * becomes a dead letter (`expired`) then.
 */
export class RetryAfter extends HawserError {
  static {
    recognizeAcrossCopies(RetryAfter, "RetryAfter");
  }

  /** Earliest time of the next call, by the clock of this process. */
  readonly retryAt: Date;
  /** True if the call is a failed attempt. */
  readonly countsAttempt: boolean;

  /**
   * @param when delay from now in milliseconds, or the time of the next call; at most ten years from now. A time in the past
   * means now
   * @throws HawserError `invalid_argument`
   */
  constructor(when: number | Date, options: RetryAfterOptions = {}) {
    const { countsAttempt = false, reason } = options;
    const now = Date.now();
    const delayMs = when instanceof Date ? Math.max(0, when.getTime() - now) : when;
    if (typeof delayMs !== "number" || !(delayMs >= 0 && delayMs <= maxRetryMs)) {
      const text = `RetryAfter ${String(when)}: must be a number of ms from 0 to ${maxRetryMs}, or a Date until then`;
      throw new HawserError("invalid_argument", text);
    }
    const retryAt = new Date(Math.ceil(now + delayMs));
    super("handler_failed", reason ?? `the handler wants the message again at ${retryAt.toISOString()}`, options);
    this.retryAt = retryAt;
    this.countsAttempt = countsAttempt;
  }
}

/**
 * Makes `instanceof` recognize errors that another copy of the package has created from its own class. Derived classes
 * are recognized by their prototype, as usual.
 */
function recognizeAcrossCopies(errorClass: typeof HawserError | typeof Reject | typeof RetryAfter, name: string): void {
  const brand = Symbol.for(`hawser.${name}`);
  setName(errorClass.prototype, name);
  // A bundler renames a class that its own static block mentions, and Node prints an uncaught error by that name.
  Object.defineProperty(errorClass, "name", { value: name, configurable: true });
  Object.defineProperty(errorClass.prototype, brand, { value: true });
  Object.defineProperty(errorClass, Symbol.hasInstance, {
    value(this: unknown, value: unknown): boolean {
      if (this !== errorClass) return Function.prototype[Symbol.hasInstance].call(this as typeof HawserError, value);
      return typeof value === "object" && value !== null && brand in value;
    },
  });
}

/** Sets a name that is not enumerable, like the name of Node's own errors, so that it is not printed as a property. */
function setName(error: Error, name: string): void {
  Object.defineProperty(error, "name", { value: name, configurable: true, writable: true });
}

/** Exit status of a command that ends with `error`; for anything but a {@link HawserError}, the status of a defect. */
export function exitStatusOf(error: unknown): number {
  return error instanceof HawserError ? error.exitStatus : errorTable.internal.exitStatus;
}

/** Returns a `HawserError` unchanged, and wraps any other value in an `internal` error as its cause. */
export function asHawserError(error: unknown): HawserError {
  if (error instanceof HawserError) return error;
  return new HawserError("internal", errorMessageOf(error), { cause: error });
}
