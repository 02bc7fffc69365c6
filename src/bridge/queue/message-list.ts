/**
 * The messages of a queue that are neither committed nor dead-lettered, in order of arrival, and which of those at the front are to
 * be tried together.
 */
import { Fifo } from "../../runtime/index.js";
import { type InboundMessage, memoryOf } from "../message.js";
import type { Admission, QueueMemory } from "./memory.js";
import type { QueueContext } from "./steps.js";

/** Messages at the front of the queue that are tried together. */
export interface Part {
  readonly count: number;
  /** How often the function may have been started for each of them. */
  readonly attempts: number;
  /** How often the session was lost while this one message was alone. */
  readonly losses: number;
  /** Each of them is to be tried alone. */
  readonly oneByOne: boolean;
}

export class MessageList {
  readonly #messages = new Fifo<InboundMessage>();
  /** The last one is the front of the queue; behind the first one are messages that were not tried yet. */
  readonly #parts: Part[] = [];
  /** So many at the front may still be taken; undefined: all. */
  #open: number | undefined;

  readonly #context: QueueContext;
  readonly #memory: QueueMemory;

  /** @param memory of the queue */
  constructor(context: QueueContext, memory: QueueMemory) {
    this.#context = context;
    this.#memory = memory;
  }

  get length(): number {
    return this.#messages.length;
  }

  /** Those that may be taken, or were and are not done. */
  get openLength(): number {
    return this.#open ?? this.#messages.length;
  }

  get oldest(): InboundMessage | undefined {
    return this.#messages.at(0);
  }

  at(index: number): InboundMessage | undefined {
    return this.#messages.at(index);
  }

  /** Those that are neither committed nor dead-lettered, in order. */
  *[Symbol.iterator](): Generator<InboundMessage> {
    for (let index = 0; index < this.#messages.length; index++) yield this.#messages.at(index)!;
  }

  /** False: there is no room, and the message is counted as discarded. */
  offer(message: InboundMessage, admission: Admission): boolean {
    if (!this.#memory.take(message, admission)) {
      this.#context.discards.add(message.subject);
      return false;
    }
    this.#messages.push(message);
    return true;
  }

  /** What is offered from now on is kept, and not taken. */
  hold(): void {
    this.#open ??= this.#messages.length;
  }

  /** What is to be tried next, `most` messages at the most. They stay in the queue. */
  take(most: number): { part: Part; messages: readonly InboundMessage[] } {
    const { maxBatchBytes } = this.#context.settings;
    const part = this.#parts.pop() ?? { count: this.openLength, attempts: 0, losses: 0, oneByOne: false };
    const limit = part.oneByOne ? 1 : Math.min(part.count, most);
    const messages: InboundMessage[] = [];
    for (let bytes = 0; messages.length < limit; ) {
      const message = this.#messages.at(messages.length)!;
      bytes += memoryOf(message);
      if (bytes > maxBatchBytes && messages.length > 0) break;
      messages.push(message);
    }
    const rest = part.count - messages.length;
    // Messages that were not tried yet need no part: they are simply what is behind the parts.
    if (rest > 0 && part.attempts > 0) this.#parts.push({ ...part, count: rest });
    return { part: { ...part, count: messages.length }, messages };
  }

  /** What was taken is to be tried again. */
  again(part: Part): void {
    this.#parts.push(part);
  }

  /** What was taken is to be tried again in halves, the left one first. */
  halve(part: Part): void {
    const left = part.count >> 1;
    this.#parts.push({ ...part, count: part.count - left }, { ...part, count: left });
  }

  /** Takes `count` messages from the front, and all that were tried, to a queue of their own. */
  split(count: number): MessageList {
    const front = new MessageList(this.#context, this.#memory);
    front.#parts.push(...this.#parts.splice(0));
    for (let left = front.#parts.reduce((sum, part) => sum + part.count, count); left > 0; left -= 1)
      front.#messages.push(this.#messages.shift()!);
    return front;
  }

  /** Forgets what became of those that were tried: they count as new. */
  forgetTries(): void {
    this.#parts.length = 0;
  }

  /** From `index` on, as many as fit; one at least, if there is one. */
  piece(index: number, mostBytes: number): readonly InboundMessage[] {
    const piece: InboundMessage[] = [];
    for (let bytes = 0, at = index; at < this.#messages.length; at += 1) {
      const message = this.#messages.at(at)!;
      bytes += memoryOf(message);
      if (bytes > mostBytes && piece.length > 0) break;
      piece.push(message);
    }
    return piece;
  }

  /** The messages at the front are done. */
  finish(count: number): void {
    for (let index = 0; index < count; index++) this.#memory.give(this.#messages.shift()!);
    if (this.#open !== undefined) this.#open -= count;
  }

  /** Forgets all messages and gives their memory back. */
  clear(): void {
    this.finish(this.#messages.length);
    this.#parts.length = 0;
  }
}
