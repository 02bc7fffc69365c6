/**
 * Transactional handlers: the handler's effects and the end of its jobs are committed together, so that the effects
 * happen exactly once. Two transactions of the same job conflict at its row; other transactions do not block each
 * other.
 */
import type { EventEmitter } from "node:events";
import pg from "pg";
import { tables } from "../../../../generated/ts/rows/queue.js";
import { storeConstants } from "../../../../generated/ts/settings/peer.js";
import { traceConstants } from "../../../../generated/ts/settings/queue.js";
import { errorTable, HawserError } from "../../../foundation/errors/index.js";
import { isServerError, ownTypes, type PreparedStatement } from "../../../foundation/postgres/index.js";
import type { TraceContext } from "../../../foundation/runtime/index.js";
import {
  beginStatement,
  type CompletedJob,
  type Database,
  isStoreFailure,
  keptAtOnce,
  type QueuedMessage,
  resultsText,
  statementLimits,
  type Transaction,
  type UserQuery,
} from "../../store/index.js";
import { NestedTransactions } from "./nested-transactions.js";

/**
 * Outcome of a transactional handler. `rolledBack`: the handler has asked for it. `duplicate`: another transaction has
 * completed the message. `committedByHandler`: the handler has committed by itself, and then the message was completed. `notOwned`: the row is
 * on another server.
 */
type TransactionalOutcome = "committed" | "committedByHandler" | "rolledBack" | "duplicate" | "notOwned";

/** Handler of messages. If it resolves with `rollBack`, its effects are rolled back without a failure. */
type TransactionalHandler = (transaction: Transaction) => Promise<unknown>;

/** Job that a transaction completes: its row is deleted. */
export type Completion = CompletedJob & Pick<QueuedMessage, "server">;

/**
 * Sets a transaction-local setting that COMMIT or ROLLBACK by the handler resets. Its absence shows that the handler ended
 * the transaction.
 */
const handling = { text: `SET LOCAL ${storeConstants.handlingSetting} = 'on'` };
/**
 * Settings of the statements behind the handler: the role of the session, because a handler may have worked as another one,
 * for row security, which may not complete messages; the limits, because a short one of the handler would apply in every
 * attempt; and the message level, because a COMMIT that no standby has confirmed is only a warning. A SELECT would have to
 * be planned, which takes longer than all of these.
 */
const ownSettings: readonly PreparedStatement[] = [
  "SET LOCAL SESSION AUTHORIZATION DEFAULT",
  "SET LOCAL role TO DEFAULT",
  `SET LOCAL statement_timeout = ${statementLimits.statementTimeoutMs}`,
  `SET LOCAL lock_timeout = ${statementLimits.lockTimeoutMs}`,
  "SET LOCAL client_min_messages = notice",
].map((text) => ({ text }));
// Commits durably, because the answer to a request confirms the effects.
const endSql = `${ownSettings.map(({ text }) => text).join("; ")}; SELECT hawser.commit_durably(), pg_catalog.current_setting('${storeConstants.handlingSetting}', true) AS handling`;

/** Makes the trace of the messages the one of the transaction. */
function tracing(trace: TraceContext | undefined): readonly PreparedStatement[] {
  if (trace === undefined) return [];
  const { parentSetting, stateSetting } = traceConstants;
  // SET takes no parameters.
  const set = (name: string, value: string): PreparedStatement => ({
    text: `SET LOCAL ${name} = ${pg.escapeLiteral(value)}`,
  });
  return [set(parentSetting, trace.parent), set(stateSetting, trace.state)];
}

/** Statements that delete the rows of jobs, in a fixed order; none for no rows. */
function doneWith(rows: readonly Completion[]): readonly PreparedStatement[] {
  if (rows.length === 1) {
    const [{ topic, recipient, role, rank, kept }] = rows as [Completion];
    const values = [topic, recipient, role, String(rank)];
    if (kept === undefined) return [{ text: "SELECT hawser.done($1, $2, $3, $4, true)", values }];
    const ofResult = [String(kept.durationMs), kept.json ?? null];
    return [{ text: "SELECT hawser.done($1, $2, $3, $4, true, $5, $6)", values: [...values, ...ofResult] }];
  }
  const ordered = rows.toSorted((one, other) => (one.rank < other.rank ? -1 : 1));
  const atOnce = rows.some(({ kept }) => kept !== undefined) ? keptAtOnce : rows.length;
  const statements: PreparedStatement[] = [];
  for (let at = 0; at < ordered.length; at += atOnce) statements.push(doneTogether(ordered.slice(at, at + atOnce)));
  return statements;
}

