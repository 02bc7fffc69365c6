/**
 * The token of a wrapper in statements. As a parameter it would stand in Postgres's log, where that has the parameters of
 * statements. What is passed is a proof for one transaction, by which a function of ours gives the token within it. See
 * schema/functions/bridge/token_of.sql.
 */
import { createHash } from "node:crypto";

/** A column of the first statement of a transaction, as {@link TransactionMark}. */
export const transactionMarkColumn =
  "pg_catalog.pg_backend_pid() || ':' || extract(epoch FROM pg_catalog.now()) AS mark";

/** What the transaction is known by: no other one has the same session and the same moment. */
export interface TransactionMark {
  readonly mark: string;
}

/** Proves in one transaction that this process knows the token. */
export function proofOf(token: Uint8Array, { mark }: TransactionMark): Buffer {
  return createHash("sha256").update(token).update(mark).digest();
}

/** The token in SQL. @param handler the number of the binding @param proof as {@link proofOf} makes it; both as parameters */
export function tokenSql(handler: string, proof: string): string {
  return `hawser.token_of(${handler}::bigint, ${proof}::pg_catalog.bytea)`;
}
