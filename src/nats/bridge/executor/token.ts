/**
 * Keeps the tokens of wrappers out of the log of Postgres, which may contain the parameters of statements. The
 * parameter is a proof instead, which is valid for one transaction. An SQL function of Hawser exchanges the proof for
 * the token; see schema/functions/bridge/token_of.sql.
 */
import { createHash } from "node:crypto";

/** SQL column with the {@link TransactionMark}, for the first statement of a transaction. */
export const transactionMarkColumn =
  "pg_catalog.pg_backend_pid() || ':' || extract(epoch FROM pg_catalog.now()) AS mark";

/** Identifies a transaction by its session and start time. */
export interface TransactionMark {
  readonly mark: string;
}

/** Proof for one transaction that this process knows the token. */
export function proofOf(token: Uint8Array, { mark }: TransactionMark): Buffer {
  return createHash("sha256").update(token).update(mark).digest();
}

/**
 * SQL expression that returns the token.
 *
 * @param handler parameter with the id of the binding
 * @param proof parameter with a {@link proofOf}
 */
export function tokenSql(handler: string, proof: string): string {
  return `hawser.token_of(${handler}::bigint, ${proof}::pg_catalog.bytea)`;
}
