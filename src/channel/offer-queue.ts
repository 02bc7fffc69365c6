import type { OutgoingMessage } from "./messages.js";

/** Messages in a row that were offered at the same moment, behind the same numbered message. */
interface Offer {
  last: number;
  /** When they were offered. */
  readonly at: number;
  /** What {@link OfferQueue.push} was told. */
  after: number;
  next: Offer | undefined;
}

/** Items taken from the front before the array is cut. */
const compactAfter = 1024;

/** Messages that go together into one batch or one insert. */
interface BatchLimits {
  readonly maxMessages: number;
  /** Payload bytes. One message always fits. */
  readonly maxBytes: number;
}

/** Room that the listener has for messages over its connection now. */
interface BatchWindow {
  /** The greatest payload, uncompressed. */
  readonly maxMessageBytes: number;
  /** Payload bytes that may still be written; Infinity: any. */
  readonly credit: number;
  /** Whether one message may be written without credit, because nothing is in flight. */
  readonly isEmpty: boolean;
}

/** Messages of a batch, and their payload bytes. */
interface Batch<Message> {
  readonly messages: Message[];
  readonly bytes: number;
}

/** Whether a message is longer than the listener takes over its connection: its limit is lower than when it was offered. */
export function isTooLong({ payload, encoding }: OutgoingMessage, maxMessageBytes: number): boolean {
  return (encoding === undefined ? payload.length : encoding.uncompressedBytes) > maxMessageBytes;
}

/**
 * Messages in the order of their offers. They are numbered without a gap, so that none needs to know its number, and those
 * that were offered at the same moment share one note of it: there may be very many messages.
 */
export class OfferQueue<Message extends OutgoingMessage> {
  /** Payload bytes of all messages. */
  bytes = 0;
  /** The number of the first message, or of the next one to come when there is none. */
  first: number;
  /** The number of the last message; `first - 1` when there is none. */
  last: number;
  /** The first messages; undefined when there are none. */
  oldest: Offer | undefined;
  #messages: Message[] = [];
  #head = 0;
  #newest: Offer | undefined;

  /** @param last the number behind which the first message comes */
  constructor(last: number) {
    this.first = last + 1;
    this.last = last;
  }

  get length(): number {
    return this.last - this.first + 1;
  }

  /** The message with this number; undefined when it is not, or no more, in the queue. */
  at(number: number): Message | undefined {
    return number < this.first || number > this.last ? undefined : this.#messages[this.#head + number - this.first];
  }

  /**
   * The messages from one number to another that go together: within the limits, and with a window those of the first one's
   * topic that the listener takes.
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
        if (message.topicKey !== (messages[begin] as Message).topicKey || isTooLong(message, maxMessageBytes)) break;
        if (bytes + size > credit && !(isEmpty && bytes === 0)) break;
      }
      bytes += size;
    }
    return { messages: messages.slice(begin, at), bytes };
  }

  *[Symbol.iterator](): Iterator<Message> {
    for (let number = this.first; number <= this.last; number++) yield this.at(number) as Message;
  }

  /** Appends a message. @param after for {@link lastAfter} */
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

  /** Removes the messages up to a number, which are no more than there are. */
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

  /** The last number of those in front that were pushed with `after` or less; `first - 1` when there is none. */
  lastAfter(after: number): number {
    let last = this.first - 1;
    for (let offer = this.oldest; offer !== undefined && offer.after <= after; offer = offer.next) last = offer.last;
    return last;
  }

  /** When the message with this number, or the first one behind it, was offered; undefined when there is no such message. */
  offeredAt(number: number): number | undefined {
    let offer = this.oldest;
    while (offer !== undefined && offer.last < number) offer = offer.next;
    return offer?.at;
  }

  /** The last number whose message has waited so long; `first - 1` when there is none. */
  waitingSince(waitMs: number, now: number): number {
    let last = this.first - 1;
    let offer = this.oldest;
    for (; offer !== undefined && now >= offer.at + waitMs; offer = offer.next) last = offer.last;
    return last;
  }

  /** Gives the messages new numbers from `first` on, and nothing comes before them any more. */
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
