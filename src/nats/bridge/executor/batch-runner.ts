/**
 * Runs a batch of messages through a wrapper, in one transaction that commits only while this process is the leader.
 */
import { createHmac, randomBytes } from "node:crypto";
import { errorTable } from "../../../foundation/errors/index.js";
import { type Logger, type RareLog, startSpan, type TraceContext, tracer } from "../../../foundation/runtime/index.js";
import type { Subscription } from "../bindings.js";
import { type InboundMessage, traceOf } from "../message.js";
import type { BatchStep, FunctionError, FunctionOutcome, Outcome } from "../queue/index.js";
import { markSql, markValues, notDone, type PositionState, positionSql } from "./advance.js";
import type { ExecutorPool } from "./executor-pool.js";
import type { ExecutorSession } from "./executor-session.js";
import { type FunctionFailure, GroupSize, type GroupsRun, inGroups } from "./groups.js";
import { proofOf, type TransactionMark, transactionMarkColumn } from "./token.js";
import { type Ending, inTransaction } from "./transaction.js";
import {
  isAboutWrapper,
  packed,
  traceValues,
  type WrapperState,
  type WrapperVersion,
  wrapperCall,
  wrapperChanged,
  wrapperStateSql,
  wrapperVersionColumns,
  wrapperVersionFrom,
} from "./wrapper.js";

/** Sessions, timeout and loggers of a {@link BatchRunner}. */
export interface BatchRunnerOptions {
  readonly pool: ExecutorPool;
  /** Statement timeout. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  /** Logs reasons why messages wait, at a limited rate. */
  readonly rareLog: RareLog;
}

/** A message is blamed after this many failures in a row that no message causes and that begin with it. */
export const blamedAfter = 20;
/**
 * If Postgres went away this many times in a row during the same message, the message is treated as one that ends its
 * session.
 */
const blamedLosses = 5;
/**
 * Time for which a function of a subscription waits for a lock before other functions get its session for a while; a
 * fourth of the statement timeout, if that is less. No message is blamed for the wait, however long the lock is held.
 */
const executorLockTimeoutMs = 1_000;

/**
 * SQLSTATE of a lock timeout. No message is blamed for it, because other transactions can hold a lock without limit.
 */
const lockNotAvailable = "55P03";

/** Types of a wrapper's parameters after the token. */
const argumentTypes = ["bytea", "integer[]", "integer[]", "text[]", "text[]", "text[]"];

/** SQLSTATEs after which a batch is called in groups, so that one conflict does not roll back all messages. */
const conflict = /^40(001|P01)$/;

/** Reason why a batch was not committed although Postgres reported no error. */
type BatchRefusal = "deposed" | "moved" | "not_found" | "gone" | "closed" | "changed" | "replaced";

/** Value of a transaction in which Postgres reported no error. */
type TransactionResult = BatchRefusal | GroupsRun;

/** Thrown within a transaction to roll it back: the wrapper changed, or messages could not be marked. */
class RefusedError extends Error {
  constructor(readonly why: BatchRefusal) {
    super(why);
  }
}

const waitingText = "subscribed functions cannot run now; their messages wait";

/** Consecutive failures of batches that started with the same message. */
interface Streak {
  readonly firstId: string;
  readonly kind: "lost" | "transient";
  count: number;
}

export class BatchRunner {
  readonly #options: BatchRunnerOptions;
  /** HMAC key of {@link #contexts}: the message ids of one subscription then reveal nothing about those of another. */
  readonly #secret = randomBytes(16);
  readonly #contexts = new Map<bigint, string>();
  /**
   * Streaks by queue. Each lane of a stream has its own, so that a commit in one lane does not reset the streak of
   * another.
   */
  readonly #streaks = new Map<string, Streak>();
  /** Group sizes of subscriptions whose batches currently run in groups. */
  readonly #groups = new Map<bigint, GroupSize>();

  constructor(options: BatchRunnerOptions) {
    this.#options = options;
  }

  /**
   * Calls the function for the messages, in order, and deletes their saved messages in the same transaction. Does not
   * reject.
   *
   * @param epoch epoch of this process's leadership; undefined for messages of the queue, whose rows are the fence
   */
  async run(step: Omit<BatchStep, "kind">, epoch: bigint | undefined): Promise<Outcome> {
    if (tracer === undefined) return await this.#run(step, epoch, undefined);
    const { subscription, messages } = step;
    const { subject, functionName } = subscription;
    const from = messages.map(traceOf);
    const count = messages.length;
    const counted = count > 1 ? count : undefined;
    const span = startSpan(
      { kind: "process", system: "nats", destination: subject, functionName, from, count: counted },
      "sometimes",
    );
    if (span === undefined) return await this.#run(step, epoch, undefined);
    // Messages of a batch continue their own traces.
    const trace = count === 1 ? span.context : undefined;
    const outcome = await span.run(() => this.#run(step, epoch, trace));
    span.end(failureOf(outcome));
    return outcome;
  }

  /** @param trace context of the only message, instead of that in its headers */
  async #run(
    step: Omit<BatchStep, "kind">,
    epoch: bigint | undefined,
    trace: TraceContext | undefined,
  ): Promise<Outcome> {
    const { subscription, messages } = step;
    const unreadable = subscription.takesHeaders
      ? messages.find((each) => each.headersProblem !== undefined)
      : undefined;
    if (unreadable !== undefined) return { kind: "failed", error: unreadableHeaders(unreadable) };
    let ending = await this.#call(step, epoch, trace);
    if (
      ending.kind === "transient" &&
      conflict.test(ending.code) &&
      messages.length > 1 &&
      !this.#groups.has(subscription.id)
    ) {
      this.#groups.set(subscription.id, new GroupSize());
      ending = await this.#call(step, epoch, trace);
    }
    return await this.#outcomeOf(subscription, messages, ending);
  }

