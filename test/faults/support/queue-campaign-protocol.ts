/**
 * What the driver of the campaign of the queue and its workers agree on: jobs, topics, and the journal of a worker. A line of the
 * journal is written before anything else happens, and outlives its process. Times are microseconds since 1970.
 */

/** A job, which says what its handler does. */
export interface CampaignJob {
  readonly id: string;
  readonly workMs?: number | undefined;
  /** Attempts that fail. */
  readonly fails?: number | undefined;
  /** It is to be tried again at this time, in milliseconds since 1970. */
  readonly notBefore?: number | undefined;
  readonly rejects?: boolean | undefined;
  /** Ends the process. */
  readonly kills?: boolean | undefined;
  /** Is handled until it is cancelled. */
  readonly endless?: boolean | undefined;
  /** Enqueues a further job with this id, in its transaction. */
  readonly further?: string | undefined;
  /** What must not run twice at a time: a key of a role, a unique key while running, a key of a limit. */
  readonly alone?: string | undefined;
}

/** A line of the journal of a worker. */
export type WorkerLine =
  | { readonly kind: "up" | "down" | "suicide"; readonly at: number }
  /** What `peer.health()` says has changed. */
  | { readonly kind: "health"; readonly at: number; readonly ready: boolean }
  /** A handler begins. `call` is its number in the process, `number` that of the message. */
  | {
      readonly kind: "begun";
      readonly at: number;
      readonly call: number;
      readonly topic: string;
      readonly id: string;
      readonly number: string;
      readonly attempt: number;
      readonly alone?: string | undefined;
    }
  | { readonly kind: "ended"; readonly at: number; readonly call: number; readonly isDone: boolean };

export const plainTopics = ["plain", "perkey"] as const;
export const transactionalTopics = [
  "work",
  "delayed",
  "unique",
  "limited",
  "rated",
  "endless",
  "news",
  "scheduled",
] as const;

/** How many handlers of a worker run at a time. */
export const workerConcurrency = 12;
/** Attempts of jobs for which nothing else is said. */
export const workerAttempts = 8;
/** Lease of a worker: time without a beat after which others take over. */
export const workerTakeoverMs = 5_000;

/** Now, in microseconds since 1970: all processes of a machine, and its Postgres, agree. */
export function now(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1_000);
}
