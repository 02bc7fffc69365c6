/**
 * For what must be brought by an event, or by a shorter time limit, rather than by some longer time limit or poll: with the
 * longer ones out of the way it comes, or the test hangs. How long it takes says nothing, as machines differ.
 */
import { onTestFinished, vi } from "vitest";

/** Node's timers fire at once when they are set for longer. */
const neverMs = 2 ** 31 - 1;

/**
 * Timers of this process that are set for longer than that do not fire, from now on until the test has ended.
 *
 * @param longestMs of the timers that still fire
 */
export function noTimersAbove(longestMs: number): void {
  restore = withoutTimersAbove(longestMs);
  onTestFinished(restoreTimers);
}

let restore: (() => void) | undefined;

/** All timers fire again: for what a file does after each test, which comes before the end of that. */
export function restoreTimers(): void {
  restore?.();
  restore = undefined;
}

/** The same until the returned function is called. */
export function withoutTimersAbove(longestMs: number): () => void {
  const real = globalThis.setTimeout;
  const set = (callback: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]): NodeJS.Timeout =>
    delayMs > longestMs ? real(callback, neverMs).unref() : real(callback, delayMs, ...args);
  const spy = vi.spyOn(globalThis, "setTimeout").mockImplementation(set as typeof setTimeout);
  return () => spy.mockRestore();
}

/**
 * Tries with a time limit, and again with one twice as long each, until a try is not `undefined`: for limits within which
 * something has to begin, such as a request that is to be sent before it is cancelled.
 */
export async function withEnoughTime<T>(
  firstMs: number,
  attempt: (limitMs: number) => Promise<T | undefined>,
): Promise<T> {
  for (let limitMs = firstMs; ; limitMs *= 2) {
    const result = await attempt(limitMs);
    if (result !== undefined) return result;
  }
}
