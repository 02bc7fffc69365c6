/**
 * Runs one transaction in a session of the executor, and classifies its ending.
 */
import { performance } from "node:perf_hooks";
import pg from "pg";
import { limits } from "../../../../generated/ts/rules/peer/catalog.js";
import { errorMessageOf, HawserError, shortened } from "../../../foundation/errors/index.js";
import { filteredTable, messageWithRemedy } from "../../../foundation/postgres/index.js";
import { type Logger, TimeLimit } from "../../../foundation/runtime/index.js";
import type { ExecutorPool } from "./executor-pool.js";
import type { ExecutorSession, StatementLimits } from "./executor-session.js";

/** Time for which Postgres may be silent beyond the timeouts of a transaction before its connection is closed. */
const executorSilenceMs = 10_000;

/** Classification of an error by its cause. `Outcome` defines what each kind means for the messages. */
export type Failure =
  /** A function, a constraint, the statement timeout or a transient condition has ended the statement. */
  | { readonly kind: "failed" | "timed_out" | "transient"; readonly code: string; readonly message: string }
  /** The session has ended. */
  | { readonly kind: "lost"; readonly message: string }
  /** Postgres accepts no writes: it is a standby, or starting or shutting down. */
  | { readonly kind: "unavailable"; readonly code: string; readonly message: string };

/** SQLSTATEs that no message causes. 58P01 and 58P02 are excluded: they concern files that functions name. */
const transient = /^(40...|53...|55P03|55P04|57P0[45]|580..|25P0[34]|08...)$/;

/** SQLSTATEs of a server that is starting, shutting down or read-only. */
const unavailable = /^(57P0[1-3]|25006)$/;

const queryCanceled = "57014";

/**
 * Classifies an error of a session that has not ended, which the caller must check.
 *
 * @param elapsedMs time since the start of the transaction
 * @param timeoutMs statement timeout
 */
export function failureOf(error: unknown, elapsedMs: number, timeoutMs: number): Failure {
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) {
    const message = errorText(error);
    // A HawserError occurs before the session is open, such as for a refused login; no message is its cause.
    return error instanceof HawserError
      ? { kind: "unavailable", code: error.code, message }
      : { kind: "lost", message };
  }
  const { code } = error;
  const message = errorText(error);
  if (filteredTable(error) !== undefined) return { kind: "transient", code, message: messageWithRemedy(error) };
  if (unavailable.test(code)) return { kind: "unavailable", code, message };
  if (code === queryCanceled) return { kind: elapsedMs >= timeoutMs ? "timed_out" : "transient", code, message };
  return { kind: transient.test(code) ? "transient" : "failed", code, message };
}

/**
 * Text of an error, shortened, because a function's error can have any length and is stored with each failed message.
 */
export function errorText(error: unknown): string {
  return shortened(errorMessageOf(error), limits.DeadLetter.errorMessage.maxBytes);
}

/** Result of a transaction; `T` is the value that its work resolved with. */
export type Ending<T> =
  | { readonly kind: "committed"; readonly value: T; readonly durationMs: number }
  /** The work decided not to commit. */
  | { readonly kind: "rolled_back"; readonly value: T; readonly durationMs: number }
  | Exclude<Failure, { readonly kind: "lost" | "unavailable" }>
  /** Postgres is unreachable or accepts no writes. */
  | {
      readonly kind: "unavailable";
      readonly message: string;
      /** True if Postgres became unavailable while the work ran. */
      readonly duringWork: boolean;
    }
  /** The session ended, and another one to the same server could be opened at once. */
  | { readonly kind: "session_lost"; readonly message: string };

/** Work to do between BEGIN and COMMIT. */
export interface Work<T, Row extends object> extends StatementLimits {
  /** Role whose functions run. */
  readonly runAs: string;
  /** First statement after BEGIN, without parameters. */
  readonly first: string;
  /** @param rows rows of the first statement. @returns the value of the transaction, and whether to commit it */
  run(session: ExecutorSession, rows: readonly Row[]): Promise<{ readonly value: T; readonly commit: boolean }>;
}

/** Error text for a transaction that Postgres rolled back without an error. */
const rolledBack =
  "the transaction was rolled back: by the function, or because a deferred trigger was deferred again and wrote data";

/** SQLSTATE that PL/pgSQL raises if a field of a `record` variable has another type than at the time of planning. */
const outdatedPlanCode = "42804";

/** C function of PL/pgSQL that raises the errors of RAISE statements. */
const raiseRoutine = "exec_stmt_raise";

