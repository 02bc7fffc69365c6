/**
 * Limits of how many handlers run in parallel, with the channels whose messages wait for them.
 */
import { describe, expect, it } from "vitest";
import type { IncomingMessage } from "../../../src/jobs-and-peers/channel/index.js";
import {
  ConcurrencyLimit,
  changeLimit,
  type Limited,
  type Waiter,
  Waitlist,
} from "../../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { ListenerBench } from "../../channel/support.js";

const failed = { kind: "failed", errorCode: "handler_failed", errorMessage: "e" } as const;
const done = { kind: "done" } as const;

/** Messages whose key begins with "x" have a limit, and so do those without a key whose number is odd. */
function limitOfX(limit: ConcurrencyLimit) {
  return ({ key, position }: IncomingMessage) =>
    key === undefined ? (position!.number % 2 === 1 ? limit : undefined) : key.startsWith("x") ? limit : undefined;
}

function bench(limit: ConcurrencyLimit, limits: Parameters<typeof ListenerBench.connected>[0] = {}): ListenerBench {
  return ListenerBench.connected({ limitOf: limitOfX(limit), ...limits });
}

const turnOf = ({ turns }: ListenerBench, number: number) =>
  turns.find(({ running }) => running.position?.number === number)!;

describe("a listener's channel whose handlers have a limit", () => {
  it("starts so many messages of theirs, and holds up no other keys", () => {
    const one = bench(new ConcurrencyLimit(2));
    one.keyed("c1", 0, 1, ["x1", "x2", "x3", "x4", "y1", "y2"]);
    expect(one.beginAll(0).toSorted()).toEqual([1, 2, 5, 6]);
    expect(one.channel.canTake).toBe(false);
    one.finish(done, 1, turnOf(one, 2));
    expect(one.channel.canTake).toBe(true);
    expect(one.beginAll(1)).toEqual([3]);
    one.finish(done, 1, turnOf(one, 5));
    expect(one.beginAll(1)).toEqual([]);
  });

  it("waits with the messages without a key behind the one that waits", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit);
    limit.take();
    one.messages("c1", 0, [1, 2]);
    one.keyed("c1", 0, 3, ["y"]);
    expect(one.beginAll(0)).toEqual([3]);
    expect(one.channel.canTake).toBe(false);
    limit.release(one, true);
    expect(one.beginAll(0)).toEqual([1]);
    one.finish(done, 1, turnOf(one, 1));
    expect(one.beginAll(0)).toEqual([2]);
    expect(limit.free).toBe(1);
  });

  it("takes turns between messages with and without a limit", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit);
    one.keyed("c1", 0, 1, ["y1", "y2", "y3", "y4", "x1", "x2"]);
    const begun: number[] = [];
    for (let next = one.begin(0); next; next = one.begin(0)) {
      begun.push(next.position!.number);
      one.finish(done, 0);
    }
    expect(begun).toEqual([1, 5, 2, 6, 3, 4]);
  });

  it("frees the place of a message that leaves", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit);
    one.keyed("c1", 0, 1, ["x1", "x2", "x3", "x4"]);
    expect(one.beginAll(0)).toEqual([1]);
    one.finish(failed, 0);
    expect(one.beginAll(0)).toEqual([2]);
    one.finish({ kind: "postponed" }, 0);
    expect(one.beginAll(0)).toEqual([3]);
    expect([limit.free, limit.waitingOf(one)]).toEqual([0, 1]);
  });

  it("holds up no message that leaves at once", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit, { suspects: 2 });
    limit.take();
    one.keyed("c1", 0, 1, ["x1", "x2", "y1", "x3"]);
    expect([limit.waitingOf(one), one.beginAll(0)]).toEqual([1, [3]]);
    one.finish(done, 0);
    expect(one.take().filter((line) => line.startsWith("commit"))).toEqual([
      "commit 7/1, 1 suspect",
      "commit 7/2, 2 suspect",
      "commit 7/3",
    ]);
  });

  it("starts waiting messages under the limit of a handler that replaces theirs", () => {
    const [before, after] = [new ConcurrencyLimit(1), new ConcurrencyLimit(2)];
    let current: ConcurrencyLimit | undefined = before;
    const one = ListenerBench.connected({ limitOf: () => current });
    one.keyed("c1", 0, 1, ["a", "b", "c", "d", "e"]);
    expect(one.beginAll(0)).toEqual([1]);
    current = after;
    before.open();
    expect(one.channel.canTake).toBe(true);
    expect(one.beginAll(0)).toEqual([2, 3]);
    expect([before.waitingOf(one), after.waitingOf(one), one.channel.canTake]).toEqual([0, 2, false]);
    one.finish(done, 0, turnOf(one, 1));
    expect(one.beginAll(0)).toEqual([]);
    // The next handler has none.
    current = undefined;
    after.open();
    expect(one.beginAll(0)).toEqual([4, 5]);
  });

  it("moves a running message to the limit that its handler has now", () => {
    const [unknown, limit] = [new ConcurrencyLimit(1), new ConcurrencyLimit(1)];
    let current = unknown;
    const one = ListenerBench.connected({ limitOf: () => current });
    one.keyed("c1", 0, 1, ["a", "b"]);
    expect(one.beginAll(0)).toEqual([1]);
    current = limit;
    limit.take();
    expect(changeLimit(one.turns[0]!, limit, one)).toBe(false);
    expect([unknown.isFull, limit.free]).toEqual([true, 0]);
    limit.release(one, true);
    expect(one.take()).toEqual([]);
    expect(changeLimit(one.turns[0]!, limit, one)).toBe(true);
    // The channel itself waits for the limit that the message has left.
    expect(one.take()).toEqual(["limit freed"]);
    expect([unknown.free, limit.free]).toEqual([1, 0]);
    one.finish(done, 0);
    expect(limit.free).toBe(1);
  });

  it("waits for no limit after its close, and frees the places of running messages", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit);
    one.keyed("c1", 0, 1, ["x1", "x1", "x2"]);
    one.messages("c1", 0, [4, 5]);
    one.beginAll(0);
    one.channel.close();
    expect([limit.waitingOf(one), limit.free]).toEqual([0, 0]);
    for (const turn of [...one.turns]) one.finish(done, 0, turn);
    expect([limit.waitingOf(one), limit.free]).toEqual([0, 1]);
  });
});

