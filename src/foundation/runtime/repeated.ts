import { type Clock, systemClock } from "./clock.js";

/** Periodic work, one run at a time: a run starts after a pause, or earlier when a change is signalled. */
export class Repeated {
  readonly #pauseMs: number;
  readonly #work: () => Promise<void>;
  #running: Promise<void> | undefined;
  #runsAgain = false;
  #cancelNext: () => void = () => undefined;
  #isStopped = false;
  readonly #clock: Clock;

  /** @param pauseMs pause between runs @param work must not reject */
  constructor(pauseMs: number, work: () => Promise<void>, clock: Clock = systemClock) {
    this.#pauseMs = pauseMs;
    this.#work = work;
    this.#clock = clock;
  }

  /** True after {@link stop}. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Runs now, or joins the current run. */
  run(): Promise<void> {
    this.#cancelNext();
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined;
      const again = this.#runsAgain;
      this.#runsAgain = false;
      if (again && !this.#isStopped) void this.run();
      else this.runIn(this.#pauseMs);
    });
    return this.#running;
  }

  /**
   * Starts a run now. If a run is active, another run follows it, because the active run may have started before the
   * change.
   */
  soon(): void {
    if (this.#running === undefined) void this.run();
    else this.#runsAgain = true;
  }

  /** Schedules the next run after `delayMs`. {@link run} and {@link soon} can start it earlier. */
  runIn(delayMs: number): void {
    this.#cancelNext();
    if (!this.#isStopped) this.#cancelNext = this.#clock.setTimeout(() => void this.run(), delayMs);
  }

  /** Resolves after a run that started after this call. */
  async fresh(): Promise<void> {
    await this.#running;
    await this.run();
  }

  /** Ends the periodic runs. An active run completes. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelNext();
  }

  /** Resolves when no run is active. */
  async ended(): Promise<void> {
    await this.#running;
  }
}

/**
 * Shares runs of `work` between callers, one run at a time. Each call waits for a run that starts after it, because an
 * active run may have started before a change that the caller needs to see. All calls before the start of a run share
 * it.
 *
 * @returns a function that requests a run and settles with its result
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

/**
 * Returns a function that schedules `task` for the next turn of the event loop, so that what happens in one turn is handled
 * together. Further calls before it runs do nothing.
 */
export function oncePerTurn(task: () => void): () => void {
  let isDue = false;
  const run = (): void => {
    isDue = false;
    task();
  };
  return () => {
    if (isDue) return;
    isDue = true;
    setImmediate(run);
  };
}
