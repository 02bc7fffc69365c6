/**
 * Handlers inside a transaction: the handler's effects and the cursor's move are committed together, so that the effects
 * happen exactly once.
 */
import type pg from "pg";
import { type ConnMessNumberRow, tables } from "../../generated/ts/rows/peer.js";
import { HawserError, StoreError } from "../errors/index.js";
import { localSettingsSql, userPathSql } from "../postgres/index.js";
import type { Position } from "./channels.js";
import { columnsOf } from "./columns.js";
import { commitCursorsWith } from "./cursor-commits.js";
import { type Database, statementLimits } from "./database.js";
import type { Transaction } from "./transaction.js";
import { epochSql, type WriterName } from "./transaction.js";

/** What became of a message: `duplicate` if its handling was committed before; then the handler is not called. */
type TransactionalOutcome = "committed" | "duplicate" | "notOwned" | "fenced";

/** Runs handlers in transactions. */
export interface Transactional {
  /**
   * Runs the handler of one message in a transaction (READ COMMITTED, with the timeouts of the database's role) that
   * first locks the channel's cursor, and last moves it to the message, behind the fence. The transaction belongs to this
   * function: the handler neither commits nor rolls back. If the name or the channel is lost while it runs, what it did
   * is rolled back.
   *
   * Handlers leave at least one connection of the pool to everybody else; those that find none free wait.
   *
   * @throws what the handler threw, with nothing committed; StoreError `handler_failed` for a handler that ended the
   * transaction itself, whether or not it began another one; StoreError `store_failed`, whose `outcome` is `unknown` if
   * all of it may have been committed
   */
  handleInTransaction(
    lease: WriterName,
    message: Position & { readonly connectionKey: number },
    handler: (transaction: Transaction) => Promise<void>,
  ): Promise<TransactionalOutcome>;
  /** The same for a message that has no number: a transaction without a cursor. @throws as {@link handleInTransaction} */
  runInTransaction(handler: (transaction: Transaction) => Promise<void>): Promise<void>;
}

const cursor = columnsOf<ConnMessNumberRow>()("epoch", "v");

/** Gives the transaction an id where it has none: no other one ever has the same. */
const transactionId = "pg_catalog.pg_current_xact_id()::text";

const sql = {
  // No fence yet: a handler may run long, and the next process of the name should not wait for it.
  hasRight: `SELECT EXISTS (${epochSql}) AS held,
                    EXISTS (SELECT FROM ${tables.connKeyMap}
                             WHERE connection_key = $3 AND coalesce(owner, listener_name) = $1) AS owned`,
  // Makes the row where it is absent, so that there is always something to lock.
  lockCursor: `INSERT INTO ${tables.connMessNumber} AS c (connection_key) VALUES ($1)
               ON CONFLICT (connection_key) DO UPDATE SET attempts = c.attempts
               RETURNING ${cursor.sql()}, ${transactionId} AS transaction_id`,
  beginUnnumbered: `${userPathSql}; SELECT ${transactionId} AS transaction_id`,
  // A short time limit of the handler's own would go on to be that of what follows, for ever. Durably, as the answer to a
  // request says that it is done.
  endHandler: `${localSettingsSql(statementLimits)}; SELECT hawser.commit_durably(), pg_catalog.pg_current_xact_id_if_assigned()::text AS transaction_id`,
} as const;

/** Ends a transaction without an error: what it did does not count. */
class Withdrawn extends Error {
  constructor(readonly outcome: TransactionalOutcome) {
    super(`the transaction was withdrawn: ${outcome}`);
  }
}

const placesOf = new WeakMap<Database, Places>();

