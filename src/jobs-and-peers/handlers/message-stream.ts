import { retryLater } from "./handler-result.js";
import type { Message } from "./message.js";

interface UnreadMessage {
  readonly message: Message;
  /** Ends its handler: without an argument, or with {@link retryLater} if the loop ends before the message is completed. */
  readonly resolve: (result?: typeof retryLater) => void;
}

/**
 * Async iterator over messages. Requesting the next message completes the current one. A message that was not completed
 * when the loop ended is delivered again at the next start.
 */
export class MessageStream implements AsyncIterableIterator<Message> {
  readonly #waiting: UnreadMessage[] = [];
  #current: UnreadMessage | undefined;
  /** Pending calls of {@link next}. */
  readonly #pendingNext: ((result: IteratorResult<Message>) => void)[] = [];
  #ended = false;

  readonly #subscribed: () => Promise<void>;

  /** @param subscribed resolves when this stream is the handler of its topic */
  constructor(subscribed: () => Promise<void>) {
    this.#subscribed = subscribed;
  }

  /** Handler of the topic: resolves when the loop requests the following message, or with {@link retryLater}. */
  readonly handle = (message: Message): Promise<unknown> =>
    new Promise<unknown>((resolve) => {
      if (this.#ended) resolve(retryLater);
      else this.#waiting.push({ message, resolve });
      this.#deliver();
    });

  async next(): Promise<IteratorResult<Message>> {
    await this.#subscribed();
    this.#completeCurrent();
    if (this.#ended) return { done: true, value: undefined };
    return await new Promise((resolve) => {
      this.#pendingNext.push(resolve);
      this.#deliver();
    });
  }

  async return(): Promise<IteratorResult<Message>> {
    this.close();
    this.#current?.resolve(retryLater);
    this.#current = undefined;
    return { done: true, value: undefined };
  }

  /** Ends the loop, because the peer stops or another handler replaced this one. */
  close(): void {
    this.#ended = true;
    for (const resolve of this.#pendingNext.splice(0)) resolve({ done: true, value: undefined });
    for (const { resolve } of this.#waiting.splice(0)) resolve(retryLater);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #completeCurrent(): void {
    this.#current?.resolve();
    this.#current = undefined;
  }

  #deliver(): void {
    if (this.#pendingNext.length === 0) return;
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#current = next;
    this.#pendingNext.shift()?.({ done: false, value: next.message });
    // A further call of `next` is already pending, so this message is complete.
    if (this.#pendingNext.length > 0) this.#completeCurrent();
  }
}
