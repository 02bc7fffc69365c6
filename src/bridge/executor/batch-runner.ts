/**
 * Runs messages through a wrapper, in one transaction that can be committed only while this process leads.
 */
import { createHmac, randomBytes } from "node:crypto";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import type { Logger, RareLog } from "../../runtime/index.js";
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { BatchStep, FunctionError, FunctionOutcome, Outcome } from "../queue/index.js";
import { markSql, markValues, type PositionState, positionSql, undone } from "./advance.js";
import type { ExecutorPool } from "./executor-pool.js";
import type { ExecutorSession } from "./executor-session.js";
import { type FunctionFailure, GroupSize, type GroupsRun, inGroups } from "./groups.js";
import { proofOf, type TransactionMark, transactionMarkColumn } from "./token.js";
import { type Ending, inTransaction } from "./transaction.js";
import {
  isAboutWrapper,
  packed,
  type WrapperState,
  type WrapperVersion,
  wrapperCall,
  wrapperChanged,
  wrapperStateSql,
  wrapperVersionColumns,
  wrapperVersionFrom,
} from "./wrapper.js";

/** How batches are run. */
export interface BatchRunnerOptions {
  readonly pool: ExecutorPool;
  /** The statement timeout. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  /** For the reasons why messages wait. */
  readonly rareLog: RareLog;
}

const { blamedAfter, blamedLosses, executorLockTimeoutMs } = bridgeConstants;

/** SQLSTATE of a lock that was not free in time. Others may hold it for as long as they like. */
const lockNotAvailable = "55P03";

/** Of a wrapper's parameters, behind the token. */
const argumentTypes = ["bytea", "integer[]", "integer[]", "text[]", "text[]", "text[]"];

/** After these a batch is called in groups, so that one message does not keep all others. */
const conflict = /^40(001|P01)$/;

/** Why nothing was run. */
type Refusal = "deposed" | "moved" | "not_there" | "gone" | "closed" | "changed" | "replaced";

/** What a transaction did. */
type Done = Refusal | GroupsRun;

/** A call found that the wrapper is not what it was. */
class Refused extends Error {
  constructor(readonly why: Refusal) {
    super(why);
  }
}

const waits = "subscribed functions cannot be run now: their messages wait";

/** Failures in a row, all of which began with the same message. */
interface Streak {
  readonly firstId: string;
  readonly kind: "lost" | "transient";
  count: number;
}

export class BatchRunner {
  readonly #options: BatchRunnerOptions;
  /** So that the ids of one subscription's messages do not show those of another's. */
  readonly #secret = randomBytes(16);
  readonly #contexts = new Map<bigint, string>();
  /** Of each queue: that another one of the subscription goes on says nothing of the message that this one waits for. */
  readonly #streaks = new Map<string, Streak>();
  /** Of the subscriptions whose batches are called in groups now. */
  readonly #groups = new Map<bigint, GroupSize>();

  constructor(options: BatchRunnerOptions) {
    this.#options = options;
  }

  /**
   * Calls the function for the messages, in their order, and deletes in the same transaction what was stored of them. Does not
   * reject.
   *
   * @param epoch under which this process leads
   */
  async run(step: Omit<BatchStep, "kind">, epoch: bigint): Promise<Outcome> {
    const { subscription, messages } = step;
    const unreadable = subscription.takesHeaders
      ? messages.find((each) => each.headersProblem !== undefined)
      : undefined;
    if (unreadable !== undefined) return { kind: "failed", error: unreadableHeaders(unreadable) };
    let ending = await this.#call(step, epoch);
    if (
      ending.kind === "transient" &&
      conflict.test(ending.code) &&
      messages.length > 1 &&
      !this.#groups.has(subscription.id)
    ) {
      this.#groups.set(subscription.id, new GroupSize());
      ending = await this.#call(step, epoch);
    }
    return await this.#outcome(subscription, messages, ending);
  }