/** Transactions of a database. */
export function transactional(database: Database): Transactional {
  // Of the pool, not of its user: all peers of the process share it.
  const places = placesOf.get(database) ?? new Places(() => database.poolSize - 1);
  placesOf.set(database, places);

  const handle = async (
    transaction: Transaction,
    lease: WriterName,
    message: Position & { readonly connectionKey: number },
    handler: (transaction: Transaction) => Promise<void>,
  ): Promise<TransactionalOutcome> => {
    const { connectionKey } = message;
    const right = await transaction.query(sql.hasRight, [lease.name, lease.epoch, connectionKey]);
    if (!right.rows[0].held) return "fenced";
    if (!right.rows[0].owned) return "notOwned";
    const locked = await transaction.query<typeof cursor.row & TransactionId>(sql.lockCursor, [connectionKey]);
    const row = locked.rows[0]!;
    if (isAtOrAfter(row, message)) return "duplicate";
    await transaction.query(userPathSql);
    await handler(transaction);
    await endHandler(transaction, row.transaction_id);
    const result = await commitCursorsWith(database.callerIn(transaction), lease, [message]);
    if (result === "fenced") throw new Withdrawn("fenced");
    if (result.committed.length === 0) throw new Withdrawn("notOwned");
    return "committed";
  };

  const withPlace = async <T>(
    action: string,
    handler: (transaction: Transaction) => Promise<void>,
    work: (transaction: Transaction, caught: (transaction: Transaction) => Promise<void>) => Promise<T>,
  ): Promise<T> => {
    if (database.poolSize < 2) {
      throw new StoreError("invalid_argument", "transactional handlers need a poolSize of at least 2");
    }
    const thrown: { error?: unknown } = {};
    let unlimited: (part: () => Promise<void>) => Promise<void> = (part) => part();
    const caught = async (transaction: Transaction): Promise<void> => {
      // Of no use after the handler's end: what still runs of it would write outside of the transaction.
      let isLent = true;
      const lent = new Proxy(transaction, {
        get: (client, name) =>
          isLent || name !== "query"
            ? Reflect.get(client, name)
            : () => Promise.reject(new Error("the handler has ended, and its transaction with it")),
      });
      try {
        await unlimited(() => handler(lent));
        isLent = false;
      } catch (error) {
        isLent = false;
        // What a handler throws because its connection is gone says nothing about the handler.
        if (HawserError.is(error) || (await answers(transaction))) thrown.error = error;
        throw error;
      }
    };
    await places.take();
    try {
      return await database.foreignTransaction(action, (transaction, withoutLimit) => {
        unlimited = withoutLimit;
        return work(transaction, caught);
      });
    } catch (error) {
      if ("error" in thrown) throw thrown.error;
      throw error;
    } finally {
      places.giveBack();
    }
  };

  return {
    async handleInTransaction(lease, message, handler) {
      const action = `handle message ${message.number} of channel ${message.connectionKey} in a transaction`;
      try {
        return await withPlace(action, handler, (transaction, caught) => handle(transaction, lease, message, caught));
      } catch (error) {
        if (error instanceof StoreError && error.cause instanceof Withdrawn) return error.cause.outcome;
        throw error;
      }
    },
    async runInTransaction(handler) {
      await withPlace("handle an at-most-once message in a transaction", handler, async (transaction, caught) => {
        const { transaction_id: id } = await lastRow<TransactionId>(transaction, sql.beginUnnumbered);
        await caught(transaction);
        await endHandler(transaction, id);
      });
    },
  };
}

interface TransactionId {
  readonly transaction_id: string;
}

/** What the last of several statements returns. */
async function lastRow<Row extends object>(transaction: Transaction, text: string): Promise<Row> {
  const results = (await transaction.query(text)) as unknown as pg.QueryResult<Row>[];
  return results.at(-1)!.rows[0]!;
}

/**
 * Back to Hawser's own settings after the handler.
 *
 * @throws StoreError `handler_failed` unless the transaction is still the one that was begun for it
 */
async function endHandler(transaction: Transaction, id: string): Promise<void> {
  const { transaction_id: now } = await lastRow<Partial<TransactionId>>(transaction, sql.endHandler);
  if (now === id) return;
  throw new StoreError(
    "handler_failed",
    "the handler ended its transaction with COMMIT or ROLLBACK: what it did up to there was committed, or lost, without " +
      "the message; leave both out, and use SAVEPOINT to take back a part",
  );
}

/** Whether the connection of a transaction that is given up still works. */
async function answers(transaction: Transaction): Promise<boolean> {
  try {
    await transaction.query("ROLLBACK");
    return true;
  } catch {
    return false;
  }
}

function isAtOrAfter(row: typeof cursor.row, { epoch, number }: Position): boolean {
  const cursorEpoch = Number(row.epoch);
  return cursorEpoch > epoch || (cursorEpoch === epoch && Number(row.v) >= number);
}

/** How many handlers may have a connection at once; first come, first served. */
class Places {
  #taken = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #count: () => number;

  constructor(count: () => number) {
    this.#count = count;
  }

  async take(): Promise<void> {
    if (this.#taken < this.#count()) this.#taken += 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** The one that waits longest has the place then. */
  giveBack(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#taken -= 1;
    else next();
  }
}
