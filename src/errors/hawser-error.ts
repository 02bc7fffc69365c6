/**
 * The error every layer of Hawser throws.
 */
import { type ErrorCodeName as ErrorCode, type ErrorEntry, errorTable } from "../../generated/ts/errors/errors.js";

export type { ErrorCode };

/**
 * Marks our errors across copies of the package (two versions in one process, a worker's clone of the module graph),
 * where `instanceof` says no. The value is the name of the class.
 */
const brand = Symbol.for("hawser.error");

/**
 * What is known of a message whose send failed: `unknown` says that it may have arrived, or may still arrive. An error
 * without an outcome says that nothing was sent.
 */
export type ErrorOutcome = "unknown";

/** What an error may carry beside its code and message. */
export interface HawserErrorOptions {
  /** What led to it, such as the error of Postgres or of a socket. */
  readonly cause?: unknown;
  /** What is known of the message, where the error ends a send. */
  readonly outcome?: ErrorOutcome;
  /** What is known beyond the message, for SQL's DETAIL: never a secret. */
  readonly detail?: string | undefined;
  /** What to do, for SQL's HINT, where it is more precise than the remedy of the code. */
  readonly hint?: string | undefined;
}

/**
 * An error with a stable code. What a code means, and what can be done about it, is in the spec's error table
 * (`proto/hawser/errors/v1/errors.proto`); the message says what happened here, with which value, and the remedy.
 *
 * Throw the leaf of your layer ({@link PeerError}, {@link StoreError}, …), so that a log line tells where it was thrown;
 * catch by {@link HawserError.is} and `code`.
 */
export class HawserError extends Error {
  static override readonly name: string = "HawserError";

  /** The stable code: a key of the error table, such as `no_address`. */
  readonly code: ErrorCode;
  /** True where trying the same again may succeed. */
  readonly retryable: boolean;
  /** What is known of the message, where the error ended a send; else absent. */
  declare readonly outcome?: ErrorOutcome;
  /** What is known beyond the message, such as the server's own words; else absent. */
  declare readonly detail?: string;
  /** What to do in this very case; else absent, and the code's remedy says it. */
  declare readonly hint?: string;

  constructor(code: ErrorCode, message: string, options: HawserErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.retryable = errorTable[code].retryable;
    if (options.outcome !== undefined) this.outcome = options.outcome;
    if (options.detail !== undefined) this.detail = options.detail;
    if (options.hint !== undefined) this.hint = options.hint;
    const name = new.target.name;
    // Not enumerable, as in Error itself, so that printing an error shows its code and cause and no bookkeeping.
    Object.defineProperty(this, "name", { value: name, configurable: true, writable: true });
    Object.defineProperty(this, brand, { value: name });
  }

  /** The code's line of the error table: wire code, SQLSTATE, exit status, summary and remedy. */
  get entry(): ErrorEntry {
    return errorTable[this.code];
  }

  /**
   * True if `value` is an error of this class, also when it was made by another copy of the package. Asked of
   * `HawserError` itself, every leaf counts.
   */
  static is<T extends typeof HawserError>(this: T, value: unknown): value is InstanceType<T> {
    if (typeof value !== "object" || value === null || !(brand in value)) return false;
    // biome-ignore lint/complexity/noThisInStatic: which leaf is asked is the point.
    const asked: string = this.name;
    return asked === "HawserError" || value[brand] === asked;
  }
}

/**
 * The exit status of a command that ends with `error`: that of its code, or that of `internal` for anything which is
 * not ours, since then we failed to say what went wrong.
 */
export function exitStatusOf(error: unknown): number {
  return HawserError.is(error) ? error.entry.exitStatus : errorTable.internal.exitStatus;
}
