/**
 * One transaction in a session of the executor, and what became of it.
 */
import { performance } from "node:perf_hooks";
import pg from "pg";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError, shortened } from "../../errors/index.js";
import { type Logger, TimeLimit } from "../../runtime/index.js";
import type { ExecutorPool } from "./executor-pool.js";
import type { ExecutorSession, StatementLimits } from "./executor-session.js";

/** What an error of a transaction means for the messages that were handled in it. `Outcome` says what follows from each. */
export type Failure =
  /** By a function, or a constraint. */
  | { readonly kind: "failed" | "timed_out" | "transient"; readonly code: string; readonly message: string }
  /** The session is gone. */
  | { readonly kind: "lost"; readonly message: string }
  /** Postgres does not write: it is a replica, or is starting or stopping. */
  | { readonly kind: "unavailable"; readonly code: string; readonly message: string };

/** No message is to blame for these. Classes and codes of SQLSTATE; 58P01 and 58P02 are of files that functions name. */
const transient = /^(40...|53...|55P03|55P04|57P0[45]|580..|25P0[34]|08...)$/;

/** The server is going, coming or only readable. */
const unavailable = /^(57P0[1-3]|25006)$/;

const queryCanceled = "57014";

/**
 * Of an error that has left the session as it was: whether it has ended is known to the session.
 *
 * @param elapsedMs since the transaction began
 * @param timeoutMs the statement timeout
 */
export function failureOf(error: unknown, elapsedMs: number, timeoutMs: number): Failure {
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) {
    const message = wordsOf(error);
    // Before a session was there, the login can be at fault: waited for, too.
    return error instanceof HawserError
      ? { kind: "unavailable", code: error.code, message }
      : { kind: "lost", message };
  }
  const { code } = error;
  const message = wordsOf(error);
  if (unavailable.test(code)) return { kind: "unavailable", code, message };
  if (code === queryCanceled) return { kind: elapsedMs >= timeoutMs ? "timed_out" : "transient", code, message };
  return { kind: transient.test(code) ? "transient" : "failed", code, message };
}

/** What a function says can be of any length, and is kept with each message that fails. */
export function wordsOf(error: unknown): string {
  return shortened(error instanceof Error ? error.message : String(error), limits.DeadLetter.errorMessage.maxBytes);
}

/** How a transaction ended; `T` is what its work resolved with. */
export type Ending<T> =
  | { readonly kind: "committed"; readonly value: T; readonly durationMs: number }
  /** The work did not want it committed. */
  | { readonly kind: "given_up"; readonly value: T; readonly durationMs: number }
  | Exclude<Failure, { readonly kind: "lost" | "unavailable" }>
  /** Postgres is away, or does not write. */
  | {
      readonly kind: "unavailable";
      readonly message: string;
      /** It went while the work was under way. */
      readonly meanwhile: boolean;
    }
  /** The session was lost, and another one to the same server was had at once. */
  | { readonly kind: "session_lost"; readonly message: string };

/** What is done between BEGIN and COMMIT. */
export interface Work<T, Row extends object> extends StatementLimits {
  /** The role whose functions run. */
  readonly runAs: string;
  /** A statement that follows BEGIN at once, without parameters. */
  readonly first: string;
  /** @param rows of the first statement. @returns what to resolve with, and whether to commit */
  run(session: ExecutorSession, rows: readonly Row[]): Promise<{ readonly value: T; readonly commit: boolean }>;
}

/** Why nothing was committed, where Postgres has no words of its own for it. */
const rolledBack =
  "the transaction was rolled back: by the function, or because a deferred trigger was deferred once more, and wrote";

/** SQLSTATE of a plan that was made for other types than there are now, of a variable that takes rows of any type. */
const ofOldPlan = "42804";

/** Where Postgres raises what a function raises by itself. */
const raised = "exec_stmt_raise";

