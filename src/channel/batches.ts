/** How many messages of a sender's queues make the next batch, for the connection or for the store. */
import type { FlightWindow } from "./flight-window.js";
import type { OfferQueue } from "./offer-queue.js";
import type { OutgoingMessage, SenderLimits } from "./sender-types.js";

type BatchLimits = Pick<SenderLimits, "batchMessages" | "batchBytes">;

/** Messages of a queue, the first of them with the number `from`, and their payload bytes. */
export interface Batch {
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
): Batch {
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
): Batch {
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
): Batch {
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
