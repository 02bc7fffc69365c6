import { describe, expect, it } from "vitest";
import type { OutgoingMessage } from "../../src/jobs-and-peers/channel/index.js";
import { OfferQueue } from "../../src/jobs-and-peers/channel/offer-queue.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";

const message = (bytes: number, topicId = 1): OutgoingMessage => ({
  delivery: Delivery.AT_LEAST_ONCE,
  topicId,
  payload: new Uint8Array(bytes),
  encoding: undefined,
  headers: undefined,
});

/** Messages of 1, 2, 3, … bytes, offered at these moments. */
function queueOf(moments: readonly number[], last = 0): OfferQueue<OutgoingMessage> {
  const queue = new OfferQueue(last);
  for (const [index, at] of moments.entries()) queue.push(message(index + 1), at);
  return queue;
}

describe("a queue of offers", () => {
  it("numbers messages contiguously after its initial number", () => {
    const queue = queueOf([0, 0, 1], 7);
    expect([queue.first, queue.last, queue.length, queue.bytes]).toEqual([8, 10, 3, 6]);
    expect([7, 8, 10, 11].map((number) => queue.at(number)?.payload.length)).toEqual([undefined, 1, 3, undefined]);
  });

  it("drops messages from the head, and keeps numbering when it is empty", () => {
    const queue = queueOf([0, 0, 1]);
    queue.drop(2);
    expect([queue.first, queue.last, queue.length, queue.bytes]).toEqual([3, 3, 1, 3]);
    queue.drop(3);
    expect([queue.first, queue.last, queue.length, queue.bytes]).toEqual([4, 3, 0, 0]);
    expect(queue.oldest).toBeUndefined();
    queue.push(message(5), 9);
    expect(queue.at(4)?.payload.length).toBe(5);
  });

  it("knows the offer time of each message, also within a run of equal times", () => {
    const queue = queueOf([10, 10, 20, 30, 30]);
    expect([1, 2, 3, 4, 5, 6].map((number) => queue.offeredAt(number))).toEqual([10, 10, 20, 30, 30, undefined]);
    queue.drop(1);
    expect([1, 2].map((number) => queue.offeredAt(number))).toEqual([10, 10]);
    expect([14, 15, 25, 35].map((now) => queue.waitingSince(5, now))).toEqual([1, 2, 3, 5]);
  });

  it("knows the last of the leading messages pushed with at most a given number", () => {
    const queue = new OfferQueue(0);
    for (const after of [0, 0, 2, 2, 3]) queue.push(message(1), 1, after);
    expect([0, 1, 2, 3].map((after) => queue.lastAfter(after))).toEqual([2, 2, 4, 5]);
    expect(queue.oldest?.after).toBe(0);
    queue.drop(3);
    expect(queue.oldest?.after).toBe(2);
  });

  it("renumbers the messages, and clears their predecessors", () => {
    const queue = queueOf([10, 20, 20, 30]);
    queue.push(message(1), 30, 4);
    queue.drop(2);
    queue.renumber(1);
    expect([queue.first, queue.last]).toEqual([1, 3]);
    expect([1, 2, 3].map((number) => queue.offeredAt(number))).toEqual([20, 30, 30]);
    expect(queue.lastAfter(0)).toBe(3);
  });

  it("keeps the order of many thousand messages, and returns slices of it", () => {
    const queue = new OfferQueue<OutgoingMessage & { readonly id: number }>(0);
    for (let id = 1, dropped = 0; id <= 10_000; id++) {
      queue.push({ ...message(1), id }, id);
      if (id % 3 === 0) queue.drop((dropped += 2));
    }
    expect([queue.first, queue.last, queue.bytes]).toEqual([6667, 10_000, 3334]);
    const { messages } = queue.batch(9_000, 10_000, { maxMessages: 3, maxBytes: 100 });
    expect(messages.map(({ id }) => id)).toEqual([9_000, 9_001, 9_002]);
  });

  it("batches the messages within the limits, at least one", () => {
    // Of 1, 2, 3, … bytes.
    const queue = queueOf([0, 0, 0, 0, 0]);
    const bytesOf = (from: number, through: number, maxMessages: number, maxBytes: number) =>
      queue.batch(from, through, { maxMessages, maxBytes }).bytes;
    expect([bytesOf(1, 9, 9, 99), bytesOf(2, 3, 9, 99), bytesOf(2, 9, 3, 99), bytesOf(1, 9, 9, 9)]).toEqual([
      15, 5, 9, 6,
    ]);
    expect([bytesOf(5, 9, 9, 1), bytesOf(6, 9, 9, 99)]).toEqual([5, 0]);
  });

  it("batches messages of one topic for the connection, within its size limit and credit", () => {
    const queue = queueOf([0, 0, 0]);
    queue.push(message(9), 0);
    queue.push(message(1, 2), 0);
    const count = (from: number, maxMessageBytes: number, credit: number, isEmpty = false) =>
      queue.batch(from, 9, { maxMessages: 9, maxBytes: 99 }, { maxMessageBytes, credit, isEmpty }).messages.length;
    expect([count(1, 99, 99), count(1, 8, 99), count(4, 8, 99), count(5, 99, 99)]).toEqual([4, 3, 0, 1]);
    expect([count(1, 99, 3), count(2, 99, 1), count(2, 99, 1, true), count(1, 99, 0, true)]).toEqual([2, 0, 1, 1]);
  });
});
