/** What of a sender's queues goes next, to the connection or to the store. */

import { Fifo } from "../runtime/index.js";
import type { SenderLimits } from "./effects.js";
import type { OutgoingMessage } from "./messages.js";
import type { OfferQueue } from "./offer-queue.js";

/** A batch on the wire that the listener has not acknowledged wholly. */
interface Flight {
  readonly lastNumber: number;
  readonly bytes: number;
}

/** The numbered messages that were written to a connection and not acknowledged, as both ends count them. */
export class Flights {
  /** Payload bytes in flight. */
  bytes = 0;
  readonly #flights = new Fifo<Flight>();

  get isEmpty(): boolean {
    return this.#flights.length === 0;
  }

  clear(): void {
    this.#flights.clear();
    this.bytes = 0;
  }

  /** A batch up to this number was written, or has come. */
  push(lastNumber: number, bytes: number): void {
    this.#flights.push({ lastNumber, bytes });
    this.bytes += bytes;
  }

  /** The listener acknowledges everything up to this number. */
  landed(number: number): void {
    for (let flight = this.#flights.at(0); flight && flight.lastNumber <= number; flight = this.#flights.at(0)) {
      this.bytes -= flight.bytes;
      this.#flights.shift();
    }
  }
}

/** What may be written to a connection: numbered messages as far as credit goes, and none that the listener refuses. */
export class FlightWindow {
  /** Payload bytes that may be in flight. */
  credit = 0;
  readonly flights = new Flights();
  #maxMessageBytes = Number.POSITIVE_INFINITY;

  /** A new connection: nothing is in flight. */
  open(credit: number, maxMessageBytes: number): void {
    this.flights.clear();
    this.credit = credit;
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Whether `size` bytes more may be written behind `batched` ones. One message always may when nothing is in flight. */
  hasCredit(size: number, batched: number): boolean {
    const inFlight = this.flights.bytes + batched;
    return (inFlight === 0 && this.flights.isEmpty) || inFlight + size <= this.credit;
  }

  /** A message that the listener does not take over the connection: its limit is lower than when it was offered. */
  isTooLong({ payload, encoding }: Pick<OutgoingMessage, "payload" | "encoding">): boolean {
    return (encoding === undefined ? payload.length : encoding.uncompressedBytes) > this.#maxMessageBytes;
  }
}

type BatchLimits = Pick<SenderLimits, "batchMessages" | "batchBytes">;

/** Messages of a queue, the first of them with the number `from`, and their payload bytes. */
interface Messages {
  readonly from: number;
  readonly count: number;
  readonly bytes: number;
}

/** Numbered messages of one topic, from one number to another at most, as far as the listener takes them now. */
export function numberedBatch<Message extends OutgoingMessage>(
  queue: OfferQueue<Message>,
  from: number,
  through: number,
  window: FlightWindow,
  { batchMessages, batchBytes }: BatchLimits,
): Messages {
  const topicKey = queue.at(from)?.topicKey;
  const end = Math.min(queue.last, through, from + batchMessages - 1);
  let bytes = 0;
  let number = from;
  for (; number <= end; number++) {
    const message = queue.at(number) as Message;
    const size = message.payload.length;
    if (message.topicKey !== topicKey || window.isTooLong(message) || !window.hasCredit(size, bytes)) break;
    if (bytes > 0 && bytes + size > batchBytes) break;
    bytes += size;
  }
  return { from, count: number - from, bytes };
}

/**
 * At-most-once messages of one topic, from the first on, that come after no later number than `written`. None when the very
 * first is one that the listener does not take.
 */
export function unnumberedBatch<Message extends OutgoingMessage>(
  queue: OfferQueue<Message>,
  written: number,
  window: FlightWindow,
  { batchMessages, batchBytes }: BatchLimits,
): Messages {
  const { first } = queue;
  const topicKey = queue.at(first)?.topicKey;
  const end = Math.min(queue.lastAfter(written), first + batchMessages - 1);
  let bytes = 0;
  let number = first;
  for (; number <= end; number++) {
    const message = queue.at(number) as Message;
    const size = message.payload.length;
    if (message.topicKey !== topicKey || window.isTooLong(message)) break;
    if (bytes > 0 && bytes + size > batchBytes) break;
    bytes += size;
  }
  return { from: first, count: number - first, bytes };
}

/** The first messages up to a number, as many as one insert takes. */
export function insertBatch<Message extends OutgoingMessage>(
  queue: OfferQueue<Message>,
  through: number,
  { insertRows, insertBytes }: Pick<SenderLimits, "insertRows" | "insertBytes">,
): Messages {
  const { first } = queue;
  const end = Math.min(queue.last, through, first + insertRows - 1);
  let bytes = 0;
  let number = first;
  for (; number <= end; number++) {
    const size = (queue.at(number) as Message).payload.length;
    if (bytes > 0 && bytes + size > insertBytes) break;
    bytes += size;
  }
  return { from: first, count: number - first, bytes };
}
