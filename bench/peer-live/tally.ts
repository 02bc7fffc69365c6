import { systemMs } from "../clock.js";

/** What has arrived in a run. */
export interface Arrived {
  readonly messages: number;
  readonly bytes: number;
  /** When the last expected message came, on the system's clock; undefined if it did not. */
  readonly completeMs: number | undefined;
}

/** Counts messages as they arrive. One way is measured at a time, so that one tally serves all. */
export class Tally {
  #messages = 0;
  #bytes = 0;
  /** Before the first run anything may come. */
  #expected = Number.POSITIVE_INFINITY;
  #completeMs: number | undefined;
  #tell: (() => void) | undefined;

  /** Counts one message. */
  count(payloadBytes: number): void {
    this.#messages += 1;
    this.#bytes += payloadBytes;
    if (this.#messages === this.#expected) {
      this.#completeMs = systemMs();
      this.#tell?.();
    }
  }

  /** Begins a run. @throws Error if more messages than expected came in the last one */
  expect(messages: number): void {
    if (this.#messages > this.#expected) {
      throw new Error(`${this.#messages} messages have arrived where ${this.#expected} were sent`);
    }
    this.#messages = 0;
    this.#bytes = 0;
    this.#expected = messages;
    this.#completeMs = undefined;
  }

  /** Resolves when all have arrived, or with what there is after `timeoutMs`. */
  async arrived(timeoutMs: number): Promise<Arrived> {
    if (this.#completeMs === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#tell = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#tell = undefined;
    }
    return { messages: this.#messages, bytes: this.#bytes, completeMs: this.#completeMs };
  }
}