describe("a limit for several channels", () => {
  it("wakes the others when it is no longer full, and the channel that has just run is last", () => {
    const limit = new ConcurrencyLimit(1);
    const [one, two, three] = [bench(limit), bench(limit), bench(limit)];
    for (const each of [one, two, three]) each.keyed("c1", 0, 1, ["x1", "x2"]);
    one.beginAll(0);
    const order: string[] = [];
    for (let running = [one]; running.length > 0; ) {
      const [ended] = running as [ListenerBench];
      order.push(["one", "two", "three"][[one, two, three].indexOf(ended)]!);
      ended.finish(done, 0);
      // As in a peer: the others are woken, or the channel goes on.
      if (ended.take().includes("limit freed")) expect(limit.runWaiters(() => true)).toBe(true);
      else ended.run();
      running = [one, two, three].filter(({ turns }) => turns.length > 0);
      expect(running.length).toBeLessThanOrEqual(1);
    }
    expect(order).toEqual(["one", "two", "three", "one", "two", "three"]);
  });

  it("wakes nobody while it is not full, or if nobody else waits", () => {
    const limit = new ConcurrencyLimit(2);
    const [one, two] = [bench(limit), bench(limit)];
    one.keyed("c1", 0, 1, ["x1", "x2", "x3"]);
    one.beginAll(0);
    one.finish(done, 0);
    expect(one.take()).not.toContain("limit freed");
    two.keyed("c1", 0, 1, ["x1"]);
    one.finish(done, 0);
    expect(one.take()).not.toContain("limit freed");
  });

  it("runs no further channel without a slot", () => {
    const limit = new ConcurrencyLimit(1);
    const one = bench(limit);
    one.keyed("c1", 0, 1, ["x1"]);
    expect(limit.runWaiters(() => false)).toBe(false);
    expect(one.turns).toEqual([]);
    limit.take();
    expect(limit.runWaiters(() => false)).toBe(true);
  });

  it("runs each channel once, also if it cannot start anything", () => {
    const limit = new ConcurrencyLimit(1);
    const ran: number[] = [];
    for (const name of [1, 2, 3]) limit.join({ run: () => ran.push(name), limitFreed: () => undefined });
    expect(limit.runWaiters(() => true)).toBe(true);
    expect(ran).toEqual([1, 2, 3]);
  });
});

describe("a list of what waits", () => {
  const waiter: Waiter = { run: () => undefined, limitFreed: () => undefined };
  const item = (limit?: ConcurrencyLimit): Limited => ({ limit });

  it("has its items in the order in which they came, also after others have left", () => {
    const limit = new ConcurrencyLimit(10);
    for (const of of [undefined, limit]) {
      const list = new Waitlist<Limited>(waiter);
      const items = Array.from({ length: 5 }, () => item(of));
      for (const each of items) list.add(each);
      expect(list.first).toBe(items[0]);
      list.delete(items[1]!);
      list.delete(items[0]!);
      expect(list.first).toBe(items[2]);
      list.add(items[0]!);
      for (const each of items.slice(2)) list.delete(each);
      expect([list.first, list.size]).toEqual([items[0], 1]);
      list.delete(items[0]!);
      expect([list.first, list.size, list.delete(items[0]!)]).toEqual([undefined, 0, false]);
      list.add(items[4]!);
      expect(list.first).toBe(items[4]);
      list.clear();
    }
    expect(limit.waitingOf(waiter)).toBe(0);
  });

  it("takes turns between limits, and passes over full ones", () => {
    const limits = [new ConcurrencyLimit(1), new ConcurrencyLimit(1), new ConcurrencyLimit(1)];
    const list = new Waitlist<Limited>(waiter);
    for (const limit of limits) for (let n = 0; n < 3; n++) list.add(item(limit));
    limits[1]!.take();
    expect([list.size, list.startable, [...list.allStartable()].length]).toEqual([9, 2, 6]);
    const order: number[] = [];
    for (let next = list.first; next !== undefined; next = list.first) {
      list.delete(next);
      order.push(limits.indexOf(next.limit!));
    }
    expect(order).toEqual([0, 2, 0, 2, 0, 2]);
    expect([list.size, list.startable]).toEqual([3, 0]);
  });

  it("moves a running item to another limit if that is not full", () => {
    const [from, to] = [new ConcurrencyLimit(1), new ConcurrencyLimit(1)];
    const running = item(from);
    from.take();
    expect([changeLimit(running, from, waiter), from.free]).toEqual([true, 0]);
    expect([changeLimit(running, to, waiter), from.free, to.free]).toEqual([true, 1, 0]);
    from.take();
    expect([changeLimit(running, from, waiter), running.limit]).toEqual([false, to]);
    expect([changeLimit(running, undefined, waiter), to.free]).toEqual([true, 1]);
  });
});
