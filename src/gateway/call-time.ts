/**
 * The time that a call has.
 */
import type { HawserError } from "../errors/index.js";
import type { GatewayCall } from "./calls.js";

/** What is left of a call's time, at least 1 ms. */
export function left({ startedAt, timeoutMs }: GatewayCall): number {
  return Math.max(1, Math.ceil(timeoutMs - (performance.now() - startedAt)));
}

/**
 * Settles as `work` does, or when the call's time is over with the error for that, by which the signal is aborted, too.
 *
 * @throws what `work` throws
 */
export function inTime<T>(
  call: GatewayCall,
  late: () => HawserError,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const error = late();
      reject(error);
      over.abort(error);
    }, left(call));
    work(over.signal)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}
