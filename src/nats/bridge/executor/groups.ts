/**
 * Runs a batch in groups, each behind a savepoint, so that a failed group does not roll back the others. Used for
 * functions with occasional serialization failures or deadlocks, which would roll back a whole batch again and again. A
 * failure that an outdated plan may have caused ends the whole transaction, which the caller repeats.
 */

import { performance } from "node:perf_hooks";
import { queueDefaults } from "../queue/index.js";
import type { ExecutorSession } from "./executor-session.js";
import { type Failure, failureOf, mayBeOutdatedPlan } from "./transaction.js";

/**
 * After a serialization failure or a deadlock, a batch is called in groups, each behind a savepoint: so many messages are in
 * the first ones. They grow while none fails, and shrink with each failure.
 */
const groupMessages = 16;
/**
 * Maximum number of savepoints in a transaction. Postgres keeps 64 subtransactions of each session in shared memory;
 * with more, each snapshot of the server becomes slower.
 */
const maxGroups = 60;

/**
 * SQLSTATE of a serialization failure, after which the transaction continues with the next group. After a deadlock it
 * ends, to release its locks.
 */
const serializationFailure = "40001";

/** Result of a batch in groups. */
export interface GroupsRun {
  /** Number of messages that were run, counted from the first. */
  readonly done: number;
  /**
   * Failure of the group after them. Undefined if all messages were run, or the limit of time or of groups was reached.
   */
  readonly failed?: { readonly count: number; readonly failure: FunctionFailure };
}

/** Failures of a function that leave the session usable. */
export type FunctionFailure = Extract<Failure, { readonly kind: "failed" | "timed_out" | "transient" }>;

/**
 * Size of a group. It doubles after each success and halves after each failure, so that about half of the groups
 * succeed: smaller groups cost more statements than larger ones cost in repeated messages.
 */
export class GroupSize {
  #limit: number = groupMessages;

  get limit(): number {
    return this.#limit;
  }

  /** Restores an earlier size. */
  set limit(before: number) {
    this.#limit = before;
  }

  /** True if enough groups have succeeded for batches to run without savepoints again. */
  get isOver(): boolean {
    return this.#limit >= queueDefaults.maxBatchMessages ** 2;
  }

  succeeded(): void {
    this.#limit *= 2;
  }

  failed(count: number): void {
    this.#limit = Math.max(1, count >> 1);
  }
}

/**
 * Calls the function for a batch, group by group.
 *
 * @param call runs the messages from `start` to before `end`; rejects with the error of Postgres
 * @throws errors that end the session
 */
export async function inGroups(
  session: ExecutorSession,
  batch: { readonly count: number; readonly timeoutMs: number; readonly size: GroupSize },
  call: (start: number, end: number) => Promise<void>,
): Promise<GroupsRun> {
  const { count, timeoutMs, size } = batch;
  const batchStartedAt = performance.now();
  const { limit } = size;
  let done = 0;
  let needsSavepoint = true;
  for (let groups = 0; done < count && groups < maxGroups; groups += 1) {
    const startedAt = performance.now();
    // Each group may take the whole statement timeout.
    if (startedAt - batchStartedAt > timeoutMs / 2) break;
    const end = Math.min(count, done + size.limit);
    if (needsSavepoint) await session.savepoint();
    try {
      await call(done, end);
      size.succeeded();
      done = end;
      needsSavepoint = true;
    } catch (error) {
      const failure = failureOf(error, performance.now() - startedAt, timeoutMs);
      if (session.isLost || failure.kind === "lost" || failure.kind === "unavailable") throw error;
      if (mayBeOutdatedPlan(session, error)) {
        // The caller repeats the whole transaction.
        size.limit = limit;
        throw error;
      }
      await session.toSavepoint();
      needsSavepoint = false;
      size.failed(end - done);
      const goesOn = end - done > 1 && failure.code === serializationFailure;
      if (!goesOn) return { done, failed: { count: end - done, failure } };
    }
  }
  return { done };
}
