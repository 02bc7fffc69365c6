/**
 * Time comes from outside, so that tests move it instead of waiting.
 */

/** A clock and its timers. */
export interface Clock {
  /** Milliseconds from some fixed point; never goes back. */
  now(): number;
  /** Calls `callback` once after `delayMs`. @returns a function that cancels it, also after it has run */
  setTimeout(callback: () => void, delayMs: number): () => void;
}

/** The clock of this process. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (callback, delayMs) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
