import { postponed } from "./handler-call.js";
import type { Message } from "./message.js";

interface Waiting {
  readonly message: Message;
  readonly done: () => void;
  /** The loop has ended before the message was finished. */
  readonly giveBack: () => void;
}

/**
 * Messages as an async iterator instead of a handler: asking for the next one finishes the one before. A message that was
 * not finished when the loop ended comes again at the next start.
 */
export class MessageStream implements AsyncIterableIterator<Message> {
  readonly #waiting: Waiting[] = [];
  #current: Waiting | undefined;
  /** Steps that were asked for and wait for a message. */
  readonly #asked: ((result: IteratorResult<Message>) => void)[] = [];
  #ended = false;

  readonly #subscribed: () => Promise<void>;

  /** @param subscribed resolves when the topic has this stream as its handler */
  constructor(subscribed: () => Promise<void>) {
    this.#subscribed = subscribed;
  }

  /** The handler: done when the loop has asked for the message after this one. */
  readonly handle = (message: Message): Promise<void> =>
    new Promise((resolve, reject) => {
      const giveBack = (): void => reject(postponed);
      if (this.#ended) giveBack();
      else this.#waiting.push({ message, done: resolve, giveBack });
      this.#pass();
    });

  async next(): Promise<IteratorResult<Message>> {
    await this.#subscribed();
    this.#finishCurrent();
    if (this.#ended) return { done: true, value: undefined };
    return await new Promise((resolve) => {
      this.#asked.push(resolve);
      this.#pass();
    });
  }

  async return(): Promise<IteratorResult<Message>> {
    this.close();
    this.#current?.giveBack();
    this.#current = undefined;
    return { done: true, value: undefined };
  }

  /** The peer stops, or another handler has taken the place of this one: the loop ends. */
  close(): void {
    this.#ended = true;
    for (const resolve of this.#asked.splice(0)) resolve({ done: true, value: undefined });
    for (const { giveBack } of this.#waiting.splice(0)) giveBack();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finishCurrent(): void {
    this.#current?.done();
    this.#current = undefined;
  }

  #pass(): void {
    if (this.#asked.length === 0) return;
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#current = next;
    this.#asked.shift()?.({ done: false, value: next.message });
    // Asked for the one behind it already.
    if (this.#asked.length > 0) this.#finishCurrent();
  }
}
