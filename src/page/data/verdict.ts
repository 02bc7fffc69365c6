/** Verdict of `hawser doctor`, which takes seconds: the newest one is kept, and examined again in the background. */

import { type DoctorOptions, type DoctorReport, doctor } from "../../doctor/index.js";
import { errorMessageOf } from "../../errors/index.js";
import type { Clock, Logger } from "../../runtime/index.js";

/** Age of the shown verdict of hawser doctor from which it examines again. */
const verdictMs = 60_000;

/** Newest verdict. */
export interface ShownVerdict {
  /** Undefined until the first examination has ended. */
  readonly report: DoctorReport | undefined;
  /** Age of the report in milliseconds. */
  readonly ageMs: number;
  readonly isExamining: boolean;
  /** Reason why the last examination failed; undefined if it did not. */
  readonly problem: string | undefined;
}

export class Verdicts {
  readonly #options: DoctorOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #report: DoctorReport | undefined;
  #examinedAt = 0;
  #problem: string | undefined;
  #running: Promise<void> | undefined;

  constructor(options: DoctorOptions, clock: Clock, logger: Logger) {
    this.#options = options;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Newest verdict. Starts an examination if there is none, or if it is older than `verdictMs`. */
  get newest(): ShownVerdict {
    const ageMs = this.#clock.now() - this.#examinedAt;
    if (this.#report === undefined || ageMs > verdictMs) this.#running ??= this.#examine();
    return { report: this.#report, ageMs, isExamining: this.#running !== undefined, problem: this.#problem };
  }

  /** Waits for the running examination, if there is one. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #examine(): Promise<void> {
    try {
      this.#report = await doctor(this.#options);
      this.#examinedAt = this.#clock.now();
      this.#problem = undefined;
    } catch (err) {
      this.#problem = errorMessageOf(err);
      this.#logger.error({ err }, "the installation could not be examined");
    } finally {
      this.#running = undefined;
    }
  }
}
