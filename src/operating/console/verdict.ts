/** Verdict of `hawser doctor`, which takes seconds: it is made on a timer, and the newest one is kept with its age. */

import { errorMessageOf } from "../../foundation/errors/index.js";
import type { Clock, Logger } from "../../foundation/runtime/index.js";
import { type DoctorOptions, type DoctorReport, doctor } from "../doctor/index.js";

/** Time between the beginnings of two examinations; one that takes longer is followed by the next at once. */
const examineMs = 15_000;
/** Least time between the beginnings of two examinations, if there is a reason for the second one. */
const soonestMs = 5_000;
/** Age from which a verdict no longer says how things are. */
const oldVerdictMs = 2 * examineMs;
/** Time without a look at the verdict after which the examinations end, until the next look. */
const unwatchedMs = 600_000;

/** Newest verdict. */
export interface ShownVerdict {
  /** Undefined until the first examination has ended. */
  readonly report: DoctorReport | undefined;
  /** Time since the report's examination began, in milliseconds. */
  readonly ageMs: number;
  /** True if the report is too old to say how things are. */
  readonly isOld: boolean;
  readonly isExamining: boolean;
  /** Reason why the last examination failed; undefined if it did not. */
  readonly problem: string | undefined;
}

export class Verdicts {
  readonly #examineOnce: () => Promise<DoctorReport>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #report: DoctorReport | undefined;
  #examinedAt = 0;
  #problem: string | undefined;
  #running: Promise<void> | undefined;
  #cancelNext: (() => void) | undefined;
  #lookedAt = 0;
  #isClosed = false;
  #signs: string | undefined;
  /** True if the signs have changed since the last examination began. */
  #isSurprised = false;
  #startedAt = 0;
  #endedAt = 0;

  /** @param examine makes a report; default: `hawser doctor` */
  constructor(options: DoctorOptions, clock: Clock, logger: Logger, examine = () => doctor(options)) {
    this.#examineOnce = examine;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Newest verdict. The first look starts the examinations; they go on until nobody has looked for `unwatchedMs`. */
  get newest(): ShownVerdict {
    this.#lookedAt = this.#clock.now();
    if (this.#cancelNext === undefined && !this.#isClosed) this.#running ??= this.#examine();
    const ageMs = this.#lookedAt - this.#examinedAt;
    const isOld = this.#report !== undefined && ageMs > oldVerdictMs;
    return { report: this.#report, ageMs, isOld, isExamining: this.#running !== undefined, problem: this.#problem };
  }

  /**
   * Newest verdict, as {@link newest}, for those who see how things are by other means: as soon as their signs change, what has
   * changed is examined, and not only when its time has come.
   *
   * @param signs text that is the same as long as all is as it was
   */
  seen(signs: string): ShownVerdict {
    const isSurprise = this.#signs !== undefined && signs !== this.#signs;
    this.#signs = signs;
    if (isSurprise) {
      this.#isSurprised = true;
      if (this.#cancelNext !== undefined) {
        this.#cancelNext();
        this.#plan();
      }
    }
    return this.newest;
  }

  /** Waits for the running examination, if there is one. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** Ends the examinations after the running one. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelNext?.();
    await this.#running;
  }

  async #examine(): Promise<void> {
    const startedAt = this.#clock.now();
    this.#startedAt = startedAt;
    this.#isSurprised = false;
    try {
      this.#report = await this.#examineOnce();
      this.#examinedAt = startedAt;
      this.#problem = undefined;
    } catch (err) {
      this.#problem = errorMessageOf(err);
      this.#logger.error({ err }, "the installation could not be examined");
    } finally {
      this.#running = undefined;
      this.#endedAt = this.#clock.now();
      if (!this.#isClosed) this.#plan();
    }
  }

  /** Sets the timer of the next examination. */
  #plan(): void {
    // At most half of the time is for examinations.
    const restedAt = this.#endedAt + (this.#endedAt - this.#startedAt);
    const soonAt = Math.max(this.#startedAt + soonestMs, restedAt);
    const nextAt = this.#isSurprised ? Math.min(soonAt, this.#startedAt + examineMs) : this.#startedAt + examineMs;
    const waitMs = Math.max(0, nextAt - this.#clock.now());
    this.#cancelNext = this.#clock.setTimeout(() => this.#next(), waitMs, false);
  }

  #next(): void {
    this.#cancelNext = undefined;
    if (this.#clock.now() - this.#lookedAt < unwatchedMs) this.#running = this.#examine();
  }
}
