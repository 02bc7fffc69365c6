import { setTimeout as delay } from "node:timers/promises";
import { HawserError } from "../../foundation/errors/index.js";

/** Limits of {@link eventually}. */
interface EventuallyOptions {
  /** Time that the assertion may fail, in milliseconds. Default 5,000. */
  readonly withinMs?: number | undefined;
  /** Pause between two attempts, in milliseconds. Default 20. */
  readonly everyMs?: number | undefined;
}

/**
 * Retries the assertion until it holds: it does not throw, its promise does not reject, and its result is not `false`.
 * Meant for effects of other processes that no event announces.
 *
 * @returns the result of the assertion
 * @throws the assertion's last error when the time is over; HawserError `aborted` if the assertion returned `false` or
 * has not ended
 */
export async function eventually<T>(assertion: () => T | PromiseLike<T>, options: EventuallyOptions = {}): Promise<T> {
  const { withinMs = 5_000, everyMs = 20 } = options;
  for (const [name, value] of Object.entries({ withinMs, everyMs })) {
    if (typeof value === "number" && value >= 0) continue;
    throw new HawserError("invalid_argument", `${name} ${value}: must be a number of milliseconds, 0 or more`);
  }
  const deadline = performance.now() + withinMs;
  const late = new HawserError("aborted", `the assertion did not end within ${withinMs} ms`);
  let failure: unknown = late;
  for (let attempt = 1; ; attempt++) {
    const timer = new AbortController();
    try {
      const timeout = delay(Math.max(deadline - performance.now(), 0), late, { signal: timer.signal });
      const result = await Promise.race([attempted(assertion), timeout]);
      if (result === late) throw late;
      if (result !== false) return result as T;
      failure = new HawserError(
        "aborted",
        `the assertion still returned false after ${withinMs} ms and ${attempt} attempts`,
      );
    } catch (error) {
      // The error of an earlier attempt is more informative than the timeout.
      if (error !== late || attempt === 1) failure = error;
    } finally {
      timer.abort();
    }
    if (performance.now() + everyMs > deadline) throw failure;
    await delay(everyMs);
  }
}

/** Runs the assertion; a synchronous throw becomes a rejection. */
async function attempted<T>(assertion: () => T | PromiseLike<T>): Promise<T> {
  return await assertion();
}