function doneTogether(rows: readonly Completion[]): PreparedStatement {
  const text = pg.escapeLiteral;
  const array = (name: "topic" | "recipient" | "role"): string => `ARRAY[${rows.map((each) => text(each[name]))}]`;
  const ranks = `'{${rows.map(({ rank }) => rank)}}'`;
  const results = rows.some(({ kept }) => kept !== undefined) ? `, ${text(resultsText(rows))}` : "";
  return {
    text: `SELECT hawser.done_batch(${array("topic")}, ${array("recipient")}, ${array("role")}, ${ranks}, true${results})`,
  };
}

/**
 * Outcomes of transactions that are rolled back because their handler asks for it, or by the constraint name in an error of
 * `hawser.done`.
 */
const refusals = {
  rolled_back: "rolledBack",
  not_owned: "notOwned",
  ended: "ended",
} as const;
type CompletionRefusal = keyof typeof refusals;

/** Ends a transaction without a failure: its effects are rolled back. */
class RolledBack extends Error {
  constructor(readonly refusal: CompletionRefusal) {
    super(`the transaction was withdrawn: ${refusal}`);
  }
}

/** Reason why the transaction must not be committed; undefined if the error names none. */
function refusalOf(error: unknown): (typeof refusals)[CompletionRefusal] | "duplicate" | undefined {
  if (error instanceof RolledBack) return refusals[error.refusal];
  if (isServerError(error) && error.code === errorTable.message_gone.sqlstate) return "duplicate";
  if (!isServerError(error) || `${error.schema}.${error.table}` !== tables.queuedMessage) return undefined;
  const { constraint = "" } = error;
  return Object.hasOwn(refusals, constraint) ? refusals[constraint as CompletionRefusal] : undefined;
}

/** Trace and place in the queue for connections of one call of a handler. */
export interface HandlerOrigin {
  /** Trace that messages continue which the handler enqueues from SQL. */
  readonly trace?: TraceContext | undefined;
  /** Peer and topic. Several parties that wait for a connection take turns, so that a busy topic delays no other. */
  readonly party?: string | undefined;
}

