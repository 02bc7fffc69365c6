/** State, progress and result of enqueued messages. */
import type { Pool } from "pg";
import { queueFunctions } from "../../../../generated/ts/rows/queue.js";
import { invalidArgument } from "../../../foundation/errors/index.js";
import type { SqlClient } from "../../../foundation/sql-clients/index.js";
import { checkedId } from "./destination.js";
import { callerOf } from "./enqueue.js";

/**
 * State of a message.
 * - `waiting`: for a listener, or to be tried again.
 * - `later`: it is not due yet.
 * - `held`: others have to be handled before it, those of {@link Job.waitsFor}.
 * - `running`: a listener has it, and handles it or is about to.
 * - `dead`: it is a dead letter, or was one that is discarded, and its result is kept. Retried, it waits again.
 * - `done`, `cancelled`: it has ended, and its result is kept: by `keepMs`, or by its topic.
 * - `unknown`: it has ended and nothing is kept of it, is not committed, or belongs to a role that the client's is no member of.
 */
export type JobState = "waiting" | "later" | "held" | "running" | "done" | "dead" | "cancelled" | "unknown";

/** State of a message, with its result after the end. A field is undefined if the message has no such thing, or it is not known. */
export interface Job {
  readonly state: JobState;
  readonly topic: string | undefined;
  /** Ordering key. */
  readonly key: string | undefined;
  /** Headers that it was enqueued with; of a dead letter also those of its key and origin. */
  readonly headers: readonly (readonly [name: string, value: string])[] | undefined;
  /** Listener that has the message, or had it last. */
  readonly listener: string | undefined;
  /** Number of attempts that have ended. */
  readonly attempts: number;
  /**
   * Number of times that its handler was cut off, because its process stopped. These are no attempts. Known while the message waits, runs or
   * is a dead letter; undefined before, and when it is done or cancelled.
   */
  readonly givenBack: number | undefined;
  /** When the message was enqueued. One that was due later: when it was due. */
  readonly enqueuedAt: Date | undefined;
  /** When the message is due, or tried again. */
  readonly dueAt: Date | undefined;
  readonly endedAt: Date | undefined;
  /** Duration of the attempt that was done, in ms. */
  readonly durationMs: number | undefined;
  /** Last value of `message.progress`. */
  readonly progress: unknown;
  /** Value that the handler returned, if it is done. */
  readonly result: unknown;
  /** Why the message is a dead letter; or, with the code `not_waiting`, because of which message it was cancelled. */
  readonly error: { readonly code: string; readonly message: string } | undefined;
  /** Until when this is kept. */
  readonly expiresAt: Date | undefined;
  /** Database role that has enqueued it. */
  readonly enqueuedBy: string | undefined;
  /**
   * Up to 100 of the messages that a `held` one waits for, those that release nothing first. A running peer writes what became of them: until
   * then, for a moment, one that has ended is still `waiting`.
   */
  readonly waitsFor: readonly AwaitedJob[] | undefined;
}

/** Message that another one waits for. */
export interface AwaitedJob {
  readonly id: bigint;
  /**
   * - `waiting`: it has not ended.
   * - `dead`: it is a dead letter. If that is retried and handled, the other message is released.
   * - `gone`: it was cancelled, or its dead letter was discarded or has expired. It releases nothing: cancel the other one.
   */
  readonly state: "waiting" | "dead" | "gone";
}

/** Options of {@link waitFor}. */
export interface WaitOptions {
  /** Maximum wait in milliseconds, at most 2,147,483,647. Default: 30,000. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Tells what has become of a message for a topic. Needs the role that enqueued it, and the role `hawser_peer` or a grant.
 *
 * @param id id that {@link enqueue} returned, or its digits: `String(id)` is how it travels in JSON
 * @throws HawserError (as a rejection) `invalid_argument`, `schema_missing`; errors of Postgres
 */
export async function job(client: SqlClient, id: bigint | string): Promise<Job> {
  const row = await queueFunctions(callerOf(client)).job({ id: checkedId("id", id) });
  const { state, errorCode, errorMessage, durationMs } = row;
  return {
    state: state as JobState,
    topic: row.topic ?? undefined,
    key: row.key ?? undefined,
    headers: listOf(row.headers),
    listener: row.listener ?? undefined,
    attempts: row.attempts ?? 0,
    givenBack: row.givenBack ?? undefined,
    enqueuedAt: row.enqueuedAt ?? undefined,
    dueAt: row.dueAt ?? undefined,
    endedAt: row.endedAt ?? undefined,
    durationMs: durationMs === null ? undefined : Number(durationMs),
    progress: parsed(row.progress),
    result: parsed(row.result),
    error: errorCode === null ? undefined : { code: errorCode, message: errorMessage ?? "" },
    expiresAt: row.expiresAt ?? undefined,
    enqueuedBy: row.role ?? undefined,
    waitsFor: awaitedJobs(row.waitsFor),
  };
}

/**
 * Waits until a message has ended that was committed, and whose result is kept. All calls of a process for one database share a
 * connection, which is notified; they also look every two seconds.
 *
 * @param from connection URI, or a pool, of which a client is kept during the wait
 * @param id id that {@link enqueue} returned, or its digits
 * @returns what has become of the message; after `timeoutMs` what it is then, and at once if it is `unknown`
 * @throws HawserError (as a rejection) `invalid_argument`, `schema_missing`; `store_failed` if Postgres is away at the first or the last
 * look, or has not answered 2 seconds after `timeoutMs`; errors of Postgres
 */
export async function waitFor(
  from: string | Pool,
  id: bigint | string,
  { timeoutMs = 30_000 }: WaitOptions = {},
): Promise<Job> {
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 0 && timeoutMs <= 2 ** 31 - 1))
    throw invalidArgument(`timeoutMs ${String(timeoutMs)}: must be a number of ms from 0 to ${2 ** 31 - 1}`);
  // Sockets are loaded by who uses them.
  const { waitForEnd } = await import("./job-watch.js");
  return await waitForEnd(from, checkedId("id", id), timeoutMs, job);
}

/** Messages that a held one waits for, as the SQL functions tell them. */
export function awaitedJobs(given: unknown): Job["waitsFor"] {
  return listOf<{ id: string; state: AwaitedJob["state"] }>(given)?.map(({ id, state }) => ({ id: BigInt(id), state }));
}

/** @param given JSON of a list, parsed unless the client parses none */
function listOf<Each>(given: unknown): readonly Each[] | undefined {
  if (given === null) return undefined;
  return typeof given === "string" ? JSON.parse(given) : (given as readonly Each[]);
}

function parsed(json: string | null): unknown {
  return json === null ? undefined : JSON.parse(json);
}
