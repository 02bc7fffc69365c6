/**
 * Transactional handlers: the handler's effects and a mark of the message are committed together, so that the effects
 * happen exactly once. Two transactions of the same message conflict at the mark; other transactions do not block each
 * other.
 */
import type { EventEmitter } from "node:events";
import pg from "pg";
import { tables } from "../../../../generated/ts/rows/peer.js";
import { tables as queueTables } from "../../../../generated/ts/rows/queue.js";
import { storeConstants } from "../../../../generated/ts/settings/peer.js";
import { traceConstants } from "../../../../generated/ts/settings/queue.js";
import { errorTable, HawserError } from "../../../foundation/errors/index.js";
import { isServerError, ownTypes, type PreparedStatement, parameter } from "../../../foundation/postgres/index.js";
import type { TraceContext } from "../../../foundation/runtime/index.js";
import {
  beginStatement,
  type CompletedJob,
  type Database,
  isStoreFailure,
  keptAtOnce,
  type Position,
  type QueuedMessage,
  resultsText,
  statementLimits,
  type Transaction,
  type UserQuery,
  type WriterName,
} from "../../store/index.js";
import { NestedTransactions } from "./nested-transactions.js";

/**
 * Outcome of a transactional handler. `rolledBack`: the handler has asked for it. `duplicate`: another transaction has
 * completed the message. `committedByHandler`: the handler has committed by itself, and then the message was completed.
 */
type TransactionalOutcome = "committed" | "committedByHandler" | "rolledBack" | "duplicate" | "notOwned" | "fenced";

/** Handler of messages. If it resolves with `rollBack`, its effects are rolled back without a failure. */
type TransactionalHandler = (transaction: Transaction) => Promise<unknown>;

/** Message that a transaction completes. */
export type Completion = JobCompletion | ChannelCompletion;

/** Job whose row is deleted. */
type JobCompletion = CompletedJob & Pick<QueuedMessage, "server">;

/** Message of a channel that gets a mark. */
interface ChannelCompletion extends Position {
  readonly channelId: number;
  /** True if an earlier attempt may have been committed. */
  readonly mayBeDone?: boolean;
  /** True if the message is parked: its parked row is deleted instead of writing a mark. */
  readonly isParked?: boolean;
}

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

/** Messages of one channel, either all parked or none. */
interface Part {
  readonly channelId: number;
  readonly isParked: boolean;
  readonly positions: Position[];
  /** First arguments of the SQL functions below. */
  readonly given: readonly [name: string, epoch: string, channelId: string, epochs: number[], numbers: number[]];
}

/** Groups messages by channel in a fixed order, so that two transactions never deadlock on each other's marks. */
function partsOf({ name, epoch }: WriterName, messages: readonly ChannelCompletion[]): Part[] {
  const parts = new Map<string, ChannelCompletion[]>();
  for (const message of messages) {
    const id = `${message.channelId} ${message.isParked === true}`;
    parts.set(id, [...(parts.get(id) ?? []), message]);
  }
  return [...parts.values()]
    .map((positions): Part => {
      const [{ channelId, isParked = false }] = positions as [ChannelCompletion];
      const [epochs, numbers] = [positions.map((one) => one.epoch), positions.map((one) => one.number)];
      return { channelId, isParked, positions, given: [name, String(epoch), String(channelId), epochs, numbers] };
    })
    .sort((one, other) => one.channelId - other.channelId || Number(one.isParked) - Number(other.isParked));
}