  /** Forgets the state of a subscription that has ended. */
  forget({ id }: Subscription): void {
    this.#groups.delete(id);
    this.#contexts.delete(id);
    for (const key of this.#streaks.keys()) if (key.startsWith(`${id}/`)) this.#streaks.delete(key);
  }

  #call(
    { subscription, messages, savedIds, queued = [] }: Omit<BatchStep, "kind">,
    epoch: bigint | undefined,
    trace: TraceContext | undefined,
  ): Promise<Ending<TransactionResult>> {
    const { pool, timeoutMs, logger } = this.#options;
    const traces = new Map(messages.map((message) => [message, trace ?? traceOf(message)]));
    // The session has no trace of other transactions. All calls of one set theirs if one of them does.
    const setsTrace = [...traces.values()].some((each) => each !== undefined);
    const { stream } = subscription;
    const position = positionSql(subscription.id, stream);
    // Time spent on marking. It includes waits for transactions of other lanes, which must not count as the batch's
    // speed.
    let positionMs = 0;
    // For stream messages, the generation of the subscription takes the place of the fence.
    const fence =
      stream === undefined && epoch !== undefined ? `hawser.fence_batch(${epoch})` : "(SELECT true AS held)";
    const running = inTransaction<
      TransactionResult,
      WrapperVersion & PositionState & TransactionMark & { held: boolean }
    >(pool, logger, {
      runAs: subscription.runAs,
      timeoutMs,
      lockTimeoutMs: Math.min(executorLockTimeoutMs, timeoutMs / 4),
      first: `SELECT f.held, ${transactionMarkColumn}, ${wrapperVersionColumns}${position.columns} FROM ${fence} AS f CROSS JOIN ${wrapperVersionFrom(subscription)}${position.from}`,
      run: async (session, [state]) => {
        if (state?.held !== true) return { value: "deposed", commit: false };
        // After a failover, confirmed commits may be lost; or another process has started to read the stream.
        const isMoved = stream !== undefined && (state.doneTo === null || session.serverStartedAt !== stream.server);
        if (isMoved) return { value: "moved", commit: false };
        positionMs = 0;
        if (state.version === null) {
          const [now] = await session.query<WrapperState>(wrapperStateSql(subscription), []);
          // The wrapper may exist again by now.
          if (now?.version != null) return { value: "changed", commit: false };
          return { value: now?.exists === true ? "replaced" : "gone", commit: false };
        }
        if (state.mayCall !== true) return { value: "closed", commit: false };
        const binding = [String(subscription.id), proofOf(subscription.token, state)];
        const mark = async (
          ids: readonly bigint[],
          saved: readonly bigint[],
          piece: readonly InboundMessage[],
        ): Promise<string> => {
          const askedAt = performance.now();
          const values = [...binding, ...markValues(ids, saved, stream, piece)];
          const [row] = await session.query<{ state: string }>(markSql, values);
          positionMs += performance.now() - askedAt;
          return row!.state;
        };
        const { version } = state;
        try {
          const value = await this.#callGroups(session, subscription, messages.length, async (start, end) => {
            const piece =
              stream === undefined ? messages.slice(start, end) : notDone(messages.slice(start, end), state);
            // An earlier attempt was committed although its confirmation was lost.
            if (piece.length === 0) return;
            const values = [
              ...binding,
              ...packed(subscription, piece, this.#contextOf(subscription)),
              version,
              ...(setsTrace ? traceValues(piece.map((message) => traces.get(message))) : []),
            ];
            const text = wrapperCall(subscription, argumentTypes, { setsTrace });
            const [row] = await session.query<{ result: bigint | null; version: string | null }>(text, values);
            if (row?.version !== version) throw new RefusedError("changed");
            if (Number(row.result) !== piece.length) throw new RefusedError("replaced");
            const saved = savedIds.slice(start, end);
            const ids = queued.slice(start, end);
            const isToMark = stream !== undefined || saved.length > 0 || ids.length > 0;
            if (isToMark && (await mark(ids, saved, piece)) !== "marked")
              throw new RefusedError(ids.length > 0 ? "not_found" : "moved");
          });
          return { value, commit: value.done > 0 };
        } catch (error) {
          if (error instanceof RefusedError) return { value: error.why, commit: false };
          throw error;
        }
      },
    });
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

