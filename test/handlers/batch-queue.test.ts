/**
 * The queue of messages that are handled together, with virtual time.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { BatchSettings } from "../../generated/ts/settings/peer.js";
import type { HandlerResult } from "../../src/jobs-and-peers/channel/index.js";
import { BatchQueue } from "../../src/jobs-and-peers/handlers/batch-queue.js";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const done: HandlerResult = { kind: "done" };
const failed: HandlerResult = { kind: "failed", errorCode: "handler_failed", errorMessage: "no" };

/** A queue that handles batches as `handle` says, with what it was given, in order. */
function bench(
  limits: Partial<BatchSettings> = {},
  handle: (items: readonly string[]) => (HandlerResult | undefined)[] | undefined = () => undefined,
) {
  const batches: string[] = [];
  const joined: string[] = [];
  const results: Record<string, HandlerResult["kind"]> = {};
  const settings = { maxMessages: 100, maxBytes: 1_000, waitMs: 0, concurrency: 1, ...limits };
  const queue = new BatchQueue<string>(settings, async (items) => {
    batches.push(items.join(""));
    await new Promise((resolve) => setTimeout(resolve, 10));
    return handle(items) ?? items.map(() => done);
  });
  const add = (items: string, bytes = 1): void => {
    for (const item of items) {
      void queue
        .add(item, bytes, () => joined.push(item))
        .then(({ kind }) => {
          results[item] = kind;
        });
    }
  };
  return { queue, batches, joined, results, add };
}

describe("a queue of batches", () => {
  it("hands over what a turn of the event loop brings, and what comes meanwhile next", async () => {
    const { add, batches } = bench();
    add("abc");
    setImmediate(() => add("d"));
    await vi.advanceTimersByTimeAsync(5);
    add("efg");
    expect(batches).toEqual(["abcd"]);
    await vi.runAllTimersAsync();
    expect(batches).toEqual(["abcd", "efg"]);
  });

  it("keeps to maxMessages and maxBytes, and takes one message of any length", async () => {
    const { add, batches } = bench({ maxMessages: 3, maxBytes: 10 });
    add("abcd");
    add("ef", 5);
    add("g", 50);
    add("h");
    await vi.runAllTimersAsync();
    expect(batches).toEqual(["abc", "de", "f", "g", "h"]);
  });

  it("handles up to `concurrency` batches at a time, each of them as full as it gets", async () => {
    const { add, batches } = bench({ maxMessages: 2, concurrency: 2 });
    add("abcdefg");
    expect(batches).toEqual(["ab", "cd"]);
    await vi.advanceTimersByTimeAsync(15);
    expect(batches).toEqual(["ab", "cd", "ef", "g"]);
    add("h");
    await vi.runAllTimersAsync();
    expect(batches).toEqual(["ab", "cd", "ef", "g", "h"]);
  });

  it("waits for further messages while another batch is handled", async () => {
    const { add, batches } = bench({ maxMessages: 2, concurrency: 2, waitMs: 1_000 });
    add("abc");
    expect(batches).toEqual(["ab"]);
    await vi.advanceTimersByTimeAsync(5);
    add("d");
    expect(batches).toEqual(["ab", "cd"]);
  });

  it("waits up to waitMs, unless a batch is full before", async () => {
    const { add, batches } = bench({ maxMessages: 3, maxBytes: 10, waitMs: 1_000 });
    add("ab");
    await vi.advanceTimersByTimeAsync(999);
    expect(batches).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(batches).toEqual(["ab"]);
    await vi.advanceTimersByTimeAsync(100);
    add("cde");
    expect(batches).toEqual(["ab", "cde"]);
    await vi.advanceTimersByTimeAsync(100);
    add("f", 10);
    expect(batches).toEqual(["ab", "cde", "f"]);
  });

  it("waits no longer once that is ended, whatever comes", async () => {
    const { queue, add, batches } = bench({ waitMs: 1_000 });
    add("ab");
    queue.stopWaiting();
    await vi.advanceTimersByTimeAsync(5);
    add("c");
    await vi.advanceTimersByTimeAsync(20);
    expect(batches).toEqual(["ab", "c"]);
  });

  it("says which messages are part of the next batch, as soon as they are", async () => {
    const { add, joined } = bench({ maxMessages: 2 });
    add("abcde");
    expect(joined).toEqual(["a", "b", "c", "d"]);
    await vi.advanceTimersByTimeAsync(10);
    expect(joined).toEqual(["a", "b", "c", "d", "e"]);
  });

  it("handles a batch in halves until the message that fails is alone", async () => {
    const { add, batches, results } = bench({}, (items) => {
      if (!items.includes("c")) return undefined;
      return items.map(() => (items.length === 1 ? failed : undefined));
    });
    add("abcdefg");
    await vi.runAllTimersAsync();
    expect(batches).toEqual(["abcdefg", "abcd", "ab", "cd", "c", "d", "efg"]);
    expect(results).toEqual({ a: "done", b: "done", c: "failed", d: "done", e: "done", f: "done", g: "done" });
  });

  it("handles the others again together where the message that fails is named", async () => {
    const { add, batches, results } = bench({}, (items) =>
      items.includes("c") ? items.map((item) => (item === "c" ? failed : undefined)) : undefined,
    );
    add("abcd");
    await vi.runAllTimersAsync();
    expect(batches).toEqual(["abcd", "abd"]);
    expect(results).toEqual({ a: "done", b: "done", c: "failed", d: "done" });
  });
});
