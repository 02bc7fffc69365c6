import type { Message } from "./message.js";

interface Waiting {
  readonly message: Message;
  readonly done: () => void;
}

/**
 * Messages as an async iterator instead of a handler: asking for the next one finishes the one before. A message that was
 * not finished when the loop ended comes again at the next start.
 */
export class MessageStream implements AsyncIterableIterator<Message> {
  private readonly waiting: Waiting[] = [];
  private current: Waiting | undefined;
  private next_: ((result: IteratorResult<Message>) => void) | undefined;
  private ended = false;

  /** `start` begins the receiving, on the first `next`; `end` is called when the loop is left. */
  constructor(
    private readonly start: () => Promise<void>,
    private readonly end: () => void,
  ) {}

  private started: Promise<void> | undefined;

  /** The handler: done when the loop has asked for the message after this one. */
  readonly handle = (message: Message): Promise<void> =>
    new Promise((resolve) => {
      this.waiting.push({ message, done: resolve });
      this.pass();
    });

  async next(): Promise<IteratorResult<Message>> {
    this.started ??= this.start();
    await this.started;
    this.current?.done();
    this.current = undefined;
    if (this.ended) return { done: true, value: undefined };
    return await new Promise((resolve) => {
      this.next_ = resolve;
      this.pass();
    });
  }

  async return(): Promise<IteratorResult<Message>> {
    this.close();
    this.end();
    return { done: true, value: undefined };
  }

  /** The peer stops: the loop ends. */
  close(): void {
    this.ended = true;
    this.next_?.({ done: true, value: undefined });
    this.next_ = undefined;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private pass(): void {
    if (this.next_ === undefined) return;
    const next = this.waiting.shift();
    if (next === undefined) return;
    this.current = next;
    const resolve = this.next_;
    this.next_ = undefined;
    resolve({ done: false, value: next.message });
  }
}
