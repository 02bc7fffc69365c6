/**
 * Runs one channel's message while no other handler of the process runs. If the process then dies, that message is the
 * cause.
 *
 * A message that was in its handler when a process died may be the cause, or may have run next to the cause. Its last
 * allowed start is therefore quarantined, and the message becomes a dead letter only after that start.
 */

/** Functions of the process that {@link Quarantine} needs. */
export interface QuarantineHost<Channel> {
  /** Calls `callback` after a delay. Returns a function that cancels the call. */
  after(delayMs: number, callback: () => void): () => void;
  /**
   * Called when {@link Quarantine.holder} changes: handlers of other channels must not start any more, or may start
   * again.
   */
  changed(): void;
  /** True if no handler runs but that of the holder's message. */
  othersIdle(holder: Channel): boolean;
}

export class Quarantine<Channel> {
  readonly #waiting: { readonly channel: Channel; readonly start: (isAlone: boolean) => void }[] = [];
  #start: ((isAlone: boolean) => void) | undefined;
  #cancel: () => void = () => undefined;
  /** Channel that has exclusive use of the handlers, or waits for running handlers of other channels to end. */
  holder: Channel | undefined;

  readonly #limitMs: number;
  readonly #host: QuarantineHost<Channel>;

  /**
   * @param limitMs maximum duration of one quarantine. Without a limit, two channels could deadlock: the quarantined
   * handler may wait for a message that another channel has to handle
   */
  constructor(limitMs: number, host: QuarantineHost<Channel>) {
    this.#limitMs = limitMs;
    this.#host = host;
  }

  /** True if the channel must not start handlers, because another channel is quarantined. */
  blocks(channel: Channel): boolean {
    return this.holder !== undefined && this.holder !== channel;
  }

  /**
   * Requests quarantine. Calls `start` when the channel is quarantined, or with false when its time limit has passed. The channel must
   * call {@link leave} when its message is done.
   */
  enter(channel: Channel, start: (isAlone: boolean) => void): void {
    if (this.holder === channel) start(true);
    else if (this.holder !== undefined) this.#waiting.push({ channel, start });
    else this.#take(channel, start);
  }

  /** A handler has ended, so the holder may be quarantined now. */
  handlerEnded(): void {
    const start = this.#start;
    if (start === undefined || this.holder === undefined || !this.#host.othersIdle(this.holder)) return;
    this.#start = undefined;
    start(true);
  }

  /**
   * Ends the channel's quarantine or its request, when its message is done or the channel is closed. Otherwise a no-op.
   */
  leave(channel: Channel): void {
    if (this.holder !== channel) {
      const index = this.#waiting.findIndex((entry) => entry.channel === channel);
      if (index >= 0) this.#waiting.splice(index, 1)[0]?.start(false);
      return;
    }
    this.#cancel();
    const start = this.#start;
    this.#start = undefined;
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.holder = undefined;
      this.#host.changed();
    } else this.#take(next.channel, next.start);
    start?.(false);
  }

  #take(channel: Channel, start: (isAlone: boolean) => void): void {
    this.holder = channel;
    this.#start = start;
    this.#cancel = this.#host.after(this.#limitMs, () => this.leave(channel));
    this.#host.changed();
    this.handlerEnded();
  }
}
