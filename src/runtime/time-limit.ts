/**
 * Time limits: a moment by which something must be done, waits that end, and timers for both.
 */
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import { type Clock, systemClock } from "./clock.js";

const { timeLimitSliceMs: sliceMs } = bridgeConstants;

/** Node's timers fire at once when they are set for longer. */
export const maxTimerMs = 2 ** 31 - 1;

/** A moment by which something must have settled. */
export class Deadline {
  readonly #at: number;
  readonly #clock: Clock;

  /** @param timeoutMs from now on; may be Infinity */
  constructor(
    readonly timeoutMs: number,
    clock: Clock = systemClock,
  ) {
    this.#clock = clock;
    this.#at = clock.now() + timeoutMs;
  }

  /** Whole milliseconds left, at least 1: most libraries take 0 for their own default. */
  get remainingMs(): number {
    return Math.max(1, Math.ceil(this.#at - this.#clock.now()));
  }

  /** True from the moment itself on. */
  get isOver(): boolean {
    return this.#clock.now() >= this.#at;
  }
}

/**
 * What `work` resolves to; undefined if it does not settle within `ms` (Infinity waits without a limit). Work that is late
 * goes on; should it reject then, that is ignored.
 *
 * @throws what `work` rejects with in time
 */
export function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const timer = ms <= maxTimerMs ? setTimeout(resolve, ms, undefined) : undefined;
    work.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}

/**
 * Settles as `work` does; after `limitMs` rejects with the error that `late` makes, with which the signal is aborted,
 * too.
 *
 * @throws what `work` throws
 */
export function inTime<T>(
  limitMs: number,
  late: () => Error,
  work: (signal: AbortSignal) => Promise<T>,
  clock: Clock = systemClock,
): Promise<T> {
  const over = new AbortController();
  return new Promise((resolve, reject) => {
    const cancel = clock.setTimeout(() => {
      const error = late();
      reject(error);
      over.abort(error);
    }, limitMs);
    work(over.signal).finally(cancel).then(resolve, reject);
  });
}

/** One timer that follows a moving deadline; set again only when the deadline comes nearer. */
export class DeadlineTimer {
  #timer: NodeJS.Timeout | undefined;
  #at = Number.POSITIVE_INFINITY;

  readonly #onDue: () => void;

  /** `onDue` is called when the deadline has come; it arms the timer again if there is another. */
  constructor(onDue: () => void) {
    this.#onDue = onDue;
  }

  /** The deadline is now `at` (ms of `performance.now`), Infinity for none. */
  arm(at: number): void {
    if (at >= this.#at) return;
    clearTimeout(this.#timer);
    this.#at = at;
    this.#timer = setTimeout(
      () => {
        this.#at = Number.POSITIVE_INFINITY;
        this.#onDue();
      },
      Math.min(maxTimerMs, Math.max(0, Math.ceil(at - performance.now()))),
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#at = Number.POSITIVE_INFINITY;
  }
}

/**
 * A time limit that does not count the time in which this process stands still, because it or its machine was stopped:
 * what arrived meanwhile is read before the time is over. Keeps the process alive, as a timer does.
 */
export class TimeLimit {
  readonly #onOver: () => void;
  readonly #clock: Clock;
  #leftMs: number;
  #cancel = (): void => {};
  #isEnded = false;

  /** @param onOver called once, unless {@link end} is called before */
  constructor(limitMs: number, onOver: () => void, clock: Clock = systemClock) {
    this.#leftMs = limitMs;
    this.#onOver = onOver;
    this.#clock = clock;
    this.#wait();
  }

  /** The limit is needed no more. */
  end(): void {
    this.#isEnded = true;
    this.#cancel();
  }

  #wait(): void {
    const waitMs = Math.min(this.#leftMs, sliceMs);
    const since = this.#clock.now();
    this.#cancel = this.#clock.setTimeout(() => {
      this.#leftMs -= Math.min(this.#clock.now() - since, 2 * sliceMs);
      if (this.#leftMs > 0) this.#wait();
      else setImmediate(() => this.#over());
    }, waitMs);
  }

  #over(): void {
    // What was there to read has been read by now.
    if (!this.#isEnded) this.#onOver();
  }
}
