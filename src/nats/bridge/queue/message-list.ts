/**
 * The messages of a queue that are neither committed nor dead-lettered, in order of arrival, divided into parts that
 * run together.
 */
import { Fifo } from "../../../foundation/runtime/index.js";
import { type InboundMessage, memoryOf } from "../message.js";
import type { Admission, QueueMemory } from "./memory.js";
import type { QueueContext } from "./steps.js";

/** Messages at the front of the queue that run together. */
export interface Part {
  readonly count: number;
  /** Number of times the function may have started for each of the messages. */
  readonly attempts: number;
  /** Number of sessions that were lost while the message ran alone; 0 for a part of several messages. */
  readonly losses: number;
  /** True if each message must run alone. */
  readonly isOneByOne: boolean;
}

export class MessageList {
  readonly #messages = new Fifo<InboundMessage>();
  /** Stack of parts: the last one is at the front of the queue. Messages behind the first part were never tried. */
  readonly #parts: Part[] = [];
  /** Number of messages at the front that may run; undefined if there is no limit. */
  #open: number | undefined;

  readonly #context: QueueContext;
  readonly #memory: QueueMemory;

  /** @param memory account of the queue in the budget */
  constructor(context: QueueContext, memory: QueueMemory) {
    this.#context = context;
    this.#memory = memory;
  }

  get length(): number {
    return this.#messages.length;
  }

  /** Number of messages that may run or are running. */
  get openLength(): number {
    return this.#open ?? this.#messages.length;
  }

  at(index: number): InboundMessage | undefined {
    return this.#messages.at(index);
  }

  /** All messages in order. */
  [Symbol.iterator](): Iterator<InboundMessage> {
    return this.#messages[Symbol.iterator]();
  }

  /** Appends a message. Returns false if there is no room; the message is then counted as discarded. */
  offer(message: InboundMessage, admission: Admission): boolean {
    if (!this.#context.budget.reserve(this.#memory, message, admission)) {
      this.#context.discards.add(message.subject);
      return false;
    }
    this.#messages.push(message);
    return true;
  }

  /** Keeps messages that are offered from now on without running them. */
  hold(): void {
    this.#open ??= this.#messages.length;
  }

  /** Next messages to run together, at most `most`. They stay in the list until {@link finish}. */
  take(most: number): { part: Part; messages: readonly InboundMessage[] } {
    const { maxBatchBytes } = this.#context.settings;
    const part = this.#parts.pop() ?? { count: this.openLength, attempts: 0, losses: 0, isOneByOne: false };
    const limit = part.isOneByOne ? 1 : Math.min(part.count, most);
    const messages: InboundMessage[] = [];
    for (let bytes = 0; messages.length < limit; ) {
      const message = this.#messages.at(messages.length)!;
      bytes += memoryOf(message);
      if (bytes > maxBatchBytes && messages.length > 0) break;
      messages.push(message);
    }
    const rest = part.count - messages.length;
    // Messages that were never tried need no part: they follow the parts.
    if (rest > 0 && part.attempts > 0) this.#parts.push({ ...part, count: rest });
    return { part: { ...part, count: messages.length }, messages };
  }

  /** Puts messages from {@link take} back to the front, in parts that run one after the other. */
  runAgain(parts: readonly Part[]): void {
    this.#parts.push(...parts.toReversed());
  }

  /** Moves all messages that were tried, and `count` more from the front, to a new list. */
  split(count: number): MessageList {
    const front = new MessageList(this.#context, this.#memory);
    front.#parts.push(...this.#parts.splice(0));
    for (let left = front.#parts.reduce((sum, part) => sum + part.count, count); left > 0; left -= 1)
      front.#messages.push(this.#messages.shift()!);
    return front;
  }

  /** Resets attempts and parts: all messages count as never tried. */
  resetTries(): void {
    this.#parts.length = 0;
  }

  /** Messages from `index` on, up to `mostBytes` of memory, but at least one if there is one. */
  chunk(index: number, mostBytes: number): readonly InboundMessage[] {
    const piece: InboundMessage[] = [];
    for (let bytes = 0, at = index; at < this.#messages.length; at += 1) {
      const message = this.#messages.at(at)!;
      bytes += memoryOf(message);
      if (bytes > mostBytes && piece.length > 0) break;
      piece.push(message);
    }
    return piece;
  }

  /** Removes messages at the front, which are done. */
  finish(count: number): void {
    const { budget } = this.#context;
    for (let index = 0; index < count; index++) budget.release(this.#memory, this.#messages.shift()!);
    if (this.#open !== undefined) this.#open -= count;
  }

  /** Removes all messages and releases their memory. */
  clear(): void {
    this.finish(this.#messages.length);
    this.#parts.length = 0;
  }
}