/** Statements that delete the rows of jobs, in a fixed order; none for no rows. */
function doneWith(rows: readonly JobCompletion[]): readonly PreparedStatement[] {
  if (rows.length === 1) {
    const [{ topic, recipient, role, rank, kept }] = rows as [JobCompletion];
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

function doneTogether(rows: readonly JobCompletion[]): PreparedStatement {
  const text = pg.escapeLiteral;
  const array = (name: "topic" | "recipient" | "role"): string => `ARRAY[${rows.map((each) => text(each[name]))}]`;
  const ranks = `'{${rows.map(({ rank }) => rank)}}'`;
  const results = rows.some(({ kept }) => kept !== undefined) ? `, ${text(resultsText(rows))}` : "";
  return {
    text: `SELECT hawser.done_batch(${array("topic")}, ${array("recipient")}, ${array("role")}, ${ranks}, true${results})`,
  };
}

/** Statement that completes messages of a channel. */
function completionOf({ isParked, given }: Part): PreparedStatement {
  const completion = isParked ? "finish_parked" : "mark_done";
  return { text: `SELECT hawser.${completion}($1, $2, $3, $4, $5)`, values: given };
}

/** SQL expression: reason why the messages must not be handled; NULL if they can be. */
function refusalSql({ channelId, isParked, positions, given }: Part): string {
  // As SQL text, because a query of several statements takes no parameters.
  if (!isParked)
    return `hawser.handling_refusal(${given.map((value) => pg.escapeLiteral(String(parameter(value))))}, true)`;
  const numbers = positions.map(({ epoch, number }) => `(${epoch}, ${number})`);
  return `(SELECT CASE WHEN pg_catalog.count(*) < ${positions.length} THEN 'duplicate' END FROM ${tables.parkedMessage} AS p
            WHERE p.channel_id = ${channelId} AND (p.epoch, p.number) IN (${numbers}))`;
}

/**
 * Query of a refusal in a transaction of the user: like Hawser's other statements, it fails where row security would
 * hide rows. The user's setting applies again afterwards.
 */
function checkSql(refusal: string): string {
  return `SET LOCAL row_security = off; SELECT ${refusal} AS refusal, pg_catalog.set_config('row_security', NULL, true)`;
}

/**
 * Outcomes of transactions that are rolled back because their handler asks for it, by the result of
 * `hawser.handling_refusal`, or by the constraint name in an error of `hawser.mark_done`.
 */
const refusals = {
  rolled_back: "rolledBack",
  duplicate: "duplicate",
  not_owned: "notOwned",
  fenced: "fenced",
  ended: "ended",
} as const;
type CompletionRefusal = keyof typeof refusals;

/** Tables that the errors name with which the SQL functions refuse that messages are done. */
const completionTables: ReadonlySet<string> = new Set([tables.mark, queueTables.queuedMessage]);

/** Ends a transaction without a failure: its effects are rolled back. */
class RolledBack extends Error {
  constructor(readonly refusal: CompletionRefusal) {
    super(`the transaction was withdrawn: ${refusal}`);
  }
}

/** Reason why the transaction must not be committed; undefined if the error names none. */
function refusalOf(error: unknown): (typeof refusals)[CompletionRefusal] | undefined {
  if (error instanceof RolledBack) return refusals[error.refusal];
  if (isServerError(error) && error.code === errorTable.message_gone.sqlstate) return "duplicate";
  if (!isServerError(error) || !completionTables.has(`${error.schema}.${error.table}`)) return undefined;
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
    check: string | undefined,
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
        if (check !== undefined) {
          const checked = (await query({ text: checkSql(check), types: ownTypes })) as pg.QueryResult<BeginRow>[];
          const { refusal } = checked.at(-1)!.rows[0]!;
          if (refusal !== null) throw new RolledBack(refusal);
        }
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

  /** Returns true if the message is completed; false also if that cannot be determined. */
  const isDone = async (part: Part | undefined): Promise<boolean> => {
    if (part === undefined) return false;
    try {
      const text = `SELECT ${refusalSql(part)} AS refusal`;
      const [row] = await database.query<BeginRow>("check whether a message is done", { text });
      return row?.refusal === "duplicate";
    } catch {
      return false;
    }
  };

  return {
    /**
     * Runs the handler of some messages in a transaction (READ COMMITTED, with the timeouts of the database's role)
     * that ends with the completion marks of the messages; without messages, it writes none. The handler must neither
     * commit nor roll back. If another transaction completes one of the messages first, or the name or a channel is
     * lost, the effects are rolled back. A BEGIN of the handler is a savepoint: see {@link NestedTransactions}. Messages with `mayBeDone` are checked before the handler is called.
     *
     * Handlers leave at least one connection of the pool to other statements. Further handlers wait for a connection.
     *
     * @throws the handler's error, with nothing committed; HawserError `handler_failed` for a handler that ended the
     * transaction itself, even if it started another one; HawserError `store_failed`, whose `outcome` is `unknown` if
     * the transaction may have been committed
     */
    async handleInTransaction(
      lease: WriterName,
      messages: readonly Completion[],
      handler: TransactionalHandler,
      origin: HandlerOrigin = {},
    ): Promise<TransactionalOutcome> {
      const [message, ...others] = messages;
      if (message === undefined) return await this.runInTransaction(handler, origin);
      const beside = others.length === 0 ? "" : ` and ${others.length} more`;
      const which =
        "channelId" in message
          ? `message ${message.number} of channel ${message.channelId}`
          : `the message ${message.id} of the queue`;
      const action = `handle ${which}${beside} in a transaction`;
      const jobs: JobCompletion[] = [];
      const ofChannels: ChannelCompletion[] = [];
      for (const each of messages) {
        if ("channelId" in each) ofChannels.push(each);
        else jobs.push(each);
      }
      const parts = ofChannels.length === 0 ? [] : partsOf(lease, ofChannels);
      let hasThrown = false;
      let isCommittedBefore = false;
      try {
        // Only of a message of a channel it can be asked whether it is done.
        const watched = async (transaction: Transaction): Promise<unknown> => {
          try {
            return await handler(transaction);
          } catch (error) {
            hasThrown = true;
            throw error;
          }
        };
        await inHandlerTransaction(
          action,
          ofChannels.some(({ mayBeDone }) => mayBeDone === true) ? `coalesce(${parts.map(refusalSql)})` : undefined,
          origin,
          parts.length === 0 ? handler : watched,
          async (_, hasCommitted) => {
            for (const { server } of jobs) if (server !== database.server) throw new RolledBack("not_owned");
            isCommittedBefore = hasCommitted;
            // Another attempt would repeat what is committed.
            const again = hasCommitted ? [{ text: "ROLLBACK" }, beginStatement, handling] : [];
            return [...again, ...ownSettings, ...doneWith(jobs), ...parts.map(completionOf)];
          },
        );
        return isCommittedBefore ? "committedByHandler" : "committed";
      } catch (error) {
        const refusal = isStoreFailure(error) ? refusalOf(error.cause) : undefined;
        if (refusal === undefined) {
          // The handler may have failed only because of rows that another transaction of the same message has written.
          if (hasThrown && others.length === 0 && (await isDone(parts[0]))) return "duplicate";
          throw error;
        }
        if (refusal === "ended") throw endedByHandler();
        return refusal;
      }
    },
    /**
     * Like {@link handleInTransaction} for a message without a number: no mark is written. @throws as
     * {@link handleInTransaction}
     */
    async runInTransaction(
      handler: TransactionalHandler,
      origin: HandlerOrigin = {},
    ): Promise<"committed" | "rolledBack"> {
      const action = "handle an at-most-once message in a transaction";
      try {
        await inHandlerTransaction(action, undefined, origin, handler, async (query) => {
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

interface BeginRow {
  readonly refusal: CompletionRefusal | null;
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
      "the message's mark; remove both, and use SAVEPOINT to roll back a part",
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