  /** A subscription is gone: forgets what it knows of it. */
  forget({ id }: Subscription): void {
    this.#groups.delete(id);
    this.#contexts.delete(id);
    for (const key of this.#streaks.keys()) if (key.startsWith(`${id}/`)) this.#streaks.delete(key);
  }

  #call({ subscription, messages, savedIds }: Omit<BatchStep, "kind">, epoch: bigint): Promise<Ending<Done>> {
    const { pool, timeoutMs, logger } = this.#options;
    const { deadLetterId } = messages[0]!;
    // A dead letter was passed long ago.
    const stream = deadLetterId === undefined ? subscription.stream : undefined;
    const position = positionSql(subscription.id, stream);
    // Until what is done was written. The transactions of other queues are waited for, whatever the size of the batch.
    let positionMs = 0;
    // Messages of a stream have the generation of their subscription in the place of the fence.
    const lead = stream === undefined ? `hawser.fence_batch(${epoch})` : "(SELECT true AS held)";
    const running = inTransaction<Done, WrapperVersion & PositionState & TransactionMark & { held: boolean }>(
      pool,
      logger,
      {
        runAs: subscription.runAs,
        timeoutMs,
        lockTimeoutMs: Math.min(executorLockTimeoutMs, timeoutMs / 4),
        first: `SELECT f.held, ${transactionMarkColumn}, ${wrapperVersionColumns}${position.columns} FROM ${lead} AS f CROSS JOIN ${wrapperVersionFrom(subscription)}${position.from}`,
        run: async (session, [state]) => {
          if (state?.held !== true) return { value: "deposed", commit: false };
          // A failover may have lost what was confirmed, or somebody else has begun to read.
          const isMoved = stream !== undefined && (state.doneTo === null || session.serverStartedAt !== stream.server);
          if (isMoved) return { value: "moved", commit: false };
          positionMs = 0;
          if (state.version === null) {
            const [now] = await session.query<WrapperState>(wrapperStateSql(subscription), []);
            // It may be back by now.
            if (now?.version != null) return { value: "changed", commit: false };
            return { value: now?.isThere === true ? "replaced" : "gone", commit: false };
          }
          if (state.mayCall !== true) return { value: "closed", commit: false };
          const binding = [String(subscription.id), proofOf(subscription.token, state)];
          const mark = async (saved: readonly bigint[], piece: readonly InboundMessage[]): Promise<string> => {
            const askedAt = performance.now();
            const values = [...binding, ...markValues(deadLetterId, saved, stream, piece)];
            const [row] = await session.query<{ state: string }>(markSql, values);
            positionMs += performance.now() - askedAt;
            return row!.state;
          };
          if (deadLetterId !== undefined && (await mark([], [])) !== "marked")
            return { value: "not_there", commit: false };
          const { version } = state;
          try {
            const value = await this.#callGroups(session, subscription, messages.length, async (start, end) => {
              const piece =
                stream === undefined ? messages.slice(start, end) : undone(messages.slice(start, end), state);
              // An earlier attempt was committed, and its answer lost.
              if (piece.length === 0) return;
              const values = [...binding, ...packed(subscription, piece, this.#contextOf(subscription)), version];
              const text = wrapperCall(subscription, argumentTypes);
              const [row] = await session.query<{ result: bigint | null; version: string | null }>(text, values);
              if (row?.version !== version) throw new Refused("changed");
              if (Number(row.result) !== piece.length) throw new Refused("replaced");
              const saved = savedIds.slice(start, end);
              const isToMark = stream !== undefined || saved.length > 0;
              if (isToMark && (await mark(saved, piece)) !== "marked") throw new Refused("moved");
            });
            return { value, commit: value.done > 0 };
          } catch (error) {
            if (error instanceof Refused) return { value: error.why, commit: false };
            throw error;
          }
        },
      },
    );
    return running.then((ending) =>
      ending.kind === "committed" ? { ...ending, durationMs: ending.durationMs - positionMs } : ending,
    );
  }

