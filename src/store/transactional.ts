/**
 * Handlers inside a transaction: the handler's effects and the cursor's move are committed together, so that the effects
 * happen exactly once.
 */
import { type ConnMessNumberRow, tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import type { Position } from "./channels.js";
import { columnsOf } from "./column-list.js";
import { commitCursorsWith } from "./cursor-commits.js";
import type { Database, Transaction } from "./database.js";
import type { WriterName } from "./fence.js";
import { withIntegerArrays } from "./integer-arrays.js";

/** What became of a message: `duplicate` if its handling was committed before; then the handler is not called. */
export type TransactionalOutcome = "committed" | "duplicate" | "notOwned" | "fenced";

/** Runs handlers in transactions. */
export interface Transactional {
  /**
   * Runs the handler of one message in a transaction (READ COMMITTED, with the timeouts of the database's role) that
   * first locks the channel's cursor, and last moves it to the message. The transaction belongs to this function: the
   * handler neither commits nor rolls back.
   *
   * Handlers leave at least one connection of the pool to everybody else; those that find none free wait.
   *
   * @throws what the handler threw, with nothing committed; StoreError `store_failed`, whose `outcome` is `unknown` if
   * all of it may have been committed
   */
  handleInTransaction(
    lease: WriterName,
    message: Position & { readonly connectionKey: number },
    handler: (transaction: Transaction) => Promise<void>,
  ): Promise<TransactionalOutcome>;
}

const cursor = columnsOf<ConnMessNumberRow>()("epoch", "v");

const sql = {
  owned: `SELECT FROM ${tables.connKeyMap} WHERE connection_key = $1 AND coalesce(owner, listener_name) = $2`,
  // Makes the row where it is absent, so that there is always something to lock.
  lockCursor: `INSERT INTO ${tables.connMessNumber} AS c (connection_key) VALUES ($1)
               ON CONFLICT (connection_key) DO UPDATE SET attempts = c.attempts RETURNING ${cursor.sql()}`,
  userSettings: "SET LOCAL statement_timeout TO DEFAULT; SET LOCAL lock_timeout TO DEFAULT",
} as const;

/** Transactions of a database. */
export function transactional(database: Database): Transactional {
  const places = new Places(() => database.poolSize - 1);
  return {
    async handleInTransaction(lease, message, handler) {
      const { connectionKey, epoch, number } = message;
      const action = `handle message ${number} of channel ${connectionKey} in a transaction`;
      if (database.poolSize < 2) {
        throw new StoreError("invalid_argument", "transactional handlers need a poolSize of at least 2");
      }
      const thrown: { error?: unknown } = {};
      const work = async (transaction: Transaction): Promise<TransactionalOutcome> => {
        // The fence keeps the owner as it is until the end: handing a channel over raises its old owner's epoch.
        if ((await transaction.query(sql.owned, [connectionKey, lease.name])).rowCount === 0) return "notOwned";
        const { rows } = await transaction.query<typeof cursor.row>(sql.lockCursor, [connectionKey]);
        if (rows[0] !== undefined && isAtOrAfter(rows[0], message)) return "duplicate";
        await transaction.query(sql.userSettings);
        try {
          await handler(transaction);
        } catch (error) {
          thrown.error = error;
          throw error;
        }
        const result = await commitCursorsWith(withIntegerArrays(transaction), lease, [
          { connectionKey, epoch, number },
        ]);
        if (result === "fenced" || result.committed.length === 0) {
          throw new StoreError("internal", `could not ${action}: the cursor did not move`);
        }
        return "committed";
      };
      await places.take();
      try {
        return await database.fenced(action, lease, work, { foreign: true });
      } catch (error) {
        throw "error" in thrown ? thrown.error : error;
      } finally {
        places.giveBack();
      }
    },
  };
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

  /** Whoever waits longest has the place then. */
  giveBack(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#taken -= 1;
    else next();
  }
}
