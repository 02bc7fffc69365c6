/**
 * Handlers inside a transaction: the handler's effects and a mark of the message are committed together, so that the effects
 * happen exactly once. Two transactions of the same message collide at the mark; no other ones wait for each other.
 */
import pg from "pg";
import { tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { isServerError } from "../postgres/index.js";
import { Room } from "../runtime/index.js";
import type { Position } from "./channels.js";
import { type Database, statementLimits } from "./database.js";
import type { Transaction, WriterName } from "./transaction.js";

/** What became of a message: `duplicate` if it is done by another transaction. */
type TransactionalOutcome = "committed" | "duplicate" | "notOwned" | "fenced";

/** A message that is to be handled. */
export interface HandledMessage extends Position {
  readonly connectionKey: number;
  /** An attempt before may have been committed. */
  readonly mayBeDone?: boolean;
  /** It is parked: its row there goes, in place of a mark. */
  readonly isParked?: boolean;
}

/** A handler that ends the transaction takes it back. */
const handlingSql = `SET LOCAL ${storeConstants.handlingSetting} = 'on'`;
// A short time limit of the handler's own would go on to be that of what follows, for ever.
const ownLimitsSql = `SET LOCAL lock_timeout = ${statementLimits.lockTimeoutMs}; SET LOCAL statement_timeout = ${statementLimits.statementTimeoutMs}`;
// Durably, as the answer to a request says that it is done.
const endSql = `${ownLimitsSql}; SELECT hawser.commit_durably(), pg_catalog.current_setting('${storeConstants.handlingSetting}', true) AS handling`;

/** Messages of one channel, all of them parked or none. */
interface Part {
  readonly connectionKey: number;
  readonly isParked: boolean;
  readonly positions: Position[];
  /** The first arguments of the functions below, as text, since several statements are sent at once; the numbers are whole ones. */
  readonly given: string;
}

/** In an order that is the same for all, so that two transactions never wait for each other's marks in a circle. */
function partsOf({ name, epoch }: WriterName, messages: readonly HandledMessage[]): Part[] {
  const parts = new Map<string, HandledMessage[]>();
  for (const message of messages) {
    const id = `${message.connectionKey} ${message.isParked === true}`;
    parts.set(id, [...(parts.get(id) ?? []), message]);
  }
  return [...parts.values()]
    .map((positions): Part => {
      const [{ connectionKey, isParked = false }] = positions as [HandledMessage];
      const numbers = `'{${positions.map((one) => one.epoch)}}', '{${positions.map((one) => one.number)}}'`;
      const given = `${pg.escapeLiteral(name)}, ${epoch}, ${connectionKey}, ${numbers}`;
      return { connectionKey, isParked, positions, given };
    })
    .sort((one, other) => one.connectionKey - other.connectionKey || Number(one.isParked) - Number(other.isParked));
}

/** Why messages are not to be handled, as an SQL expression. */
function refusalSql({ connectionKey, isParked, positions, given }: Part): string {
  if (!isParked) return `hawser.handling_refusal(${given}, true)`;
  const numbers = positions.map(({ epoch, number }) => `(${epoch}, ${number})`);
  return `(SELECT CASE WHEN pg_catalog.count(*) < ${positions.length} THEN 'duplicate' END FROM ${tables.parkedMessage} AS p
            WHERE p.connection_key = ${connectionKey} AND (p.epoch, p.number) IN (${numbers}))`;
}

/** What `hawser.handling_refusal` says, and `hawser.mark_done` by the name of the constraint that its error has. */
const refusals = { duplicate: "duplicate", not_owned: "notOwned", fenced: "fenced", ended: "ended" } as const;
type Refusal = keyof typeof refusals;

/** Ends a transaction without an error: what it did does not count. */
class Withdrawn extends Error {
  constructor(readonly refusal: Refusal) {
    super(`the transaction was withdrawn: ${refusal}`);
  }
}

/** Why a transaction is not to be committed; undefined for an error that says something else. */
function refusalOf(error: unknown): (typeof refusals)[Refusal] | undefined {
  if (error instanceof Withdrawn) return refusals[error.refusal];
  if (!isServerError(error) || error.schema !== "hawser" || error.table !== "done_messages") return undefined;
  const { constraint = "" } = error;
  return Object.hasOwn(refusals, constraint) ? refusals[constraint as Refusal] : undefined;
}

/** For handlers that have a connection at once. */
const roomOf = new WeakMap<Database, Room>();

/** Runs handlers in transactions of a database. */
export function transactional(database: Database) {
  // Of the pool, not of its user: all peers of the process share it.
  const room = roomOf.get(database) ?? new Room(1);
  roomOf.set(database, room);

  const withPlace = async (
    action: string,
    look: string | undefined,
    handler: (transaction: Transaction) => Promise<void>,
    end: (transaction: Transaction) => string | Promise<string>,
  ): Promise<void> => {
    if (database.poolSize < 2) {
      throw new HawserError("invalid_argument", "transactional handlers need a poolSize of at least 2");
    }
    const thrown: { error?: unknown } = {};
    const handle = async (
      transaction: Transaction,
      unlimited: (part: () => Promise<void>) => Promise<void>,
    ): Promise<void> => {
      // Of no use after the handler's end: what still runs of it would write outside of the transaction.
      let isLent = true;
      const query = (...given: [never]): unknown =>
        isLent
          ? transaction.query(...given)
          : Promise.reject(new Error("the handler has ended, and its transaction with it"));
      const lent = new Proxy(transaction, {
        get: (client, name) => (name === "query" ? query : Reflect.get(client, name)),
      });
      try {
        await unlimited(() => handler(lent));
        isLent = false;
      } catch (error) {
        isLent = false;
        // What a handler throws because its connection is gone says nothing about the handler.
        if (error instanceof HawserError || (await answers(transaction))) thrown.error = error;
        throw error;
      }
    };
    room.limit = database.poolSize - 1;
    await room.take();
    try {
      const begin = look === undefined ? handlingSql : `${handlingSql}; SELECT ${look} AS refusal`;
      await database.foreignTransaction<Begun>(action, begin, async (transaction, begun, unlimited) => {
        if (typeof begun?.refusal === "string") throw new Withdrawn(begun.refusal);
        await handle(transaction, unlimited);
        return await end(transaction);
      });
    } catch (error) {
      if ("error" in thrown) throw thrown.error;
      throw error;
    } finally {
      room.giveBack();
    }
  };

  /** Whether messages are done; not if that cannot be told. */
  const isDone = async (part: Part): Promise<boolean> => {
    try {
      const text = `SELECT ${refusalSql(part)} AS refusal`;
      const [row] = await database.query<Begun>("look whether a message is done", { text });
      return row?.refusal === "duplicate";
    } catch {
      return false;
    }
  };

  return {
    /**
     * Runs the handler of some messages in a transaction (READ COMMITTED, with the timeouts of the database's role) that
     * ends with marking them as done; without a message it marks none. The transaction belongs to this function: the handler
     * neither commits nor rolls back. If another one does one of the messages meanwhile, or if the name or a channel is lost, what
     * it did is rolled back. Whether a message is done that may be is looked before it is called.
     *
     * Handlers leave at least one connection of the pool to everybody else; those that find none free wait.
     *
     * @throws what the handler threw, with nothing committed; HawserError `handler_failed` for a handler that ended the
     * transaction itself, whether or not it began another one; HawserError `store_failed`, whose `outcome` is `unknown` if
     * all of it may have been committed
     */
    async handleInTransaction(
      lease: WriterName,
      messages: readonly HandledMessage[],
      handler: (transaction: Transaction) => Promise<void>,
    ): Promise<TransactionalOutcome> {
      const [message, ...others] = messages;
      if (message === undefined) {
        await this.runInTransaction(handler);
        return "committed";
      }
      const beside = others.length === 0 ? "" : ` and ${others.length} more`;
      const action = `handle message ${message.number} of channel ${message.connectionKey}${beside} in a transaction`;
      const parts = partsOf(lease, messages);
      let hasThrown = false;
      try {
        const watched = async (transaction: Transaction): Promise<void> => {
          try {
            await handler(transaction);
          } catch (error) {
            hasThrown = true;
            throw error;
          }
        };
        await withPlace(
          action,
          messages.some(({ mayBeDone }) => mayBeDone === true) ? `coalesce(${parts.map(refusalSql)})` : undefined,
          watched,
          () =>
            [
              ownLimitsSql,
              ...parts.map(
                ({ isParked, given }) => `SELECT hawser.${isParked ? "finish_parked" : "mark_done"}(${given})`,
              ),
            ].join("; "),
        );
        return "committed";
      } catch (error) {
        const refusal = error instanceof HawserError ? refusalOf(error.cause) : undefined;
        if (refusal === undefined) {
          // What another transaction of the same message has written may be all that is wrong.
          if (hasThrown && others.length === 0 && (await isDone(parts[0]!))) return "duplicate";
          throw error;
        }
        if (refusal === "ended") throw endedByHandler();
        return refusal;
      }
    },
    /** The same for what has no number: nothing is marked. @throws as {@link handleInTransaction} */
    async runInTransaction(handler: (transaction: Transaction) => Promise<void>): Promise<void> {
      await withPlace("handle an at-most-once message in a transaction", undefined, handler, async (transaction) => {
        await endHandler(transaction);
        return "";
      });
    },
  };
}

interface Begun {
  readonly refusal: Refusal | null;
}

/**
 * Back to Hawser's own limits after the handler.
 *
 * @throws HawserError `handler_failed` unless the transaction is still the one that was begun for it
 */
async function endHandler(transaction: Transaction): Promise<void> {
  const results = (await transaction.query(endSql)) as unknown as pg.QueryResult<{ handling: string | null }>[];
  if (results.at(-1)!.rows[0]!.handling !== "on") throw endedByHandler();
}

function endedByHandler(): HawserError {
  return new HawserError(
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
