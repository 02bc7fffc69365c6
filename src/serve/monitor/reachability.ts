/**
 * Whether a server is reachable: whether it has answered lately.
 */
import type { CheckState } from "./health.js";

/** See above. A server that has not answered yet has its time from the start. */
export class Reachability {
  readonly #withinMs: number;
  readonly #now: () => number;
  readonly #startedAt: number;
  /** When the present series of answers, each within the time of the one before, began. */
  #since: number | undefined;
  #lastAt: number | undefined;

  /**
   * @param withinMs how long ago the last answer may be
   * @param now milliseconds since 1970, of a clock that never goes back
   */
  constructor(withinMs: number, now: () => number = () => performance.timeOrigin + performance.now()) {
    this.#withinMs = withinMs;
    this.#now = now;
    this.#startedAt = now();
  }

  /** The server has answered: whatever it said. */
  answered(): void {
    const now = this.#now();
    if (this.#lastAt === undefined || now - this.#lastAt > this.#withinMs) this.#since = now;
    this.#lastAt = now;
  }

  /** Failing, it is so since the last answer. */
  get state(): CheckState {
    const lastAt = this.#lastAt ?? this.#startedAt;
    const silentMs = this.#now() - lastAt;
    if (silentMs <= this.#withinMs) return { ok: true, since: new Date(this.#since ?? this.#startedAt) };
    const seconds = Math.floor(silentMs / 1_000);
    const detail = this.#lastAt === undefined ? `no answer yet, for ${seconds} s` : `no answer for ${seconds} s`;
    return { ok: false, since: new Date(lastAt), detail };
  }
}