  async #callGroups(
    session: ExecutorSession,
    { id }: Subscription,
    count: number,
    call: (start: number, end: number) => Promise<void>,
  ): Promise<GroupsRun> {
    const size = this.#groups.get(id);
    if (size === undefined || count === 1) {
      await call(0, count);
      return { done: count };
    }
    const run = await inGroups(session, { count, timeoutMs: this.#options.timeoutMs, size }, call);
    if (size.isOver) this.#groups.delete(id);
    return run;
  }

  async #outcome(
    subscription: Subscription,
    messages: readonly InboundMessage[],
    ending: Ending<Done>,
  ): Promise<Outcome> {
    switch (ending.kind) {
      case "committed":
      case "given_up":
        if (typeof ending.value === "object") {
          return await this.#afterGroups(subscription, messages, ending.value, ending.durationMs);
        }
        // By a GRANT, for example, or another owner: the next check tells what it is now.
        if (ending.value === "changed") return this.#transient(subscription, messages, changed(subscription));
        if (ending.value === "closed") return this.#transient(subscription, messages, closed(subscription));
        if (ending.value === "gone") return this.#waits(subscription, "its wrapper is gone, or another role's");
        return givenUp(subscription, ending.value);
      case "session_lost":
        return { kind: "session_lost", message: ending.message };
      case "unavailable":
        // Postgres goes away each time with this very message.
        if (ending.meanwhile && this.#isSuspect(subscription, messages, "lost", blamedLosses)) {
          return { kind: "session_lost", message: ending.message };
        }
        this.#options.rareLog.warn(waits, ending.message);
        return { kind: "unavailable" };
      default:
        return await this.#ofFunction(subscription, messages, ending);
    }
  }

  async #ofFunction(
    subscription: Subscription,
    messages: readonly InboundMessage[],
    failure: FunctionFailure,
  ): Promise<FunctionOutcome> {
    const error = { code: failure.code, message: failure.message };
    // It was dropped meanwhile, or may not be called: the next reading of the bindings tells.
    const { pool, timeoutMs, logger } = this.#options;
    const isTransient =
      failure.kind === "transient" ||
      (await isAboutWrapper(failure, { wrapper: subscription, pool, timeoutMs, logger }));
    return isTransient ? this.#transient(subscription, messages, error) : { kind: failure.kind, error };
  }

  /** All of them, those at the front, or none. */
  async #afterGroups(
    subscription: Subscription,
    messages: readonly InboundMessage[],
    { done, failed }: GroupsRun,
    durationMs: number,
  ): Promise<Outcome> {
    if (done > 0) this.#streaks.delete(queueOf(subscription));
    if (done === messages.length) return { kind: "committed", durationMs };
    if (failed === undefined) return { kind: "partly", committed: done, durationMs };
    const { count, failure } = failed;
    const outcome = await this.#ofFunction(subscription, messages.slice(done, done + count), failure);
    return { kind: "partly", committed: done, durationMs, failed: { count, outcome } };
  }

  #transient(subscription: Subscription, messages: readonly InboundMessage[], error: FunctionError): FunctionOutcome {
    const isBlamed =
      error.code !== lockNotAvailable && this.#isSuspect(subscription, messages, "transient", blamedAfter);
    if (isBlamed) return { kind: "failed", error };
    // Without the words, which are the function's.
    this.#tell(subscription, `SQLSTATE ${error.code}`);
    return { kind: "transient", error };
  }

  #waits(subscription: Subscription, problem: string): Outcome {
    this.#tell(subscription, problem);
    return { kind: "unavailable" };
  }

  #tell({ functionName, subject }: Subscription, problem: string): void {
    this.#options.rareLog.warn(waits, `${functionName} on ${subject}: ${problem}`);
  }

  #isSuspect(
    subscription: Subscription,
    [first]: readonly InboundMessage[],
    kind: Streak["kind"],
    limit: number,
  ): boolean {
    const key = queueOf(subscription);
    const before = this.#streaks.get(key);
    const streak =
      before?.firstId === first!.id && before.kind === kind ? before : { firstId: first!.id, kind, count: 0 };
    streak.count += 1;
    this.#streaks.set(key, streak);
    return streak.count > limit;
  }

  #contextOf({ id, kind, token }: Subscription): string {
    let context = this.#contexts.get(id);
    if (context === undefined) {
      // Messages of a stream have the same ids in every process.
      context = `${createHmac("sha256", kind === "stream" ? token : this.#secret)
        .update(String(id))
        .digest("base64url")
        .slice(0, 16)}.`;
      this.#contexts.set(id, context);
    }
    return context;
  }
}

function queueOf({ id, stream }: Subscription): string {
  return `${id}/${stream?.lane ?? 0}`;
}

/** Some headers without the others could mean the contrary. What could be read is kept, and a retry passes it on. */
function unreadableHeaders({ headersProblem }: InboundMessage): FunctionError {
  const message = `the message has headers that cannot be read, and the function takes headers: ${headersProblem}`;
  return { code: errorTable.unreadable_headers.sqlstate, message };
}

function changed({ functionName }: Subscription): FunctionError {
  return { code: wrapperChanged, message: `the wrapper of ${functionName} was changed while it ran` };
}

function closed({ functionName }: Subscription): FunctionError {
  return {
    code: errorTable.not_permitted.sqlstate,
    message: `hawser_executor may not execute the wrapper of ${functionName}`,
  };
}

function givenUp({ functionName }: Subscription, why: Refusal): Outcome {
  if (why === "deposed" || why === "moved") return { kind: "deposed" };
  // The dead letter was deleted by another session: nothing is left to do.
  if (why === "not_there") return { kind: "committed", durationMs: 0 };
  const message = `the wrapper of ${functionName} has been replaced: it does not call it any more`;
  return { kind: "failed", error: { code: wrapperChanged, message } };
}
