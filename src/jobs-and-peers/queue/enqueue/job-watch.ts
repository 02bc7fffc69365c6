/** Sessions that hear of the ends of messages whose results are kept, one for each database that is waited for. */
import type { Pool } from "pg";
import { queueConstants } from "../../../../generated/ts/settings/queue.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { isServerError, PostgresSession, sourceOf } from "../../../foundation/postgres/index.js";
import { inTime, maxTimerMs, silentLogger } from "../../../foundation/runtime/index.js";
import { checkedUrl, type SqlClient } from "../../../foundation/sql-clients/index.js";
import { statementLimits, storeFailure } from "../../store/index.js";

/** Asks for the state of a message. */
type Ask<Job> = (client: SqlClient, id: bigint) => Promise<Job>;

/** Watches in use, by what they connect to. */
const watches = new Map<string | Pool, JobWatch>();
/** Intervals of looks without a notification: a transaction that was ending the message when the wait began may not notify. */
const leastLookMs = 10;
/** Postgres may have lost some, or leave them out when its queue is nearly full. */
const mostLookMs = 2_000;
/** Time for the answer to the last look, after the limit of the wait. */
const lastLookMs = 2_000;
/** Time without an answer after which the connection counts as lost, and is replaced. */
const answerMs = 10_000;
const action = "ask what has become of a message";
const endedStates: ReadonlySet<string> = new Set(["done", "dead", "cancelled", "unknown"]);

/**
 * Resolves with the state of a message when it has ended, is unknown, or the time is over.
 *
 * @param ask asks for the state
 * @throws HawserError (as a rejection) `store_failed` if Postgres does not answer; errors of Postgres
 */
export async function waitForEnd<Job extends { readonly state: string }>(
  from: string | Pool,
  id: bigint,
  timeoutMs: number,
  ask: Ask<Job>,
): Promise<Job> {
  const watch = watches.get(from) ?? new JobWatch(from);
  watches.set(from, watch);
  watch.waits += 1;
  try {
    // A connection may have fallen silent: the limit does not wait for it.
    const late = (): HawserError =>
      new HawserError(
        "store_failed",
        `could not ${action}: Postgres has not answered within timeoutMs (${timeoutMs} ms) and ${lastLookMs} ms more`,
        { retryable: true },
      );
    const limitMs = Math.min(timeoutMs + lastLookMs, maxTimerMs);
    return await inTime(limitMs, late, (over) => watch.wait(id, timeoutMs, ask, over));
  } finally {
    watch.waits -= 1;
    if (watch.waits === 0) {
      watches.delete(from);
      void watch.close();
    }
  }
}

/** Session that hears of messages that have ended. */
class JobWatch {
  /** Number of waits that use it. */
  waits = 0;
  /** Callbacks that ask for the state again, by the id of the message. */
  readonly #looks = new Map<string, Set<() => void>>();
  /** Generation of the session that has the lock of these messages, by the low bits of their ids. */
  readonly #announced = new Map<number, number>();
  readonly #session: PostgresSession;

  constructor(from: string | Pool) {
    const lookForAll = (): void => {
      for (const looks of this.#looks.values()) for (const look of looks) look();
    };
    this.#session = new PostgresSession({
      address: sourceOf(typeof from === "string" ? { databaseUrl: checkedUrl("the URL", from) } : { pool: from }),
      logger: silentLogger,
      applicationName: "hawser: jobs",
      queryTimeoutMs: answerMs,
      ...statementLimits,
      channels: [queueConstants.resultsChannel],
      onUp: lookForAll,
      onDown: lookForAll,
      // Any login can notify: only an answer counts.
      onNotification: (_, id) => {
        for (const look of this.#looks.get(id) ?? []) look();
      },
    });
  }

  /** @param over aborted when nobody waits any more */
  async wait<Job extends { readonly state: string }>(
    id: bigint,
    timeoutMs: number,
    ask: Ask<Job>,
    over: AbortSignal,
  ): Promise<Job> {
    const until = performance.now() + timeoutMs;
    const client = { query: (text: string, values: unknown[]) => this.#session.query<object>(text, values) };
    let isTold = false;
    let wake = (): void => undefined;
    const look = (): void => {
      isTold = true;
      wake();
    };
    const looks = this.#looks.get(String(id)) ?? new Set();
    this.#looks.set(String(id), looks.add(look));
    let lookMs = leastLookMs;
    try {
      for (let isFirst = true; ; isFirst = false) {
        isTold = false;
        const isAtEnd = performance.now() >= until;
        try {
          await this.#announce(id);
          const found = await ask(client, id);
          if (isAtEnd || endedStates.has(found.state)) return found;
        } catch (error) {
          // Postgres may be back before the end.
          if (isFirst || isAtEnd || over.aborted) throw isServerError(error) ? error : storeFailure(action, error);
        }
        if (isTold) continue;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.max(0, Math.min(lookMs, until - performance.now())));
          lookMs = Math.min(lookMs * 2, mostLookMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    } finally {
      looks.delete(look);
      if (looks.size === 0) this.#looks.delete(String(id));
    }
  }

  /** Has those who end the message notify this session, by a lock that it keeps: one for many ids. */
  async #announce(id: bigint): Promise<void> {
    const bucket = Number(id & 31n);
    const { generation } = this.#session;
    if (this.#announced.get(bucket) === generation && generation > 0) return;
    const lock = "SELECT pg_try_advisory_lock_shared($1, $2) AS locked";
    const [row] = await this.#session.query<{ locked: boolean }>(lock, [queueConstants.resultsLock, bucket]);
    // Those who end messages have it for an instant: the next look tries again.
    if (row!.locked) this.#announced.set(bucket, this.#session.generation);
  }

  close(): Promise<void> {
    return this.#session.close();
  }
}
