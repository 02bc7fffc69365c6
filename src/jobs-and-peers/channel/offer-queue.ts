import type { OutgoingMessage } from "./messages.js";

/** A run of messages that were offered at the same time after the same numbered message. */
interface Offer {
  last: number;
  /** Time of the offer. */
  readonly at: number;
  /** Argument `after` of {@link OfferQueue.push}. */
  after: number;
  next: Offer | undefined;
}

/** Number of consumed items at the head after which the array is compacted. */
const compactAfter = 1024;

/** Limits of one batch or insert. */
interface BatchLimits {
  readonly maxMessages: number;
  /** Maximum payload bytes. A single message always fits. */
  readonly maxBytes: number;
}

/** Space that the listener currently offers for messages over its connection. */
interface BatchWindow {
  /** Largest uncompressed payload. */
  readonly maxMessageBytes: number;
  /** Payload bytes that may still be written; Infinity if unlimited. */
  readonly credit: number;
  /** True if nothing is in flight, so that one message may be written without credit. */
  readonly isEmpty: boolean;
}

/** Messages of a batch, and the sum of their payload bytes. */
interface Batch<Message> {
  readonly messages: Message[];
  readonly bytes: number;
}

/**
 * Returns true if the message exceeds the listener's limit for its connection. The limit may have been lowered after
 * the offer.
 */
export function isTooLong({ payload, encoding }: OutgoingMessage, maxMessageBytes: number): boolean {
  return (encoding === undefined ? payload.length : encoding.uncompressedBytes) > maxMessageBytes;
}

/**
 * FIFO queue of offered messages with contiguous numbers. A message does not store its number, and a run of messages
 * offered at the same time shares one {@link Offer}, because a queue may hold very many messages.
 */
export class OfferQueue<Message extends OutgoingMessage> {
  /** Payload bytes of all messages. */
  bytes = 0;
  /** Number of the first message. In an empty queue, the number of the next message. */
  first: number;
  /** Number of the last message; `first - 1` in an empty queue. */
  last: number;
  /** First run of messages; undefined in an empty queue. */
  oldest: Offer | undefined;
  #messages: Message[] = [];
  #head = 0;
  #newest: Offer | undefined;

  /** @param last number before that of the first message */
  constructor(last: number) {
    this.first = last + 1;
    this.last = last;
  }

  get length(): number {
    return this.last - this.first + 1;
  }

  /** Message with this number; undefined if the queue does not contain it. */
  at(number: number): Message | undefined {
    return number < this.first || number > this.last ? undefined : this.#messages[this.#head + number - this.first];
  }

  /**
   * Messages between two numbers that fit into one batch. With a `window`, the batch has one topic and the listener's
   * limits apply too.
   */
  batch(from: number, through: number, { maxMessages, maxBytes }: BatchLimits, window?: BatchWindow): Batch<Message> {
    const messages = this.#messages;
    const begin = this.#head + from - this.first;
    const end = begin + Math.min(through, this.last, from + maxMessages - 1) - from + 1;
    let bytes = 0;
    let at = begin;
    for (; at < end; at++) {
      const message = messages[at] as Message;
      const size = message.payload.length;
      if (bytes > 0 && bytes + size > maxBytes) break;
      if (window !== undefined) {
        const { maxMessageBytes, credit, isEmpty } = window;
        if (message.topicId !== (messages[begin] as Message).topicId || isTooLong(message, maxMessageBytes)) break;
        if (bytes + size > credit && !(isEmpty && bytes === 0)) break;
      }
      bytes += size;
    }
    return { messages: messages.slice(begin, at), bytes };
  }

  *[Symbol.iterator](): Iterator<Message> {
    for (let number = this.first; number <= this.last; number++) yield this.at(number) as Message;
  }

  /**
   * Appends a message. @param after number of the message in the other queue that precedes it, for {@link lastAfter}
   */
  push(message: Message, at: number, after = 0): void {
    this.#messages.push(message);
    this.bytes += message.payload.length;
    this.last += 1;
    const newest = this.#newest;
    if (newest !== undefined && newest.at === at && newest.after === after) newest.last = this.last;
    else {
      const offer = { last: this.last, at, after, next: undefined };
      if (newest === undefined) this.oldest = offer;
      else newest.next = offer;
      this.#newest = offer;
    }
  }

  /** Removes the messages up to number `through`, which must be in the queue. */
  drop(through: number): void {
    for (let number = this.first; number <= through; number++) {
      this.bytes -= (this.#messages[this.#head] as Message).payload.length;
      this.#messages[this.#head++] = undefined as unknown as Message;
    }
    this.first = through + 1;
    while (this.oldest !== undefined && this.oldest.last <= through) this.oldest = this.oldest.next;
    if (this.oldest === undefined) this.#newest = undefined;
    if (this.#head === this.#messages.length) {
      this.#messages = [];
      this.#head = 0;
    } else if (this.#head >= compactAfter && this.#head * 2 >= this.#messages.length) {
      this.#messages = this.#messages.slice(this.#head);
      this.#head = 0;
    }
  }

  /**
   * Last number of the leading messages that were pushed with an `after` of at most this value; `first - 1` if none.
   */
  lastAfter(after: number): number {
    let last = this.first - 1;
    for (let offer = this.oldest; offer !== undefined && offer.after <= after; offer = offer.next) last = offer.last;
    return last;
  }

  /** Time at which the message with this number, or the first one after it, was offered; undefined if there is none. */
  offeredAt(number: number): number | undefined {
    let offer = this.oldest;
    while (offer !== undefined && offer.last < number) offer = offer.next;
    return offer?.at;
  }

  /** Last number whose message has waited at least `waitMs`; `first - 1` if none. */
  waitingSince(waitMs: number, now: number): number {
    let last = this.first - 1;
    let offer = this.oldest;
    for (; offer !== undefined && now >= offer.at + waitMs; offer = offer.next) last = offer.last;
    return last;
  }

  /** Renumbers the messages from `first`, and clears their `after`. */
  renumber(first: number): void {
    const by = first - this.first;
    this.first += by;
    this.last += by;
    for (let offer = this.oldest; offer !== undefined; offer = offer.next) {
      offer.last += by;
      offer.after = 0;
    }
  }
}
