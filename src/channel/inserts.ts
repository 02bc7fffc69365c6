import type { SenderLimits } from "./sender-types.js";

type Limits = Pick<SenderLimits, "ackTimeoutMs" | "storeRetryMinMs" | "storeRetryMaxMs">;

/** The inserts of a channel, one at a time: which is under way, when the next may begin, and what was announced of them. */
export class Inserts {
  /** Last number of the insert under way; 0 when there is none. */
  underWay = 0;
  /** No insert begins before, in ms: one has failed. */
  notBefore = Number.NEGATIVE_INFINITY;
  #retryDelayMs = 0;
  #announcedNumber = 0;
  #announcedAt = Number.NEGATIVE_INFINITY;

  readonly #limits: Limits;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** The insert under way is done. @returns its last number; 0 when there is none */
  succeeded(): number {
    const number = this.underWay;
    this.underWay = 0;
    this.#retryDelayMs = 0;
    return number;
  }

  /** The insert under way has failed, or nobody knows. */
  failed(now: number): void {
    const { storeRetryMinMs, storeRetryMaxMs } = this.#limits;
    this.underWay = 0;
    this.#retryDelayMs = Math.min(storeRetryMaxMs, Math.max(storeRetryMinMs, this.#retryDelayMs * 2));
    this.notBefore = now + this.#retryDelayMs;
  }

  /** Numbers begin anew; the answer of an insert under way counts no more. */
  reset(): void {
    this.underWay = 0;
    this.#announcedNumber = 0;
    this.notBefore = Number.NEGATIVE_INFINITY;
  }

  /** One announcement until the listener has taken what was announced, or may have missed it. */
  isToAnnounce(stored: number, acked: number, now: number): boolean {
    if (acked < this.#announcedNumber && now < this.#announcedAt + this.#limits.ackTimeoutMs) return false;
    this.#announcedNumber = stored;
    this.#announcedAt = now;
    return true;
  }
}
