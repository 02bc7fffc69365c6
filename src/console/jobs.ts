/**
 * Retries and discards that run in the background, batch by batch and in the order of ids, with their progress.
 *
 *     waiting --undoMs--> running --> done
 *        |                   |------> failed
 *        '-----stop----------'------> stopped
 *
 * Only a discard waits, because it cannot be undone once it has begun. A job lives in this process: its end leaves the
 * remaining dead letters as they are.
 */
import { randomBytes } from "node:crypto";
import { errorMessageOf, HawserError, withoutPasswords } from "../errors/index.js";
import type { DeadLetterOutcome, DeadLetterSelection, DeadLetters } from "../operate/index.js";
import type { Clock } from "../runtime/index.js";

export type JobAction = "retry" | "discard";

/** State and progress of a job. */
export interface Job {
  readonly id: string;
  readonly action: JobAction;
  readonly selection: DeadLetterSelection;
  /**
   * Number of dead letters that matched when the job was started, counted up to `examinedDeadLetters` + 1; undefined if
   * counting took too long.
   */
  readonly expected: number | undefined;
  state: "waiting" | "running" | "done" | "stopped" | "failed";
  /** Number by outcome. */
  readonly counts: Partial<Record<DeadLetterOutcome["outcome"], number>>;
  /** Reasons of refusals and their ids, the first of each. */
  readonly refusals: Map<string, number>;
  lastId: number | undefined;
  error: string | undefined;
}

/** Time for which a discard waits before it begins, and can be undone. */
export const undoMs = 10_000;
/** Maximum number of retries and discards that run at once. */
const runningJobs = 4;
/** Number of ended retries and discards that are remembered. */
const keptJobs = 50;

export class Jobs {
  readonly #letters: DeadLetters;
  readonly #clock: Clock;
  /** Ordered by start, the oldest first. */
  readonly #jobs = new Map<string, Job>();
  readonly #stops = new Map<string, AbortController>();
  readonly #running = new Set<Promise<void>>();
  #isClosed = false;

  constructor(letters: DeadLetters, clock: Clock) {
    this.#letters = letters;
    this.#clock = clock;
  }

  get(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  /** Jobs, the newest first. */
  get all(): readonly Job[] {
    return [...this.#jobs.values()].reverse();
  }

  /** Starts a job. @throws HawserError `invalid_argument` if `runningJobs` are waiting or running, or after {@link close} */
  start(action: JobAction, selection: DeadLetterSelection, expected: number | undefined): Job {
    // A discard that waits would keep the process running.
    if (this.#isClosed)
      throw new HawserError("invalid_argument", "the page is being closed, and starts no more retries and discards");
    if (this.#stops.size >= runningJobs) {
      throw new HawserError(
        "invalid_argument",
        `${this.#stops.size} retries and discards run already, and at most ${runningJobs} may: wait for one to end, or stop it`,
      );
    }
    const job: Job = {
      id: randomBytes(9).toString("base64url"),
      action,
      selection,
      expected,
      state: action === "discard" ? "waiting" : "running",
      counts: {},
      refusals: new Map(),
      lastId: undefined,
      error: undefined,
    };
    const stop = new AbortController();
    this.#stops.set(job.id, stop);
    this.#jobs.set(job.id, job);
    for (const { id } of this.all.slice(keptJobs)) if (!this.#stops.has(id)) this.#jobs.delete(id);
    const running = this.#run(job, stop.signal).finally(() => {
      this.#stops.delete(job.id);
      this.#running.delete(running);
    });
    this.#running.add(running);
    return job;
  }

  /** Stops a job after its current batch. Has no effect on a job that has ended. */
  stop(id: string): void {
    this.#stops.get(id)?.abort();
  }

  /** Stops all jobs, and waits for their current batches. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops.values()) stop.abort();
    await Promise.all(this.#running);
  }

  async #run(job: Job, signal: AbortSignal): Promise<void> {
    try {
      if (job.state === "waiting") await this.#undoTime(signal);
      if (!signal.aborted) {
        job.state = "running";
        const batches = job.action === "retry" ? this.#letters.retryInBatches : this.#letters.discardInBatches;
        for await (const outcomes of batches(job.selection)) {
          for (const outcome of outcomes) count(job, outcome);
          if (signal.aborted) break;
        }
      }
      job.state = signal.aborted ? "stopped" : "done";
    } catch (error) {
      job.state = "failed";
      job.error = withoutPasswords(errorMessageOf(error));
    }
  }

  #undoTime(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimeout(resolve, undoMs);
      signal.addEventListener("abort", () => {
        cancel();
        resolve();
      });
    });
  }
}

/** Maximum number of reasons that a job remembers. */
const keptRefusals = 20;

function count(job: Job, outcome: DeadLetterOutcome): void {
  job.counts[outcome.outcome] = (job.counts[outcome.outcome] ?? 0) + 1;
  job.lastId = outcome.id;
  if (outcome.outcome !== "refused") return;
  const reason = outcome.message.replace(/^dead letter \d+ /, "");
  if (!job.refusals.has(reason) && job.refusals.size < keptRefusals) job.refusals.set(reason, outcome.id);
}
