/**
 * Transactions of several statements, and the knowledge of whether one was committed.
 */
import type pg from "pg";

/** A writer: a name, and the epoch in which it was taken. A Lease is one. */
export interface WriterName {
  readonly name: string;
  readonly epoch: number;
}

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
  const result = await orRolledBack(client, async () => {
    await client.query(begin);
    return work(client);
  });
  const { command } = await client.query("COMMIT");
  // COMMIT of a transaction in which a statement failed unnoticed rolls back, and is no error.
  if (command !== "COMMIT") throw new NotCommitted(new Error("a statement in it had failed"), true);
  return result;
}

/**
 * Runs `work` in a transaction, with as few round trips as can be: what comes before and after it is sent together with BEGIN
 * and COMMIT.
 *
 * @param begin one or several statements, of which the first is {@link beginSql}; `work` gets the first row of the last one,
 * if it has rows
 * @param after statements that are run after COMMIT
 * @param work resolves with statements that are run at the end; an error of theirs takes back everything
 * @throws as {@link inTransaction}; the driver's error also if a statement of the end failed
 */
export async function inShortTransaction<Begun>(
  client: pg.ClientBase,
  begin: string,
  after: string,
  work: (transaction: Transaction, begun: Begun | undefined) => Promise<string>,
): Promise<void> {
  const end = await orRolledBack(client, async () => {
    // Several statements have several results.
    const begun = (await client.query(begin)) as unknown as pg.QueryResult[];
    return work(client, begun.at(-1)!.rows[0]);
  });
  const ended = (await client.query(`${end}; COMMIT; ${after}`)) as unknown as pg.QueryResult[];
  if (!ended.some(({ command }) => command === "COMMIT")) {
    throw new NotCommitted(new Error("a statement in it had failed"), true);
  }
}

/** @throws NotCommitted with what `work` threw as its cause */
async function orRolledBack<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
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
