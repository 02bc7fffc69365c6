/**
 * Work that is done again and again, one run at a time: after a pause each, and soon when something may have changed.
 */
export class Repeated {
  readonly #pauseMs: number;
  readonly #work: () => Promise<void>;
  #running: Promise<void> | undefined;
  #runsAgain = false;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  /** @param pauseMs from the end of a run to the next one @param work must not reject */
  constructor(pauseMs: number, work: () => Promise<void>) {
    this.#pauseMs = pauseMs;
    this.#work = work;
  }

  /** {@link stop} was called. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Runs now, or joins the run that is under way. */
  run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined;
      const again = this.#runsAgain;
      this.#runsAgain = false;
      if (again && !this.#isStopped) void this.run();
      else this.runIn(this.#pauseMs);
    });
    return this.#running;
  }

  /** Runs now; once more if a run is under way: it may have begun before the change. */
  soon(): void {
    if (this.#running === undefined) void this.run();
    else this.#runsAgain = true;
  }

  /** The next run begins after this time, or earlier by {@link run} or {@link soon}. */
  runIn(delayMs: number): void {
    clearTimeout(this.#timer);
    if (!this.#isStopped) this.#timer = setTimeout(() => void this.run(), delayMs);
  }

  /** Resolves after a run that began after this call. */
  async fresh(): Promise<void> {
    await this.#running;
    await this.run();
  }

  /** Runs no more by itself. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Resolves when no run is under way. */
  async ended(): Promise<void> {
    await this.#running;
  }
}

/**
 * Work that is asked for by several callers, one run at a time. A call waits for a run that begins after it: all calls that
 * come before that run begins share it, because the run under way may have begun before what they want to know of.
 *
 * @returns what asks for the work; it settles as the run does
 */
export function shared<T>(work: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  let next: Promise<T> | undefined;
  return () => {
    if (next === undefined) {
      next = last.then(() => {
        next = undefined;
        return work();
      });
      last = next.catch(() => undefined);
    }
    return next;
  };
}