/** Transactional handlers of a database. */
export function transactional(database: Database) {
  const inHandlerTransaction = async (
    action: string,
    { trace, party }: HandlerOrigin,
    handler: TransactionalHandler,
    end: (query: UserQuery, hasCommitted: boolean) => Promise<readonly PreparedStatement[]>,
  ): Promise<void> => {
    if (database.poolSize < 2) {
      throw new HawserError("invalid_argument", "transactional handlers need a poolSize of at least 2");
    }
    const thrown: { error?: unknown } = {};
    const handle = async (
      client: pg.ClientBase,
      query: UserQuery,
      unlimited: (part: () => Promise<unknown>) => Promise<unknown>,
    ): Promise<void> => {
      // The handler's client is disabled when the handler has returned, since later queries would run outside the
      // transaction.
      let isUsable = true;
      let end: unknown;
      const nested = new NestedTransactions(query);
      const own: Readonly<Record<PropertyKey, unknown>> = {
        query: (...given: unknown[]): unknown =>
          isUsable
            ? nested.query(given)
            : Promise.reject(new Error("the handler has returned, so its transaction has ended")),
        // Query builders such as Kysely release their client after each query; this one is released after the commit.
        release: () => undefined,
      };
      const handlerClient = new Proxy(client, {
        get: (target, name) => (Object.hasOwn(own, name) ? own[name] : Reflect.get(target, name)),
      });
      try {
        end = await unlimited(() => handler(handlerClient));
        isUsable = false;
      } catch (error) {
        isUsable = false;
        // An error thrown because the connection was lost is not the handler's failure.
        if (error instanceof HawserError || (await rollBack(client))) thrown.error = error;
        throw error;
      }
      if (end === "rollBack") throw new RolledBack("rolled_back");
    };
    const run = () =>
      database.userTransaction(action, [...tracing(trace), handling], async (client, query, unlimited) => {
        const commits = new HandlerCommits(client);
        try {
          await handle(client, query, unlimited);
        } finally {
          commits.end();
        }
        return await end(query, commits.seen);
      });
    try {
      await database.handling(party, run);
    } catch (error) {
      if ("error" in thrown) throw thrown.error;
      throw error;
    }
  };

  return {
    /**
     * Runs the handler of some jobs in a transaction (READ COMMITTED, with the timeouts of the database's role)
     * that ends with the deletion of their rows; without jobs, it deletes none. The handler must neither
     * commit nor roll back. If another transaction completes one of the jobs first, the effects are rolled back. A BEGIN of the handler is a
     * savepoint: see {@link NestedTransactions}.
     *
     * Handlers leave at least one connection of the pool to other statements. Further handlers wait for a connection.
     *
     * @throws the handler's error, with nothing committed; HawserError `handler_failed` for a handler that ended the
     * transaction itself, even if it started another one; HawserError `store_failed`, whose `outcome` is `unknown` if
     * the transaction may have been committed
     */
    async handleInTransaction(
      jobs: readonly Completion[],
      handler: TransactionalHandler,
      origin: HandlerOrigin = {},
    ): Promise<TransactionalOutcome> {
      const [job, ...others] = jobs;
      if (job === undefined) return await this.runInTransaction(handler, origin);
      const beside = others.length === 0 ? "" : ` and ${others.length} more`;
      const action = `handle the message ${job.id} of the queue${beside} in a transaction`;
      let isCommittedBefore = false;
      try {
        await inHandlerTransaction(action, origin, handler, async (_, hasCommitted) => {
          for (const { server } of jobs) if (server !== database.server) throw new RolledBack("not_owned");
          isCommittedBefore = hasCommitted;
          // Another attempt would repeat what is committed.
          const again = hasCommitted ? [{ text: "ROLLBACK" }, beginStatement, handling] : [];
          return [...again, ...ownSettings, ...doneWith(jobs)];
        });
        return isCommittedBefore ? "committedByHandler" : "committed";
      } catch (error) {
        const refusal = isStoreFailure(error) ? refusalOf(error.cause) : undefined;
        if (refusal === undefined) throw error;
        if (refusal === "ended") throw endedByHandler();
        return refusal;
      }
    },
    /**
     * Like {@link handleInTransaction} for an at-most-once message. @throws as
     * {@link handleInTransaction}
     */
    async runInTransaction(
      handler: TransactionalHandler,
      origin: HandlerOrigin = {},
    ): Promise<"committed" | "rolledBack"> {
      const action = "handle an at-most-once message in a transaction";
      try {
        await inHandlerTransaction(action, origin, handler, async (query) => {
          await endHandler(query);
          return [];
        });
        return "committed";
      } catch (error) {
        if (isStoreFailure(error) && refusalOf(error.cause) === "rolledBack") return "rolledBack";
        throw error;
      }
    },
  };
}

/** Watches for a COMMIT in a handler that {@link NestedTransactions} has not seen, such as one of a cursor. */
class HandlerCommits {
  seen = false;
  readonly #connection: EventEmitter;

  constructor(client: pg.ClientBase) {
    this.#connection = (client as unknown as { readonly connection: EventEmitter }).connection;
    this.#connection.on("commandComplete", this.#onAnswer);
  }

  end(): void {
    this.#connection.off("commandComplete", this.#onAnswer);
  }

  readonly #onAnswer = ({ text }: { readonly text: string }): void => {
    this.seen ||= text === "COMMIT";
  };
}

/**
 * Restores Hawser's own limits after the handler.
 *
 * @throws HawserError `handler_failed` if the transaction is not the original one any more
 */
async function endHandler(query: UserQuery): Promise<void> {
  const results = (await query({ text: endSql, types: ownTypes })) as pg.QueryResult<{ handling: string | null }>[];
  if (results.at(-1)!.rows[0]!.handling !== "on") throw endedByHandler();
}

function endedByHandler(): HawserError {
  return new HawserError(
    "handler_failed",
    "the handler ended its transaction with COMMIT or ROLLBACK: its statements up to there were committed or rolled back without " +
      "the end of the message; remove both, and use SAVEPOINT to roll back a part",
  );
}

/** Rolls back a failed transaction. Returns false if its connection is lost. */
async function rollBack(client: pg.ClientBase): Promise<boolean> {
  try {
    await client.query("ROLLBACK");
    return true;
  } catch {
    return false;
  }
}
