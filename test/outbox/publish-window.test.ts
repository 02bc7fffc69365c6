import { describe, expect, it } from "vitest";
import { PublishWindow } from "../../src/nats/outbox/publish-window.js";

const settings = { maxUnderWay: 8, maxUnderWayBytes: 8_000, firstUnderWay: 100, leastUnderWay: 2 };

function entries(role: string, route: string, ids: readonly number[], bytes = 1) {
  return ids.map((id) => ({ message: { id: BigInt(id), role, route, bytes } }));
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, nth) => nth + 1);

type Entry = ReturnType<typeof entries>[number];

function windowOf(...all: readonly Entry[]): PublishWindow<Entry> {
  const window = new PublishWindow<Entry>(settings);
  for (const entry of all) window.push(entry);
  return window;
}

function takeAll(window: PublishWindow<Entry>): Entry[] {
  const taken: Entry[] = [];
  for (let entry = window.take(); entry !== undefined; entry = window.take()) taken.push(entry);
  return taken;
}

describe("the publish window", () => {
  it("alternates between roles, and between the routes of a role", () => {
    const window = windowOf(
      ...entries("shop", "a", [1, 2, 3]),
      ...entries("shop", "b", [4]),
      ...entries("billing", "c", [5, 6]),
    );
    expect(takeAll(window).map(({ message }) => Number(message.id))).toEqual([1, 5, 4, 6, 2, 3]);
  });

  it("gives a single route of a single role its full share, and no more until a publish completes", () => {
    const window = windowOf(...entries("shop", "a", upTo(20)));
    const taken = takeAll(window);
    expect(taken).toHaveLength(settings.maxUnderWay);
    window.complete(taken[0]!);
    expect(takeAll(window)).toHaveLength(1);
  });

  it("always has capacity for another route and another role", () => {
    const window = windowOf(...entries("shop", "a", upTo(100)));
    takeAll(window);
    for (const entry of entries("shop", "b", [200])) window.push(entry);
    for (const entry of entries("billing", "a", [300])) window.push(entry);
    expect(takeAll(window).map(({ message }) => Number(message.id))).toEqual([200, 300]);
  });

  it("counts bytes, and admits one message of any size", () => {
    const window = windowOf(...entries("shop", "a", [1, 2], 1_000_000));
    const [first, ...others] = takeAll(window);
    expect([first?.message.id, others]).toEqual([1n, []]);
    window.complete(first!);
    expect(takeAll(window)).toHaveLength(1);
  });

  it("inserts retried messages into their routes by their ids", () => {
    const window = windowOf(...entries("shop", "a", [3, 7]));
    window.pushRetries(entries("shop", "a", [5, 1]));
    expect(takeAll(window).map(({ message }) => Number(message.id))).toEqual([1, 3, 5, 7]);
  });

  it("removes a route's messages that are not in flight", () => {
    const window = windowOf(...entries("shop", "a", upTo(20)), ...entries("shop", "b", [30]));
    const taken = takeAll(window);
    window.clear("shop", "a");
    for (const entry of taken) window.complete(entry);
    expect(takeAll(window)).toEqual([]);
  });

  it("limits the messages in flight of a role that NATS refuses, and increases the limit with each accepted message", () => {
    const window = new PublishWindow<Entry>({ ...settings, maxUnderWay: 1_000, firstUnderWay: 8 });
    for (const entry of entries("shop", "a", upTo(100))) window.push(entry);
    let taken = takeAll(window);
    expect(taken).toHaveLength(8);
    for (const entry of taken) window.complete(entry, false);
    taken = takeAll(window);
    expect(taken).toHaveLength(2);
    for (const entry of taken) window.complete(entry, true);
    taken = takeAll(window);
    expect(taken).toHaveLength(4);
    // A lost connection is no fault of the role.
    for (const entry of taken) window.complete(entry);
    expect(takeAll(window)).toHaveLength(4);
  });
});
