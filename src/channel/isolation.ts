/**
 * Lets one channel handle a message while no other handler of the process runs, so that what ends the process then can
 * only have been that message.
 *
 * A message that was being handled when a process ended may have done it, or may merely have run beside the one that did.
 * So the last start that it may have is alone, and only after that one it becomes a dead letter.
 */

/** What isolation asks of the process. */
export interface IsolationHost<Channel> {
  /** Calls back after a while. Returns what ends that. */
  after(delayMs: number, callback: () => void): () => void;
  /** {@link Isolation.holder} has changed: handlers of all others may not begin, or may again. */
  changed(): void;
  /** Whether no handler of another channel runs. */
  othersIdle(holder: Channel): boolean;
}

export class Isolation<Channel> {
  readonly #waiting: { readonly channel: Channel; readonly begin: () => void }[] = [];
  #begin: (() => void) | undefined;
  #cancel: () => void = () => undefined;
  /** The channel that has the handlers for itself, or waits for those of others to end. */
  holder: Channel | undefined;

  readonly #limitMs: number;
  readonly #host: IsolationHost<Channel>;

  /** `limitMs` bounds each turn: a handler may wait for a message that another channel has to handle. */
  constructor(limitMs: number, host: IsolationHost<Channel>) {
    this.#limitMs = limitMs;
    this.#host = host;
  }

  /** Whether the channel's handlers may not begin, because another one is to be alone. */
  holdsUp(channel: Channel): boolean {
    return this.holder !== undefined && this.holder !== channel;
  }

  /** `begin` is called when the channel is alone, or its turn is over. It must {@link leave} when its message is done. */
  enter(channel: Channel, begin: () => void): void {
    if (this.holder === channel) begin();
    else if (this.holder !== undefined) this.#waiting.push({ channel, begin });
    else this.#take(channel, begin);
  }

  /** A handler has ended: perhaps the holder is alone now. */
  handlerEnded(): void {
    const begin = this.#begin;
    if (begin === undefined || this.holder === undefined || !this.#host.othersIdle(this.holder)) return;
    this.#begin = undefined;
    begin();
  }

  /** The channel's message is done, or the channel is closed. Does nothing for one that is neither alone nor waits. */
  leave(channel: Channel): void {
    if (this.holder !== channel) {
      const index = this.#waiting.findIndex((one) => one.channel === channel);
      if (index >= 0) this.#waiting.splice(index, 1)[0]?.begin();
      return;
    }
    this.#cancel();
    const begin = this.#begin;
    this.#begin = undefined;
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.holder = undefined;
      this.#host.changed();
    } else this.#take(next.channel, next.begin);
    begin?.();
  }

  #take(channel: Channel, begin: () => void): void {
    this.holder = channel;
    this.#begin = begin;
    this.#cancel = this.#host.after(this.#limitMs, () => this.leave(channel));
    this.#host.changed();
    this.handlerEnded();
  }
}
