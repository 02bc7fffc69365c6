/**
 * What an error of Postgres or of its driver says: whether the server answered, what became of a write, and whether the
 * same may succeed soon.
 */
import pg from "pg";
import { HawserError } from "../errors/index.js";

/** What is known of a write that failed: surely not committed, or sent and never answered. */
export type WriteOutcome = "failed" | "unknown";

/** SQLSTATEs that the server gives as it takes the session away: operator intervention, and connection exceptions. */
const sessionEnded = /^(57P0[1-5]|08...)$/;

/** SQLSTATE of a write on a server that takes none: a standby, or a primary made read-only. */
const readOnly = "25006";

/** True if the server itself answered with `error`. */
export function isServerError(error: unknown): error is pg.DatabaseError {
  return error instanceof pg.DatabaseError;
}

/** SQLSTATE of everything that a role may not do. */
export const insufficientPrivilege = "42501";

/** SQLSTATE of an error that the server has answered with, also as the cause of an error of Hawser; undefined for all others. */
export function sqlstateOf(error: unknown): string | undefined {
  const answer = error instanceof HawserError ? error.cause : error;
  return isServerError(answer) ? answer.code : undefined;
}

/**
 * What an error means for the one statement (or COMMIT) that was sent when it came.
 *
 * An ordinary ERROR aborts the transaction, so nothing is committed. A FATAL one ends the session, and may come after
 * the commit: a backend that is terminated while it waits for a synchronous standby has committed already. Anything
 * that is not the server's answer (a reset socket, our own timeout) says nothing.
 */
export function outcomeOf(error: unknown): WriteOutcome {
  if (!isServerError(error)) return "unknown";
  const fatal = error.severity === "FATAL" || error.severity === "PANIC" || sessionEnded.test(error.code ?? "");
  return fatal ? "unknown" : "failed";
}

/** Classes of SQLSTATE that pass: connection, rolled back, out of resources, lock not available, operator intervention. */
const passing = /^(08|40|53|55P03|57)/;

/** True if the same again may succeed soon: the server was not heard, or said that it is busy, starting or full. */
export function isTransient(error: unknown): boolean {
  return !isServerError(error) || passing.test(error.code ?? "");
}

/** True if the connection should not be used again after `error`. */
export function spoilsConnection(error: unknown): boolean {
  return outcomeOf(error) === "unknown" || (isServerError(error) && error.code === readOnly);
}

/** Why sessions cannot be opened, and since when. */
export interface OpenFailure {
  readonly error: unknown;
  /** Time of the first of the failed attempts. */
  readonly since: Date;
}

/** Attempts to open sessions with one login: the series of those that failed since the last one that did not. */
export class OpenAttempts {
  #error: unknown;
  /** Time of the first of the series, by `performance.now()`. */
  #failedAt: number | undefined;

  /** A session was opened, or there is no reason to open one. */
  succeeded(): void {
    this.#error = this.#failedAt = undefined;
  }

  /** No session could be opened. */
  failed(error: unknown): void {
    this.#error = error;
    this.#failedAt ??= performance.now();
  }

  /**
   * Why no session can be opened. A refusal by the server or by Hawser counts at once, because the same login is refused again;
   * all else counts when attempts have failed for `toleratedMs`, because a server may restart.
   */
  failure(toleratedMs: number): OpenFailure | undefined {
    const failedAt = this.#failedAt;
    if (failedAt === undefined) return undefined;
    if (!this.isRefused && performance.now() - failedAt < toleratedMs) return undefined;
    return { error: this.#error, since: new Date(performance.timeOrigin + failedAt) };
  }

  /** The last attempt was refused, and the next one with the same login is, too. */
  get isRefused(): boolean {
    return this.#failedAt !== undefined && (this.#error instanceof HawserError || !isTransient(this.#error));
  }
}
