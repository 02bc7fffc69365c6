/**
 * A time limit that does not count the time in which this process does not run: it was stopped, or its machine was. What
 * arrived meanwhile is read before the time is over.
 */
import { performance } from "node:perf_hooks";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

const { patienceSliceMs: sliceMs } = bridgeConstants;

/** See above. Keeps the process alive, as a timer does. */
export class Patience {
  readonly #onOver: () => void;
  #leftMs: number;
  #timer: NodeJS.Timeout | undefined;
  #isEnded = false;

  /** @param onOver called once, unless it is ended before */
  constructor(limitMs: number, onOver: () => void) {
    this.#leftMs = limitMs;
    this.#onOver = onOver;
    this.#wait();
  }

  /** It is needed no more. */
  end(): void {
    this.#isEnded = true;
    clearTimeout(this.#timer);
  }

  #wait(): void {
    const waitMs = Math.min(this.#leftMs, sliceMs);
    const since = performance.now();
    this.#timer = setTimeout(() => {
      this.#leftMs -= Math.min(performance.now() - since, 2 * sliceMs);
      if (this.#leftMs > 0) this.#wait();
      else setImmediate(() => this.#over());
    }, waitMs);
  }

  #over(): void {
    // What was there to read has been read by now.
    if (!this.#isEnded) this.#onOver();
  }
}
