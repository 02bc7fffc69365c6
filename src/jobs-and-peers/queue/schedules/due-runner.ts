/**
 * Puts what is due into the queue: messages that were enqueued for later, and the occurrences of schedules.
 *
 * Every process with a peer does so, and `hawser serve`: none leads. A row that another process is moving is skipped, and a
 * schedule that another one has run is left.
 */
import { laterFunctions, schedulerFunctions } from "../../../../generated/ts/rows/queue.js";
import { scheduleConstants } from "../../../../generated/ts/settings/queue.js";
import { errorMessageOf } from "../../../foundation/errors/index.js";
import { functionClient, type SessionQuery } from "../../../foundation/postgres/index.js";
import { DeadlineTimer, delay, type Logger, RareLog } from "../../../foundation/runtime/index.js";
import { retryMs, runDueSchedules } from "./schedules.js";

/** Interval between polls that rely on nothing that an earlier one has found. */
const wholeMs = 60_000;

export class DueRunner {
  readonly #query: SessionQuery;
  readonly #everyMs: () => number;
  readonly #soon = new DeadlineTimer(() => this.#poll());
  readonly #rareLog: RareLog;
  #users = 0;
  #stopping = new AbortController();
  #pause = new AbortController();
  #isChanged = false;
  #work: Promise<void> = Promise.resolve();
  #wholeAt = Number.NEGATIVE_INFINITY;

  /**
   * @param query sends statements that wait for no lock of a user
   * @param everyMs maximum interval between two polls
   */
  constructor(query: SessionQuery, logger: Logger, everyMs: () => number = () => scheduleConstants.pollMs) {
    this.#query = query;
    this.#everyMs = everyMs;
    this.#rareLog = new RareLog(logger, "outbox");
  }

  /** Begins for the first of its users. @returns a function that ends it for this user, and waits for what runs */
  start(): () => Promise<void> {
    this.#users += 1;
    if (this.#users === 1) {
      const stopping = new AbortController();
      this.#stopping = stopping;
      this.#work = this.#work.then(() => this.#run(stopping.signal));
    }
    let isStopped = false;
    return async () => {
      if (!isStopped) this.#users -= 1;
      isStopped = true;
      if (this.#users > 0) return;
      this.#soon.stop();
      this.#stopping.abort();
      this.#pause.abort();
      await this.#work;
    };
  }

  /** Polls in time: something may be due that was not known. @param payload that of the notification: in how many ms at the earliest, or empty */
  changed(payload = ""): void {
    const inMs = Number(payload);
    if (!(inMs > 0)) this.#poll();
    else if (inMs < this.#everyMs()) this.#soon.arm(performance.now() + inMs);
  }

  #poll(): void {
    this.#isChanged = true;
    this.#pause.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const client = functionClient(this.#query);
    const { bringDue } = laterFunctions(client);
    const scheduler = schedulerFunctions(client);
    /** Due times that the last poll has left, and the snapshot that shows them. */
    let known: { readonly from: string; readonly seen: string } | undefined;
    while (!signal.aborted) {
      this.#isChanged = false;
      this.#pause = new AbortController();
      let inMs = this.#everyMs();
      try {
        if (performance.now() >= this.#wholeAt) {
          known = undefined;
          this.#wholeAt = performance.now() + wholeMs;
        }
        const found = await bringDue({ from: known?.from ?? null, seen: known?.seen ?? null });
        const { dueFrom, seen, dueInMs, scheduleInMs, problem } = found;
        known = { from: JSON.stringify(dueFrom), seen };
        if (problem !== null) this.#rareLog.warn("could not enqueue some due messages", problem);
        if (dueInMs !== null) inMs = Math.min(inMs, Math.max(0, Number(dueInMs)));
        if (signal.aborted) break;
        if (scheduleInMs !== null && scheduleInMs > 0n) inMs = Math.min(inMs, Number(scheduleInMs));
        else if (scheduleInMs !== null) inMs = Math.min(inMs, await runDueSchedules(scheduler, () => signal.aborted));
      } catch (error) {
        this.#rareLog.warn("could not enqueue due messages; retrying", errorMessageOf(error));
        // The next answer may come from another server.
        known = undefined;
        inMs = retryMs;
      }
      if (!this.#isChanged) await delay(inMs, this.#pause.signal);
    }
    this.#rareLog.end();
  }
}