/** Whether an error may be because of a plan that the session had kept, and of nothing else. */
export function mayBeOldPlan(session: ExecutorSession, error: unknown): boolean {
  if (!session.hasOldPlans || !(error instanceof pg.DatabaseError)) return false;
  return error.code === ofOldPlan && error.routine !== raised;
}

/** Runs it; once more without any old plan where one may be why it has failed. Does not reject. */
export async function inTransaction<T, Row extends object>(
  pool: ExecutorPool,
  logger: Logger,
  work: Work<T, Row>,
): Promise<Ending<T>> {
  return (await runOnce(pool, logger, work, true)) ?? (await runOnce(pool, logger, work, false))!;
}

/** @returns undefined where a plan may be why it has failed that the session was allowed to have */
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
    session = await pool.take(work.runAs, mayHavePlans);
    const beganAt = performance.now();
    const limit = giveUpLater(session, work.timeoutMs);
    let hasBegun = false;
    try {
      isOpen = true;
      const rows = await session.begin<Row>(work, work.first);
      hasBegun = true;
      const { value, commit } = await work.run(session, rows);
      if (!commit) return { kind: "given_up", value, durationMs: performance.now() - beganAt };
      if (!(await session.commit())) {
        return { kind: "failed", code: "25P02", message: rolledBack };
      }
      isOpen = false;
      return { kind: "committed", value, durationMs: performance.now() - beganAt };
    } catch (error) {
      const silence = await session.silence();
      const failure = session.isLost
        ? ({ kind: "lost", message: wordsOf(error) } as const)
        : failureOf(error, performance.now() - beganAt, work.timeoutMs);
      if (mayBeOldPlan(session, error)) return undefined;
      if (failure.kind === "lost") session.destroy();
      // No function has run yet.
      if (!hasBegun) return { kind: "unavailable", message: failure.message, meanwhile: false };
      if (silence === "running") return { kind: "timed_out", code: "57014", message: overdue };
      // Whatever the function did, this was not its fault.
      if (silence === "lost") return { kind: "unavailable", message: lostOnTheWay, meanwhile: true };
      if (session.endCode === keptWaiting) return { kind: "unavailable", message: failure.message, meanwhile: true };
      // A server that is read-only would have failed the BEGIN, and one that stops would have ended the session. So this code is
      // the function's own, or that of another server that it uses, which may come back.
      if (failure.kind === "unavailable") {
        return { ...failure, kind: failure.code === onlyReads ? "failed" : "transient" };
      }
      if (failure.kind !== "lost") return failure;
      return await afterLoss(pool, session, failure.message);
    } finally {
      limit.end();
      await pool.give(session, isOpen);
    }
  } catch (error) {
    const { message } = failureOf(error, performance.now() - startedAt, work.timeoutMs);
    logger.debug({ problem: message }, "no session for the functions");
    return { kind: "unavailable", message, meanwhile: false };
  }
}

/** A server that is gone without a word never ends a statement by its timeout: without this limit the wait would be endless. */
function giveUpLater(session: ExecutorSession, timeoutMs: number): TimeLimit {
  return new TimeLimit(2 * timeoutMs + bridgeConstants.executorSilenceMs, () => session.destroy());
}

/** SQLSTATE of a write where only reading is possible. */
const onlyReads = "25006";

/** SQLSTATE of the end of a session that waited for us in a transaction. */
const keptWaiting = "25P03";

const lostOnTheWay = "the connection with Postgres was lost: no answer came, and Postgres was not running the function";

const overdue = "the statement timeout did not end the function: its session was ended";

/** How the session ended: if the server lives on, it may have been the function. */
async function afterLoss(pool: ExecutorPool, lost: ExecutorSession, message: string): Promise<Ending<never>> {
  try {
    const next = await pool.take(lost.runAs);
    await pool.give(next, false);
    if (next.serverStartedAt === lost.serverStartedAt) return { kind: "session_lost", message };
  } catch {
    // It is away.
  }
  return { kind: "unavailable", message, meanwhile: true };
}
