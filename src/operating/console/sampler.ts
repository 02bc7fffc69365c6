/** Timer that takes samples for charts as long as a page is served. Of all processes with a page, the first one in a step takes its sample. */

import { errorMessageOf } from "../../foundation/errors/index.js";
import type { Clock, Logger } from "../../foundation/runtime/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { takeSample } from "../operate/index.js";

/** Least pause between two calls: a timer may fire a little before its step begins. */
const leastPauseMs = 100;
/** Pause after a call that failed. */
const failedPauseMs = 15_000;

export class Sampler {
  readonly #take: () => Promise<number>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #running: Promise<void> | undefined;
  #cancelNext: (() => void) | undefined;
  #isClosed = false;
  #hasFailed = false;

  /** @param take takes a sample unless there is one, and resolves with the time in milliseconds until the next step */
  constructor(database: Database, clock: Clock, logger: Logger, take = () => takeSample(database)) {
    this.#take = take;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Begins, unless it has begun. */
  start(): void {
    if (this.#running === undefined && this.#cancelNext === undefined && !this.#isClosed) this.#next();
  }

  /** Waits for the sample that is being taken, if there is one. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** Ends the timer, after the sample that is being taken. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelNext?.();
    await this.#running;
  }

  #next(): void {
    this.#cancelNext = undefined;
    this.#running = this.#sample();
  }

  async #sample(): Promise<void> {
    let pauseMs = failedPauseMs;
    try {
      pauseMs = Math.max(leastPauseMs, await this.#take());
      this.#hasFailed = false;
    } catch (err) {
      // What fails for one reason fails again and again.
      if (!this.#hasFailed) this.#logger.warn({ err }, `no sample was taken for charts: ${errorMessageOf(err)}`);
      this.#hasFailed = true;
    } finally {
      this.#running = undefined;
      if (!this.#isClosed) this.#cancelNext = this.#clock.setTimeout(() => this.#next(), pauseMs, false);
    }
  }
}
