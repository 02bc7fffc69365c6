/** Clients and answers of the gateway, independent of the Postgres protocol. */
import { errorMessageOf, errorTable, HawserError } from "../../../foundation/errors/index.js";

/** Authenticated client connection: one database session, which makes one call after another. */
export interface GatewayClient {
  /** Number of the connection in this server, from 1. */
  readonly id: number;
  /** False once the client has disconnected, so that it cannot get an answer. */
  readonly isOpen: boolean;
}

/** Answer of one row. */
interface RowAnswer {
  readonly kind: "row";
  /** Value of the column. A text with NUL is answered with the error `not_text` instead. */
  readonly value: string | null;
}

/** Error that ends the call but not the session. */
export interface ErrorAnswer {
  readonly kind: "error";
  /** Five digits or capital letters. */
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

/** Answer to a call: one row with the single column `r` of type text, or an error. */
export type Answer = RowAnswer | ErrorAnswer;

/** Row with NULL, allocated once. */
export const nullRow: RowAnswer = { kind: "row", value: null };

/**
 * Converts an error to an answer: a `HawserError` to the SQLSTATE of its code, its message, its detail, and its remedy
 * as the hint; any other error to the SQLSTATE of `internal` and its message. Stack and cause are left out.
 */
export function errorAnswerOf(error: unknown): ErrorAnswer {
  if (error instanceof HawserError) {
    const { code, message, detail, remedy: hint } = error;
    return { kind: "error", sqlstate: errorTable[code].sqlstate, message, detail, hint };
  }
  const message = errorMessageOf(error);
  return {
    kind: "error",
    sqlstate: errorTable.internal.sqlstate,
    message: `internal error of the gateway: ${message}`,
  };
}

/** True for an internal error, which must be logged as well. */
export function isDefect(error: unknown): boolean {
  return !(error instanceof HawserError) || error.code === "internal";
}
