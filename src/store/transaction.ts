/** Transactions of several statements, which report whether they were committed. */
import type pg from "pg";

/** Writer: a name and the epoch in which it was taken. A Lease is a WriterName. */
export interface WriterName {
  readonly name: string;
  readonly epoch: number;
}

/** Client inside a transaction. */
export type Transaction = pg.ClientBase;

/** Error that occurred before COMMIT was sent, so that nothing is committed. */
export class NotCommitted extends Error {
  /**
   * @param cause error that ended the transaction
   * @param rolledBack true if the connection can be used again
   */
  constructor(
    override readonly cause: unknown,
    readonly rolledBack: boolean,
  ) {
    super("the transaction was not committed");
  }
}

/** READ COMMITTED, which the fence requires. */
export const beginSql = "BEGIN ISOLATION LEVEL READ COMMITTED";

/**
 * Runs `work` in a transaction.
 *
 * @param begin one or more statements, the first of which is {@link beginSql}
 * @throws NotCommitted if anything failed before COMMIT was sent, with the error of `work` as its cause; the driver's
 * error if COMMIT itself failed
 */
export async function inTransaction<T>(
  client: pg.ClientBase,
  begin: string,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  const result = await rollBackOnError(client, async () => {
    await client.query(begin);
    return work(client);
  });
  const { command } = await client.query("COMMIT");
  // COMMIT rolls back without an error if a statement of the transaction failed and `work` ignored it.
  if (command !== "COMMIT") throw new NotCommitted(new Error("a statement in it had failed"), true);
  return result;
}

/**
 * Runs `work` in a transaction with the fewest possible round trips: the statements before and after it are sent with
 * BEGIN and COMMIT.
 *
 * @param begin one or more statements, the first of which is {@link beginSql}; `work` receives the first row of the
 * last one, if any
 * @param after statements to run after COMMIT
 * @param work resolves with the final statements of the transaction; an error in them rolls back everything
 * @throws as {@link inTransaction}; the driver's error also if a final statement failed
 */
export async function inShortTransaction<Begun>(
  client: pg.ClientBase,
  begin: string,
  after: string,
  work: (transaction: Transaction, begun: Begun | undefined) => Promise<string>,
): Promise<void> {
  const end = await rollBackOnError(client, async () => {
    // The driver returns one result per statement.
    const begun = (await client.query(begin)) as unknown as pg.QueryResult[];
    return work(client, begun.at(-1)!.rows[0]);
  });
  const ended = (await client.query(`${end}; COMMIT; ${after}`)) as unknown as pg.QueryResult[];
  if (!ended.some(({ command }) => command === "COMMIT")) {
    throw new NotCommitted(new Error("a statement in it had failed"), true);
  }
}

/** Rolls back if `work` fails. @throws NotCommitted with the error of `work` as its cause */
async function rollBackOnError<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const rolledBack = await client.query("ROLLBACK").then(
      () => true,
      () => false,
    );
    throw new NotCommitted(error, rolledBack);
  }
}
