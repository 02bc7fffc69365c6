/** Cancellation with lazily created `AbortSignal`s: most handlers never use theirs. */
export class Cancellation {
  #controller: AbortController | undefined = undefined;
  #reason: unknown = undefined;
  #stop: AbortController | undefined = undefined;
  #stopReason: unknown = undefined;

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

  /** Signal that is aborted when a stop begins, which will abort {@link signal} at its deadline. */
  get stopping(): AbortSignal {
    if (this.#stop === undefined) {
      this.#stop = new AbortController();
      if (this.#stopReason !== undefined) this.#stop.abort(this.#stopReason);
    }
    return this.#stop.signal;
  }

  /** Aborts {@link stopping}. */
  stop(reason: unknown): void {
    this.#stopReason ??= reason;
    this.#stop?.abort(reason);
  }
}
