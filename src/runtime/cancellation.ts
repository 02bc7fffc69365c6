/** Cancellation with a lazily created `AbortSignal`: most handlers never use theirs. */
export class Cancellation {
  #controller: AbortController | undefined = undefined;
  #reason: unknown = undefined;

  /** True if a caller has read {@link signal}, and it is not aborted. */
  get isAwaited(): boolean {
    return this.#controller !== undefined && !this.#controller.signal.aborted;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    this.#reason ??= reason;
    this.#controller?.abort(reason);
  }
}
