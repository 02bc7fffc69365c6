/** Delays before retries. */

/** Delays double from `minMs` to `maxMs`. */
export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /**
   * Random fraction of each delay, so that callers that failed together do not retry together: with 0.5, a delay is
   * between half and all of its nominal value. Default 0.
   */
  readonly jitter?: number;
  /** Random number from 0 to 1. Default: `Math.random`. */
  readonly random?: () => number;
}

/** Delay in ms after `failures` consecutive failures (1 or more). */
export function backoffMs(
  { minMs, maxMs, jitter = 0, random = Math.random }: BackoffOptions,
  failures: number,
): number {
  const longest = Math.min(maxMs, minMs * 2 ** Math.max(0, failures - 1));
  return jitter === 0 ? longest : longest * (1 - jitter + jitter * random());
}

/** Counter of consecutive failures. */
export class Backoff {
  readonly #options: BackoffOptions;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  /** Number of failures since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /** Counts a failure. @returns delay before the retry in ms */
  failed(): number {
    this.#failures += 1;
    return backoffMs(this.#options, this.#failures);
  }

  /** Records a success: the next delay is the shortest again. */
  reset(): void {
    this.#failures = 0;
  }
}
