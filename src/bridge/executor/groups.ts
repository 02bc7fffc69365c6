/**
 * A batch in groups, each behind a savepoint: one that fails does not undo the others, unless a plan that the session had
 * kept may be why. It is used for functions that run into serialization failures or deadlocks now and then, for which a whole
 * batch would be run again and again.
 */
import { performance } from "node:perf_hooks";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { ExecutorSession } from "./executor-session.js";
import { type Failure, failureOf, mayBeOldPlan } from "./transaction.js";

const { groupMessages, maxGroups, maxBatchMessages } = bridgeConstants;

/** A serialization failure is over with the statement; for a deadlock the transaction has to give up its locks. */
const serializationFailure = "40001";

/** What came of a batch. */
export interface GroupsRun {
  /** So many messages at the front were run. */
  readonly done: number;
  /** Why no more: the messages behind those, as many as were run together. Undefined: there was no more time, or all are done. */
  readonly failed?: { readonly count: number; readonly failure: FunctionFailure };
}

/** Of the function, after which the session goes on. */
export type FunctionFailure = Extract<Failure, { readonly kind: "failed" | "timed_out" | "transient" }>;

/**
 * How many messages a group has: twice as many after each that succeeds, half as many after each that fails, so that about
 * half of them succeed. Smaller ones would cost more in statements than larger ones cost in messages that are run again.
 */
export class GroupSize {
  #present: number = groupMessages;

  get limit(): number {
    return this.#present;
  }

  /** Takes back what it has learnt since. */
  set limit(before: number) {
    this.#present = before;
  }

  /** For so long none has failed that batches may be called without a savepoint again. */
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
 * @param call runs the messages from `start` up to `end`; rejects as Postgres does
 * @throws what ends the session
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
    // Each may take all of its time.
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
      if (mayBeOldPlan(session, error)) {
        // The whole transaction is run once more.
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
