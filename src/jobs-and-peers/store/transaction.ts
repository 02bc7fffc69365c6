/** Transactions of several statements, which report whether they were committed. */
import pg from "pg";
import {
  mayFollow,
  PreparedRun,
  type PreparedStatement,
  parameter,
  queryBehind,
  runPrepared,
} from "../../foundation/postgres/index.js";

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
export const beginStatement: PreparedStatement = { text: beginSql };
const commit: PreparedStatement = { text: "COMMIT" };

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
  let result: T;
  try {
    await client.query(begin);
    result = await work(client);
  } catch (error) {
    throw await rolledBack(client, error);
  }
  const { command } = await client.query("COMMIT");
  // COMMIT rolls back without an error if a statement of the transaction failed and `work` ignored it.
  if (command !== "COMMIT") throw new NotCommitted(new Error("a statement in it had failed"), true);
  return result;
}

/** Statements around those of a user. None has a name: a function could have prepared another one under it. */
export interface Surroundings {
  /** The first one is {@link beginSql}. */
  readonly begin: readonly PreparedStatement[];
  /** Statements to run after COMMIT. */
  readonly after: readonly PreparedStatement[];
  /** True if the client is one of Hawser's driver, in a session of its own. */
  readonly isPrepared: boolean;
}

/** Statement of a user's transaction, with the arguments and the result of the driver's `query`. */
export type UserQuery = (...given: unknown[]) => unknown;

/**
 * Runs `work` in a transaction with the fewest possible round trips: the statements before it are sent with its first
 * statement, and those after it with COMMIT.
 *
 * @param work gets the function that runs its statements, and resolves with the final statements of the transaction; an
 * error in them rolls back everything
 * @throws as {@link inTransaction}; the driver's error also if a final statement failed
 */
export async function inShortTransaction(
  client: pg.ClientBase,
  { begin, after, isPrepared }: Surroundings,
  work: (query: UserQuery) => Promise<readonly PreparedStatement[]>,
): Promise<void> {
  let toBegin = begin;
  const run = client.query.bind(client) as UserQuery;
  const query = (...given: unknown[]): unknown => {
    const before = toBegin;
    toBegin = [];
    if (before.length > 0) {
      if (mayFollow(client, given)) return queryBehind(client, before, given);
      // Without a transaction, the statement behind it must not reach the server.
      client.query(new PreparedRun(before, (error) => error === null || void (client as pg.Client).end()));
    }
    return run(...given);
  };
  let end: readonly PreparedStatement[];
  try {
    if (!isPrepared) {
      toBegin = [];
      await client.query(begin.map(textOf).join("; "));
    }
    end = await work(query);
  } catch (error) {
    // A rollback of a transaction that has no statement would be a warning in the log of the server.
    throw toBegin.length > 0 ? new NotCommitted(error, true) : await rolledBack(client, error);
  }
  const last = [...toBegin, ...end, commit, ...after];
  // The driver returns one result per statement.
  const commands = isPrepared
    ? (await runPrepared(client, last)).commands
    : ((await client.query(last.map(textOf).join("; "))) as unknown as pg.QueryResult[]).map(({ command }) => command);
  if (!commands.includes("COMMIT")) throw new NotCommitted(new Error("a statement in it had failed"), true);
}

/** Statement with its values as literals. */
function textOf({ text, values = [] }: PreparedStatement): string {
  if (values.length === 0) return text;
  return text.replace(/\$(\d+)/g, (_, nth: string) => pg.escapeLiteral(String(parameter(values[Number(nth) - 1]))));
}

/** Rolls back. @returns error that says so, with the given one as its cause */
async function rolledBack(client: pg.ClientBase, cause: unknown): Promise<NotCommitted> {
  const isRolledBack = await client.query("ROLLBACK").then(
    () => true,
    () => false,
  );
  return new NotCommitted(cause, isRolledBack);
}
