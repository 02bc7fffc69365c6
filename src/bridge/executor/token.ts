/**
 * The token of a wrapper in SQL statements. As a parameter, the token would appear in Postgres's log if that logs
 * parameters. So the parameter is a proof that is valid for one transaction, and an SQL function of Hawser exchanges it
 * for the token. See schema/functions/bridge/token_of.sql.
 */
import { createHash } from "node:crypto";

/** Column of the first statement of a transaction, see {@link TransactionMark}. */
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
 * SQL expression of the token.
 *
 * @param handler parameter with the id of the binding
 * @param proof parameter with a {@link proofOf}
 */
export function tokenSql(handler: string, proof: string): string {
  return `hawser.token_of(${handler}::bigint, ${proof}::pg_catalog.bytea)`;
}
