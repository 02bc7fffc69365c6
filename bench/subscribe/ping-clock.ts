/**
 * Measures how long single messages take that are sent at a steady pace, whether the one before has come or not.
 */
import { setTimeout as delay } from "node:timers/promises";
import { BenchFailure } from "../bench-failure.js";

/** In µs. */
export interface Latencies {
  readonly p50: number;
  readonly p99: number;
}

/** How long the last ones may take. */
const patienceMs = 30_000;

/** See above. */
export class PingClock {
  #sentAt = new Float64Array(0);
  #took = new Float64Array(0);
  #left = 0;
  #complete: () => void = () => undefined;

  /**
   * Sends numbers from 1 on.
   *
   * @throws BenchFailure if some do not come
   */
  async measure(times: number, everyMs: number, send: (number: number) => void): Promise<Latencies> {
    this.#sentAt = new Float64Array(times);
    this.#took = new Float64Array(times);
    this.#left = times;
    const all = new Promise<void>((resolve) => {
      this.#complete = resolve;
    });
    const began = performance.now();
    for (let index = 0; index < times; index++) {
      await delay(Math.max(0, began + index * everyMs - performance.now()));
      this.#sentAt[index] = performance.now();
      send(index + 1);
    }
    const patience = new AbortController();
    await Promise.race([all, delay(patienceMs, undefined, { signal: patience.signal }).catch(() => undefined)]);
    patience.abort();
    if (this.#left > 0) throw new BenchFailure(`${this.#left} of ${times} messages have not become rows`);
    const ascending = this.#took.sort();
    return { p50: percentile(ascending, 0.5), p99: percentile(ascending, 0.99) };
  }

  /** One has come. */
  heard(number: number): void {
    this.#took[number - 1] = performance.now() - this.#sentAt[number - 1]!;
    this.#left -= 1;
    if (this.#left === 0) this.#complete();
  }
}

/** Of ascending milliseconds, in µs. */
function percentile(ascending: Float64Array, share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))]! * 1000;
}
