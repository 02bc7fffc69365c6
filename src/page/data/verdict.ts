/** Verdict of `hawser doctor`, which takes seconds: the newest one is kept, and examined again in the background. */
import { pageConstants } from "../../../generated/ts/settings/page.js";
import { type DoctorOptions, type DoctorReport, doctor } from "../../doctor/index.js";
import type { Clock, Logger } from "../../runtime/index.js";

/** Newest verdict. */
export interface ShownVerdict {
  /** Undefined until the first examination has ended. */
  readonly report: DoctorReport | undefined;
  /** Age of the report in milliseconds. */
  readonly ageMs: number;
  readonly isExamining: boolean;
}

export class Verdicts {
  readonly #options: DoctorOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #report: DoctorReport | undefined;
  #examinedAt = 0;
  #running: Promise<void> | undefined;

  constructor(options: DoctorOptions, clock: Clock, logger: Logger) {
    this.#options = options;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Newest verdict. Starts an examination if there is none, or if it is older than `verdictMs`. */
  get newest(): ShownVerdict {
    const ageMs = this.#clock.now() - this.#examinedAt;
    if (this.#report === undefined || ageMs > pageConstants.verdictMs) this.#running ??= this.#examine();
    return { report: this.#report, ageMs, isExamining: this.#running !== undefined };
  }

  /** Waits for the running examination, if there is one. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #examine(): Promise<void> {
    try {
      this.#report = await doctor(this.#options);
      this.#examinedAt = this.#clock.now();
    } catch (err) {
      this.#logger.error({ err }, "the page could not examine the installation");
    } finally {
      this.#running = undefined;
    }
  }
}