/** True if an outdated plan in the session may be the only cause of the error. */
export function mayBeOutdatedPlan(session: ExecutorSession, error: unknown): boolean {
  if (!session.hasOldPlans || !(error instanceof pg.DatabaseError)) return false;
  return error.code === outdatedPlanCode && error.routine !== raiseRoutine;
}

/**
 * Runs the work in a transaction. Repeats it in a session without plans if an outdated plan may have made it fail. Does
 * not reject.
 */
export async function inTransaction<T, Row extends object>(
  pool: ExecutorPool,
  logger: Logger,
  work: Work<T, Row>,
): Promise<Ending<T>> {
  return (await runOnce(pool, logger, work, true)) ?? (await runOnce(pool, logger, work, false))!;
}

/** @returns undefined if an outdated plan may have made the work fail */
async function runOnce<T, Row extends object>(
  pool: ExecutorPool,
  logger: Logger,
  work: Work<T, Row>,
  mayHavePlans: boolean,
): Promise<Ending<T> | undefined> {
  let session: ExecutorSession | undefined;
  let isOpen = false;
  const startedAt = performance.now();
  try {
    session = await pool.acquire(work.runAs, mayHavePlans);
    const beganAt = performance.now();
    const limit = closeIfSilent(session, work.timeoutMs);
    let hasBegun = false;
    try {
      isOpen = true;
      const rows = await session.start<Row>(work, work.first);
      hasBegun = true;
      const { value, commit } = await work.run(session, rows);
      if (!commit) return { kind: "rolled_back", value, durationMs: performance.now() - beganAt };
      if (!(await session.commit())) {
        return { kind: "failed", code: "25P02", message: rolledBack };
      }
      isOpen = false;
      return { kind: "committed", value, durationMs: performance.now() - beganAt };
    } catch (error) {
      const silence = await session.silence();
      const failure = session.isLost
        ? ({ kind: "lost", message: errorText(error) } as const)
        : failureOf(error, performance.now() - beganAt, work.timeoutMs);
      if (mayBeOutdatedPlan(session, error)) return undefined;
      if (failure.kind === "lost") session.destroy();
      // No function has run yet.
      if (!hasBegun) return { kind: "unavailable", message: failure.message, duringWork: false };
      if (silence === "running") return { kind: "timed_out", code: "57014", message: overdueText };
      // Postgres was not running the function, so the function is not the cause.
      if (silence === "lost") return { kind: "unavailable", message: lostText, duringWork: true };
      if (session.endCode === idleInTransaction)
        return { kind: "unavailable", message: failure.message, duringWork: true };
      // A read-only server would have failed at BEGIN, and a server that shuts down would have ended the session. So
      // the function raised this code itself, or passed it on from another server, which may recover.
      if (failure.kind === "unavailable") {
        return { ...failure, kind: failure.code === readOnly ? "failed" : "transient" };
      }
      if (failure.kind !== "lost") return failure;
      return await classifyLoss(pool, session, failure.message);
    } finally {
      limit.end();
      await pool.release(session, isOpen);
    }
  } catch (error) {
    const { message } = failureOf(error, performance.now() - startedAt, work.timeoutMs);
    logger.debug({ problem: message }, "no session for the functions could be opened");
    return { kind: "unavailable", message, duringWork: false };
  }
}

/**
 * Closes the session if the server does not answer at all, because a dead server never enforces the statement timeout.
 */
function closeIfSilent(session: ExecutorSession, timeoutMs: number): TimeLimit {
  return new TimeLimit(2 * timeoutMs + executorSilenceMs, () => session.destroy());
}

/** SQLSTATE of a write in a read-only transaction or server. */
const readOnly = "25006";

/** SQLSTATE of a session that was ended because the transaction was idle too long. */
const idleInTransaction = "25P03";

const lostText = "the connection to Postgres was lost: no answer arrived, and Postgres was not running the function";

const overdueText = "the function did not stop at the statement timeout; its session was closed";

/** Classifies a lost session: if the same server still runs, the function may have ended the session. */
async function classifyLoss(pool: ExecutorPool, lost: ExecutorSession, message: string): Promise<Ending<never>> {
  try {
    const next = await pool.acquire(lost.runAs);
    await pool.release(next, false);
    if (next.serverStartedAt === lost.serverStartedAt) return { kind: "session_lost", message };
  } catch {
    // No session can be opened, so Postgres is unreachable.
  }
  return { kind: "unavailable", message, duringWork: true };
}