  async #outcomeOf(
    subscription: Subscription,
    messages: readonly InboundMessage[],
    ending: Ending<TransactionResult>,
  ): Promise<Outcome> {
    switch (ending.kind) {
      case "committed":
      case "rolled_back":
        if (typeof ending.value === "object") {
          return await this.#afterGroups(subscription, messages, ending.value, ending.durationMs);
        }
        // A GRANT or a new owner, for example, changes the wrapper. The next attempt checks the wrapper again.
        if (ending.value === "changed") return this.#transient(subscription, messages, changedError(subscription));
        if (ending.value === "closed") return this.#transient(subscription, messages, noPrivilegeError(subscription));
        if (ending.value === "gone")
          return this.#unavailable(subscription, "its wrapper is missing, or owned by another role");
        return refusalOutcome(subscription, ending.value);
      case "session_lost":
        return { kind: "session_lost", message: ending.message };
      case "unavailable":
        // A message for which Postgres goes down each time counts as the cause.
        if (ending.duringWork && this.#countFailure(subscription, messages, "lost", blamedLosses)) {
          return { kind: "session_lost", message: ending.message };
        }
        this.#options.rareLog.warn(waitingText, ending.message);
        return { kind: "unavailable" };
      default:
        return await this.#outcomeOfFailure(subscription, messages, ending);
    }
  }

  async #outcomeOfFailure(
    subscription: Subscription,
    messages: readonly InboundMessage[],
    failure: FunctionFailure,
  ): Promise<FunctionOutcome> {
    const error = { code: failure.code, message: failure.message };
    // An error about a missing function is transient if it concerns the wrapper: the next read of the bindings shows
    // that the function was dropped, or revoked from the executor.
    const { pool, timeoutMs, logger } = this.#options;
    const isTransient =
      failure.kind === "transient" ||
      (await isAboutWrapper(failure, { wrapper: subscription, pool, timeoutMs, logger }));
    return isTransient ? this.#transient(subscription, messages, error) : { kind: failure.kind, error };
  }

  /** Outcome of a batch in groups: all messages, the first ones, or none are committed. */
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
    const outcome = await this.#outcomeOfFailure(subscription, messages.slice(done, done + count), failure);
    return { kind: "partly", committed: done, durationMs, failed: { count, outcome } };
  }

  #transient(subscription: Subscription, messages: readonly InboundMessage[], error: FunctionError): FunctionOutcome {
    const isBlamed =
      error.code !== lockNotAvailable && this.#countFailure(subscription, messages, "transient", blamedAfter);
    if (isBlamed) return { kind: "failed", error };
    // The error text is not logged, because it comes from the function.
    this.#logWaiting(subscription, `SQLSTATE ${error.code}`);
    return { kind: "transient", error };
  }

  #unavailable(subscription: Subscription, problem: string): Outcome {
    this.#logWaiting(subscription, problem);
    return { kind: "unavailable" };
  }

  #logWaiting({ functionName, subject }: Subscription, problem: string): void {
    this.#options.rareLog.warn(waitingText, `${functionName} on ${subject}: ${problem}`);
  }

  /** Counts a failure of a batch. @returns true after more than `limit` in a row that began with the same message */
  #countFailure(
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
      // Ids of stream messages must be the same in every process.
      context = `${createHmac("sha256", kind === "stream" ? token : this.#secret)
        .update(String(id))
        .digest("base64url")
        .slice(0, 16)}.`;
      this.#contexts.set(id, context);
    }
    return context;
  }
}

/** Error of the outcome for the span of a batch. */
function failureOf(outcome: Outcome): FunctionError | undefined {
  if ("error" in outcome) return outcome.error;
  if (outcome.kind === "partly") return outcome.failed && failureOf(outcome.failed.outcome);
  const { kind } = outcome;
  return kind === "session_lost" || kind === "unavailable" ? { code: kind, message: waitingText } : undefined;
}

function queueOf({ id, stream }: Subscription): string {
  return `${id}/${stream?.lane ?? 0}`;
}

/**
 * Error of a message with unreadable headers. To run it with the readable headers alone could change its meaning, so
 * that needs a decision: a retry of the dead letter runs it with them.
 */
function unreadableHeaders({ headersProblem }: InboundMessage): FunctionError {
  const message = `the message has headers that cannot be read, and the function takes headers: ${headersProblem}`;
  return { code: errorTable.unreadable_headers.sqlstate, message };
}

function changedError({ functionName }: Subscription): FunctionError {
  return { code: wrapperChanged, message: `the wrapper of ${functionName} was changed while it ran` };
}

function noPrivilegeError({ functionName }: Subscription): FunctionError {
  return {
    code: errorTable.not_permitted.sqlstate,
    message: `hawser_executor has no privilege to execute the wrapper of ${functionName}`,
  };
}

function refusalOutcome({ functionName }: Subscription, why: BatchRefusal): Outcome {
  if (why === "deposed" || why === "moved") return { kind: "deposed" };
  // Another process has handled the rows, or they were cancelled.
  if (why === "not_found") return { kind: "gone" };
  const message = `the wrapper of ${functionName} was replaced and no longer calls the function`;
  return { kind: "failed", error: { code: wrapperChanged, message } };
}
