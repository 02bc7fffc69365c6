/**
 * What an error of a transaction means for the messages that were handled in it.
 */
import pg from "pg";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { HawserError, shortened } from "../../errors/index.js";

/** See `Outcome` of the lanes for what each is taken as. */
export type Failure =
  /** Somebody's function, or a constraint. */
  | { readonly kind: "failed" | "timed_out" | "transient"; readonly code: string; readonly message: string }
  /** The session is gone. */
  | { readonly kind: "lost"; readonly message: string }
  /** Postgres does not write: it is a replica, or is starting or stopping. */
  | { readonly kind: "unavailable"; readonly code: string; readonly message: string };

/** No message is to blame for these. Classes and codes of SQLSTATE; 58P01 and 58P02 are of files that functions name. */
const transient = /^(40...|53...|55P03|55P04|57P0[45]|580..|25P0[34]|08...)$/;

/** The server is going, coming or only readable. */
const unavailable = /^(57P0[1-3]|25006)$/;

const queryCanceled = "57014";

/**
 * Of an error that has left the session as it was: whether it has ended is known to the session.
 *
 * @param elapsedMs since the transaction began
 * @param timeoutMs the statement timeout
 */
export function failureOf(error: unknown, elapsedMs: number, timeoutMs: number): Failure {
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) {
    const message = wordsOf(error);
    // Before a session was there, the login can be at fault: waited for, too.
    return HawserError.is(error) ? { kind: "unavailable", code: error.code, message } : { kind: "lost", message };
  }
  const { code } = error;
  const message = wordsOf(error);
  if (unavailable.test(code)) return { kind: "unavailable", code, message };
  if (code === queryCanceled) return { kind: elapsedMs >= timeoutMs ? "timed_out" : "transient", code, message };
  return { kind: transient.test(code) ? "transient" : "failed", code, message };
}

/** What a function says can be of any length, and is kept with each message that fails. */
export function wordsOf(error: unknown): string {
  return shortened(error instanceof Error ? error.message : String(error), limits.DeadLetter.errorMessage.maxBytes);
}
