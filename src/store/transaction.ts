/**
 * Transactions of several statements, the knowledge of whether one was committed, and the fence of a name that each begins
 * with. (The functions `hawser.store_messages` and `hawser.commit_cursors` hold the same rule within themselves.)
 */
import type pg from "pg";
import { tables } from "../../generated/ts/rows/peer.js";

/** A writer: a name, and the epoch in which it was taken. A Lease is one. */
export interface WriterName {
  readonly name: string;
  readonly epoch: number;
}

/** The two statements with which a fenced transaction begins, in this order. */
export const fenceSql = {
  /** Waits for a process that is taking the name, and makes the next one wait. $1: the name. */
  lock: "SELECT pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || $1::text, 0))",
  /** One row while the epoch is the catalog's. $1: the name, $2: the epoch. */
  check: `SELECT FROM ${tables.peerName} WHERE name = $1 AND epoch = $2`,
} as const;

/** The key of a name's lease lock, as an SQL expression over $1, the name. */
export const leaseLockKey = "hashtextextended('hawser:lease:' || $1::text, 0)";

/** A client inside a transaction. */
export type Transaction = pg.ClientBase;

/** Carries an error from before COMMIT was sent: whatever it was, nothing is committed. */
export class NotCommitted extends Error {
  /**
   * @param cause what ended the transaction
   * @param rolledBack the connection can be used again
   */
  constructor(
    override readonly cause: unknown,
    readonly rolledBack: boolean,
  ) {
    super("the transaction was not committed");
  }
}

/** READ COMMITTED, as the fence needs it. */
export const beginSql = "BEGIN ISOLATION LEVEL READ COMMITTED";

/**
 * Runs `work` in a transaction.
 *
 * @param begin one or several statements, of which the first is {@link beginSql}
 * @throws NotCommitted if anything went wrong before COMMIT was sent, with what `work` threw as its cause; the driver's
 * error if COMMIT itself failed
 */
export async function inTransaction<T>(
  client: pg.ClientBase,
  begin: string,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  let result: T;
  try {
    await client.query(begin);
    result = await work(client);
  } catch (error) {
    const rolledBack = await client.query("ROLLBACK").then(
      () => true,
      () => false,
    );
    throw new NotCommitted(error, rolledBack);
  }
  const { command } = await client.query("COMMIT");
  // COMMIT of a transaction in which a statement failed unnoticed rolls back, and is no error.
  if (command !== "COMMIT") throw new NotCommitted(new Error("a statement in it had failed"), true);
  return result;
}

/**
 * Takes the shared lock on the name's fence, which holds until the end of the transaction, and checks whether the catalog
 * has the writer's epoch: if so, it cannot change before the end.
 */
export async function isHeld(transaction: Transaction, writer: WriterName): Promise<boolean> {
  await transaction.query({ text: fenceSql.lock, values: [writer.name] });
  // A statement of its own: its snapshot is from after the wait for the lock.
  const { rowCount } = await transaction.query({ text: fenceSql.check, values: [writer.name, writer.epoch] });
  return rowCount === 1;
}
