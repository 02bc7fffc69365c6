/**
 * What is asked of the gateway and what it answers, as those see it who do not care about the Postgres protocol.
 */

/** An authenticated connection: one database session, which asks one call after another. */
export interface GatewaySession {
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
export interface RowAnswer {
  readonly kind: "row";
  /**
   * The column's value: text, or its bytes in UTF-8, which must not change until the client has them. Text that holds NUL
   * and bytes that are not UTF-8 are answered with the error `not_text` instead.
   */
  readonly value: string | Uint8Array | null;
}

/** No row. */
export interface NoRowAnswer {
  readonly kind: "no-row";
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

/** The answer to a call: at most one row with the one column `r` of type text, or an error. */
export type Answer = RowAnswer | NoRowAnswer | ErrorAnswer;

/** One row whose value is NULL, ready made. */
export const nullRow: RowAnswer = { kind: "row", value: null };

/** One row whose value is the empty text, ready made. */
export const emptyRow: RowAnswer = { kind: "row", value: "" };

/** No row, ready made. */
export const noRow: NoRowAnswer = { kind: "no-row" };
