/** Time limits: deadlines, bounded waits, timers, and connections. */
import net from "node:net";
import { type Clock, systemClock } from "./clock.js";

/** Time at the end of a stop that is reserved for calls under way. */
export const stopReserveMs = 500;

/**
 * The slice in which time limits are counted. If a timer is later than that, the process stood still, and time beyond
 * two slices is not counted.
 */
const sliceMs = 500;

/** Time for a connection to one address of a host name, before its next address is tried. */
const addressTimeoutMs = 3_000;

/**
 * Returns the time for each address of a host name, as an option of `net.connect`. Node.js tries the addresses one after
 * another, those of both families in turn, and gives each but the last 250 ms: too little for a distant server, if the other
 * family has no route. Node's own setting, `--network-family-autoselection-attempt-timeout`, can raise the time.
 *
 * @param limitMs time limit of the connection, of which the second family gets at least half
 */
export function addressAttempts(limitMs: number): { readonly autoSelectFamilyAttemptTimeout: number } {
  // Not every runtime has it.
  const nodeMs = net.getDefaultAutoSelectFamilyAttemptTimeout?.() ?? 0;
  const timeoutMs = Math.min(Math.max(addressTimeoutMs, nodeMs), Math.floor(limitMs / 2));
  return { autoSelectFamilyAttemptTimeout: Math.max(1, timeoutMs) };
}

/** Maximum delay of Node's timers. Longer delays would fire at once. */
export const maxTimerMs = 2 ** 31 - 1;

/** Deadline for an operation. */
export class Deadline {
  readonly #at: number;
  readonly #clock: Clock;

  /** @param timeoutMs time from now in ms; may be Infinity */
  constructor(
    readonly timeoutMs: number,
    clock: Clock = systemClock,
  ) {
    this.#clock = clock;
    this.#at = clock.now() + timeoutMs;
  }

  /** Remaining time in whole ms, at least 1, because most libraries interpret 0 as their default. */
  get remainingMs(): number {
    return Math.max(1, Math.ceil(this.#at - this.#clock.now()));
  }

  /** True once the deadline is reached. */
  get isOver(): boolean {
    return this.#clock.now() >= this.#at;
  }
}

/**
 * Waits for `work` at most `ms` (may be Infinity). Resolves with its value, or undefined on timeout. Late work
 * continues, and its later rejection is ignored.
 *
 * @throws the rejection of `work`
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
 * Settles as `work` does. After `limitMs`, rejects with the error of `late` and aborts the signal with it.
 *
 * @throws the rejection of `work`
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

/** Timer for a moving deadline. It is set again only when the deadline moves closer. */
export class DeadlineTimer {
  #cancel: (() => void) | undefined;
  #at = Number.POSITIVE_INFINITY;

  readonly #onDue: () => void;
  readonly #clock: Clock;

  /** @param onDue called when the deadline is reached; it calls {@link arm} if there is another */
  constructor(onDue: () => void, clock: Clock = systemClock) {
    this.#onDue = onDue;
    this.#clock = clock;
  }

  /** Sets the deadline to `at` (ms of the clock, by default of `performance.now`); Infinity for none. */
  arm(at: number): void {
    if (at >= this.#at) return;
    this.#cancel?.();
    this.#at = at;
    this.#cancel = this.#clock.setTimeout(
      () => {
        this.#at = Number.POSITIVE_INFINITY;
        this.#onDue();
      },
      Math.min(maxTimerMs, Math.max(0, Math.ceil(at - this.#clock.now()))),
    );
  }

  stop(): void {
    this.#cancel?.();
    this.#at = Number.POSITIVE_INFINITY;
  }
}

/**
 * Time limit that does not count time in which this process or its machine was suspended: data that arrived during that
 * time is read before the limit expires. Keeps the process alive, as a timer does.
 */
export class TimeLimit {
  readonly #onOver: () => void;
  readonly #clock: Clock;
  #leftMs: number;
  #cancel = (): void => {};
  #isEnded = false;

  /** @param onOver called once on expiry, unless {@link end} is called before */
  constructor(limitMs: number, onOver: () => void, clock: Clock = systemClock) {
    this.#leftMs = limitMs;
    this.#onOver = onOver;
    this.#clock = clock;
    this.#wait();
  }

  /** Cancels the limit. */
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
    // Data that arrived during a suspension has been read by now.
    if (!this.#isEnded) this.#onOver();
  }
}
