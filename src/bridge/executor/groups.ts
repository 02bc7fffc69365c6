/**
 * Runs a batch in groups, each behind a savepoint, so that a failed group does not roll back the others. Used for
 * functions with occasional serialization failures or deadlocks, which would roll back a whole batch again and again.
 * The exception is a failure that an outdated plan may have caused: then the whole transaction is repeated.
 */
import { performance } from "node:perf_hooks";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { ExecutorSession } from "./executor-session.js";
import { type Failure, failureOf, mayBeOutdatedPlan } from "./transaction.js";

const { groupMessages, maxGroups, maxBatchMessages } = bridgeConstants;

/**
 * SQLSTATE of a serialization failure, after which the transaction can go on; after a deadlock it must release its
 * locks.
 */
const serializationFailure = "40001";

/** Result of a batch in groups. */
export interface GroupsRun {
  /** Number of messages, from the first on, that were run. */
  readonly done: number;
  /** Failure of the group that follows. Undefined if all messages were run, or time ran out. */
  readonly failed?: { readonly count: number; readonly failure: FunctionFailure };
}

/** Failures of a function that leave the session usable. */
export type FunctionFailure = Extract<Failure, { readonly kind: "failed" | "timed_out" | "transient" }>;

/**
 * Size of a group. It doubles after each success and halves after each failure, so that about half of the groups
 * succeed: smaller groups cost more statements than larger ones cost in repeated messages.
 */
export class GroupSize {
  #present: number = groupMessages;

  get limit(): number {
    return this.#present;
  }

  /** Restores an earlier size. */
  set limit(before: number) {
    this.#present = before;
  }

  /** True after so many successes that batches can run without savepoints again. */
  get isOver(): boolean {
    return this.#present >= maxBatchMessages ** 2;
  }

  succeeded(): void {
    this.#present *= 2;
  }

  failed(count: number): void {
    this.#present = Math.max(1, count >> 1);
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
  const beganAt = performance.now();
  const { limit } = size;
  let done = 0;
  let isNew = true;
  for (let groups = 0; done < count && groups < maxGroups; groups += 1) {
    const startedAt = performance.now();
    // Each group may take the whole statement timeout.
    if (startedAt - beganAt > timeoutMs / 2) break;
    const end = Math.min(count, done + size.limit);
    if (isNew) await session.savepoint();
    try {
      await call(done, end);
      size.succeeded();
      done = end;
      isNew = true;
    } catch (error) {
      const failure = failureOf(error, performance.now() - startedAt, timeoutMs);
      if (session.isLost || failure.kind === "lost" || failure.kind === "unavailable") throw error;
      if (mayBeOutdatedPlan(session, error)) {
        // The caller repeats the whole transaction.
        size.limit = limit;
        throw error;
      }
      await session.toSavepoint();
      isNew = false;
      size.failed(end - done);
      const goesOn = end - done > 1 && failure.code === serializationFailure;
      if (!goesOn) return { done, failed: { count: end - done, failure } };
    }
  }
  return { done };
}
