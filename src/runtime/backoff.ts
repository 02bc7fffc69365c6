/**
 * How long is waited before something that failed is tried again.
 */

/** The waits double from `minMs` up to `maxMs`; both come from the constants of the spec. */
export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /**
   * The part of each wait that is drawn at random, so that many that failed together do not come back together: with
   * 0.5 a wait is between half of its time and the whole. Default 0.
   */
  readonly jitter?: number;
  /** 0 to 1. Default: `Math.random`. */
  readonly random?: () => number;
}

/** The wait in milliseconds after `failures` failures in a row (1 or more). */
export function backoffMs(
  { minMs, maxMs, jitter = 0, random = Math.random }: BackoffOptions,
  failures: number,
): number {
  const longest = Math.min(maxMs, minMs * 2 ** Math.max(0, failures - 1));
  return jitter === 0 ? longest : longest * (1 - jitter + jitter * random());
}

/** Counts failures in a row. */
export class Backoff {
  readonly #options: BackoffOptions;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  /** Failures since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /** One more failure. @returns how long to wait now, in milliseconds */
  failed(): number {
    this.#failures += 1;
    return backoffMs(this.#options, this.#failures);
  }

  /** A success: the next wait is the shortest again. */
  reset(): void {
    this.#failures = 0;
  }
}
