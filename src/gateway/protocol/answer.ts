/**
 * What is asked of the gateway and what it answers, without the Postgres protocol around it.
 */
import { errorTable, HawserError } from "../../errors/index.js";

/** An authenticated client connection. Its client is one database session, which makes one call after another. */
export interface GatewayClient {
  /** Counts up from 1 in this server. */
  readonly id: number;
  /** Where it comes from: `host:port`. */
  readonly remoteAddress: string;
  /** What the client calls itself (`application_name`); empty if it says nothing. */
  readonly applicationName: string;
  /** False once the client has gone: an answer would reach nobody. */
  readonly isOpen: boolean;
}

/** One row. */
interface RowAnswer {
  readonly kind: "row";
  /** The column's value. Text that holds NUL is answered with the error `not_text` instead. */
  readonly value: string | null;
}

/** An error that ends the call and not the session. */
export interface ErrorAnswer {
  readonly kind: "error";
  /** Five digits or capital letters. */
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

/** The answer to a call: one row with the one column `r` of type text, or an error. */
export type Answer = RowAnswer | ErrorAnswer;

/** One row whose value is NULL, ready made. */
export const nullRow: RowAnswer = { kind: "row", value: null };

/**
 * The answer for an error: of a `HawserError` its code's SQLSTATE, its message, its detail, and its hint or else the
 * remedy of its code; anything else is `XX000` with its message. Never a stack or a cause.
 */
export function errorAnswerOf(error: unknown): ErrorAnswer {
  if (error instanceof HawserError) {
    const { code, message, detail, remedy: hint } = error;
    return { kind: "error", sqlstate: errorTable[code].sqlstate, message, detail, hint };
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    kind: "error",
    sqlstate: errorTable.internal.sqlstate,
    message: `internal error of the gateway: ${message}`,
  };
}

/** Whether the error is a defect of ours, which belongs in the log, too. */
export function isDefect(error: unknown): boolean {
  return !(error instanceof HawserError) || error.code === "internal";
}
