/**
 * How much may be sent and not confirmed yet.
 */

/** Lets work in while there is room, in its order, and out in any order. */
export class SendWindow {
  #messages = 0;
  #bytes = 0;
  #wake: (() => void) | undefined;

  readonly #limits: { readonly messages: number; readonly bytes: number };

  /** One message is always let in, however large. */
  constructor(limits: { readonly messages: number; readonly bytes: number }) {
    this.#limits = limits;
  }

  /** How many are in it. */
  get inFlight(): number {
    return this.#messages;
  }

  /** Resolves when there is room for a message of so many bytes; it is in then. One caller at a time. */
  async enter(bytes: number): Promise<void> {
    while (
      this.#messages > 0 &&
      (this.#messages >= this.#limits.messages || this.#bytes + bytes > this.#limits.bytes)
    ) {
      await this.#change();
    }
    this.#messages += 1;
    this.#bytes += bytes;
  }

  /** A message of so many bytes is confirmed, or failed. */
  leave(bytes: number): void {
    this.#messages -= 1;
    this.#bytes -= bytes;
    this.#wake?.();
  }

  /** Resolves when nothing is in it. */
  async empty(): Promise<void> {
    while (this.#messages > 0) await this.#change();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
