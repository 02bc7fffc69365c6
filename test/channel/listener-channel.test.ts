import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { ListenerBench } from "./support.js";

describe("a listener's channel that takes messages from a connection", () => {
  it("commits handled messages and acknowledges only committed ones", () => {
    const bench = new ListenerBench();
    expect(bench.channel.welcome(0)).toEqual({ cursorEpoch: 7, cursor: 0, backlog: 0, credit: 100 });
    expect(bench.channel.onHello("c1", 7, 0)).toBe(true);
    bench.messages("c1", 0, [1, 2]);
    expect(bench.handleAll(1)).toEqual(["7/1", "7/2"]);
    expect(bench.take()).toEqual(["commit 7/1", "commit 7/2"]);
    bench.channel.onCommitted({ epoch: 7, number: 2 });
    expect(bench.take()).toEqual(["ack c1 7/2"]);
  });

  it("increases the credit by the uncommitted handled bytes, up to four times the initial credit", () => {
    const bench = ListenerBench.connected();
    // Batches of 10 bytes a message.
    bench.messages("c1", 0, [1, 2]);
    bench.messages("c1", 0, [3, 4, 5]);
    bench.messages("c1", 0, [6, 7]);
    bench.handle(1);
    bench.handle(1);
    bench.handle(1);
    bench.channel.onCommitted({ epoch: 7, number: 2 });
    // For the sender all of the second and the third batch is in flight, and 40 bytes of that wait here.
    expect(bench.credit).toBe(100 + 50 - 40);
    bench.handleAll(1);
    bench.channel.onCommitted({ epoch: 7, number: 3 });
    expect(bench.credit).toBe(100 + 50);
    bench.channel.onCommitted({ epoch: 7, number: 7 });
    expect(bench.credit).toBe(100);
    const numbers = Array.from({ length: 41 }, (_, index) => 8 + index);
    for (const number of numbers) bench.messages("c1", 2, [number]);
    bench.handleAll(2);
    bench.channel.onCommitted({ epoch: 7, number: 8 });
    expect(bench.credit).toBe(400);
    // What came over the connection before is in flight no more.
    bench.channel.onHello("c2", 7, 0);
    bench.channel.onCommitted({ epoch: 7, number: 9 });
    expect(bench.credit).toBe(100);
  });

  it("grants credit that has grown by a quarter at once, before a commit", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2, 3, 4, 5, 6, 7]);
    expect(bench.handleAll(1)).toHaveLength(7);
    const acks = bench.take().filter((effect) => effect.startsWith("ack"));
    expect(acks).toEqual(["ack c1 7/0", "ack c1 7/0"]);
    expect(bench.credit).toBe(100 + 60);
    const numbers = Array.from({ length: 50 }, (_, index) => 8 + index);
    for (const number of numbers) bench.messages("c1", 2, [number]);
    bench.handleAll(2);
    expect(bench.credit).toBeGreaterThan(400 - 100 / 4);
    expect(bench.credit).toBeLessThanOrEqual(400);
  });

  it("passes the next messages to the handler without queueing them", () => {
    const bench = ListenerBench.connected();
    expect(bench.pass("c1", 1, 1, 3)).toBe(true);
    expect(bench.pass("c1", 1, 0, 2)).toBe(true);
    expect(bench.pass("c1", 1, 4, 1)).toBe(true);
    expect(bench.take()).toEqual(["commit 7/3", "ack c1 7/0", "commit 7/4"]);
    expect(bench.credit).toBe(100 + 30);
    expect(bench.channel.accepted).toEqual({ epoch: 7, number: 4 });
    bench.messages("c1", 2, [4, 5]);
    expect(bench.handleAll(2)).toEqual(["7/5"]);
    bench.channel.onCommitted({ epoch: 7, number: 5 });
    expect(bench.take()).toEqual(["commit 7/5", "ack c1 7/0", "ack c1 7/5"]);
    expect(bench.credit).toBe(100);
  });

  it("passes only the next message through, and none while a message is queued, held, running, parked or halted", () => {
    const bench = ListenerBench.connected({ parkDelayMs: 100, retryDelayMs: 100 });
    const passes = (first: number) => bench.channel.canPassThrough("c1", 7, first);
    expect([passes(2), bench.channel.canPassThrough("c2", 7, 1), bench.channel.canPassThrough("c1", 8, 1)]).toEqual(
      Array(3).fill(false),
    );
    bench.messages("c1", 0, [2]);
    expect([passes(1), passes(0)]).toEqual([false, false]);
    bench.rows([1, 2]);
    expect(passes(3)).toBe(false);
    bench.handle(1);
    bench.begin(1);
    expect([passes(3), passes(0)]).toEqual([false, false]);
    bench.finish({ kind: "done" }, 1);
    expect([passes(3), passes(0)]).toEqual([true, true]);
    bench.channel.halt(true);
    expect(passes(3)).toBe(false);
    bench.channel.halt(false);
    bench.keyed("c1", 2, 3, ["a"]);
    bench.begin(2);
    bench.finish({ kind: "failed", errorCode: "handler_failed", errorMessage: "e" }, 2);
    bench.channel.onParked([{ epoch: 7, number: 3 }]);
    expect(bench.channel.parkedMessages).toBe(1);
    expect(passes(4)).toBe(false);
  });

  it("passes no message through while messages are serialized or completed in advance", () => {
    const hasSuspect = ListenerBench.connected({ hasSuspect: true });
    expect(hasSuspect.channel.canPassThrough("c1", 7, 1)).toBe(false);
    const marked = ListenerBench.connected({}, [{ epoch: 7, number: 2 }]);
    expect(marked.channel.canPassThrough("c1", 7, 1)).toBe(false);
  });

  it("retries a message that failed after passed-through ones, with the cursor before it", () => {
    const bench = ListenerBench.connected();
    expect(bench.pass("c1", 1, 1, 2)).toBe(true);
    bench.beginPassed(1, 3);
    bench.finish({ kind: "failed", errorCode: "handler_failed", errorMessage: "e" }, 1);
    bench.messages("c1", 1, [4]);
    expect(bench.begin(1)).toBeUndefined();
    expect(bench.take()).toEqual(["commit 7/2"]);
    expect(bench.handleAll(101)).toEqual(["7/3", "7/4"]);
    expect(bench.take()).toEqual(["commit 7/3", "ack c1 7/0", "commit 7/4"]);
  });

  it("returns a passed-through message that is still running, even if the handler halted the channel", () => {
    const bench = ListenerBench.connected();
    expect(bench.pass("c1", 1, 1, 0)).toBe(true);
    bench.channel.halt(true);
    bench.beginPassed(1, 1);
    expect(bench.channel.isHandling).toBe(true);
    bench.finish({ kind: "done" }, 2);
    expect(bench.take()).toEqual(["commit 7/1"]);
  });

  it("drops a number at or below the watermark", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    bench.messages("c1", 1, [1, 2, 3]);
    expect(bench.handleAll(2)).toEqual(["7/1", "7/2", "7/3"]);
  });

  it("sends the committed cursor in Welcome, not the watermark", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    bench.handleAll(1);
    expect(bench.channel.welcome(0)).toMatchObject({ cursorEpoch: 7, cursor: 0 });
    bench.channel.onHello("c2", 7, 0);
    expect(bench.take()).toContain("close c1");
  });

  it("ignores messages of a replaced connection, and a Hello of an older epoch", () => {
    const bench = ListenerBench.connected();
    bench.channel.onHello("c2", 8, 0);
    bench.messages("c1", 0, [1]);
    expect(bench.handleAll(1)).toEqual([]);
    expect(bench.channel.onHello("c3", 7, 0)).toBe(false);
  });

  it("reports busy while a handler is slow and messages wait, and withdraws it when the handler is done", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    bench.begin(0);
    expect(bench.channel.deadline).toBe(10);
    bench.channel.tick(10);
    expect(bench.take()).toEqual(["ack c1 7/0 busy"]);
    bench.finish({ kind: "done" }, 20);
    bench.channel.onCommitted({ epoch: 7, number: 1 });
    expect(bench.take()).toEqual(["commit 7/1", "ack c1 7/1"]);
  });

  it("pauses reading above twice the credit, and resumes at half of that", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, new Array(21).fill(undefined));
    expect(bench.take()).toEqual(["pause c1"]);
    for (let count = 0; count < 10; count++) {
      bench.handle(1);
    }
    expect(bench.take()).toEqual([]);
    bench.handle(1);
    expect(bench.take()).toEqual(["resume c1"]);
  });

  it("pauses reading for messages without a payload", () => {
    const bench = ListenerBench.connected({ messageOverheadBytes: 10 });
    bench.unnumbered("c1", 20, 0);
    expect(bench.take()).toEqual([]);
    bench.unnumbered("c1", 1, 0);
    expect(bench.take()).toEqual(["pause c1"]);
    expect(bench.handleAll(1)).toHaveLength(21);
    expect(bench.take()).toEqual(["resume c1"]);
  });

  it("pauses reading for headers, each of which counts", () => {
    const bench = ListenerBench.connected({ messageOverheadBytes: 10 });
    const headers = [["name", "v".repeat(26)] as const, ["", ""] as const];
    bench.unnumbered("c1", 3, 1, headers);
    expect(bench.channel.waitingMemoryBytes).toBe(3 * (1 + 10 + 30 + 10 + 10));
    expect(bench.take()).toEqual([]);
    bench.unnumbered("c1", 1, 1, headers);
    expect(bench.take()).toEqual(["pause c1"]);
  });

  it("pauses reading for numbered messages too, and grants credit for their payloads only", () => {
    const bench = ListenerBench.connected({ messageOverheadBytes: 100 });
    bench.messages("c1", 0, [1, 2]);
    expect(bench.take()).toEqual(["pause c1"]);
    bench.handle(1);
    expect(bench.take()).toEqual(["commit 7/1"]);
    bench.handle(1);
    expect(bench.take()).toEqual(["commit 7/2", "resume c1"]);
    bench.channel.onCommitted({ epoch: 7, number: 2 });
    expect(bench.take()).toEqual(["ack c1 7/2"]);
    expect(bench.credit).toBe(100);
  });

  it("resumes reading when held messages have come from the store", () => {
    const bench = ListenerBench.connected({ messageOverheadBytes: 100 });
    bench.messages("c1", 0, [3, 4]);
    expect(bench.take()).toEqual(["query above 7/0", "pause c1"]);
    bench.rows([1, 2, 3, 4]);
    expect(bench.take()).toEqual(["resume c1"]);
    expect(bench.channel.waitingMemoryBytes).toBe(0);
  });

  it("does not query the store while headers fill the queue", () => {
    const bench = ListenerBench.connected({ refillBelowBytes: 1_000 });
    bench.unnumbered("c1", 1, 0, [["name", "v".repeat(1_000)]]);
    bench.take();
    bench.channel.onAnnounced();
    expect(bench.take()).toEqual([]);
    bench.handle(1);
    expect(bench.take()).toEqual(["resume c1", "query above 7/0"]);
  });
});

describe("a listener's channel that fills gaps from the store", () => {
  it("queries the store for a gap, and continues in order", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [3, 4]);
    expect(bench.take()).toEqual(["query above 7/0"]);
    expect(bench.handleAll(1)).toEqual([]);
    bench.rows([1, 2]);
    expect(bench.handleAll(2)).toEqual(["7/1", "7/2", "7/3", "7/4"]);
  });

  it("ignores the conclusion of a query that started before the gap was seen", () => {
    const bench = ListenerBench.connected();
    bench.channel.onAnnounced();
    bench.messages("c1", 0, [3]);
    bench.take();
    bench.rows([]);
    expect(bench.take()).toEqual(["query above 7/0"]);
    bench.rows([1, 2]);
    expect(bench.handleAll(1)).toEqual(["7/1", "7/2", "7/3"]);
  });

  it("reports a gap that the store cannot fill, and continues", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [3]);
    bench.take();
    bench.rows([]);
    expect(bench.take()).toEqual(["gap 7/1-2"]);
    expect(bench.handleAll(1)).toEqual(["7/3"]);
  });

  it("starts a new epoch only when a query started after its Hello found nothing older", () => {
    const bench = new ListenerBench({ epoch: 7, number: 4 });
    bench.channel.onAnnounced();
    bench.channel.onHello("c1", 8, 0);
    bench.messages("c1", 0, [1], 8);
    bench.rows([]);
    expect(bench.handleAll(1)).toEqual([]);
    bench.rows([5]);
    expect(bench.handleAll(2)).toEqual(["7/5", "8/1"]);
  });

  it("accepts rows of several epochs in order", () => {
    const bench = new ListenerBench({ epoch: 7, number: 4 });
    bench.channel.onAnnounced();
    bench.rows([5], 3);
    bench.rows([1, 2], 0, 9);
    expect(bench.handleAll(1)).toEqual(["7/5", "9/1", "9/2"]);
  });

  it("answers GoLive after a query started after it", () => {
    const bench = ListenerBench.connected();
    bench.channel.onAnnounced();
    bench.channel.onGoLive("c1");
    bench.rows([]);
    expect(bench.take()).toEqual(["query above 7/0", "query above 7/0"]);
    bench.rows([1]);
    expect(bench.take()).toEqual(["ack c1 7/0 live"]);
  });

  it("sends an Ack when a long backlog has become short", () => {
    const bench = new ListenerBench();
    bench.channel.onHello("c1", 7, 5);
    bench.rows([1, 2], 4);
    expect(bench.take()).toEqual(["query above 7/0", "query above 7/2"]);
    bench.rows([3], 3);
    expect(bench.take()).toEqual(["ack c1 7/0 backlog 3", "query above 7/3"]);
  });

  it("queries no more rows while enough wait for the handler", () => {
    const bench = new ListenerBench();
    bench.channel.onAnnounced();
    bench.take();
    bench.rows([1, 2, 3, 4, 5], 10);
    expect(bench.take()).toEqual([]);
    bench.handle(1);
    expect(bench.take()).toEqual(["commit 7/1", "query above 7/5"]);
  });

  it("deletes stored rows at or below the cursor that the poll has found", () => {
    const bench = new ListenerBench({ epoch: 7, number: 9 });
    bench.channel.onPolled();
    bench.rows([]);
    expect(bench.take()).toEqual(["query above 7/9", "delete up to 7/9"]);
  });

  it("passes at-most-once messages on at once while it drains", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [3, undefined]);
    expect(bench.handleAll(1)).toEqual(["~"]);
  });
});

describe("a listener's channel whose handler fails", () => {
  it("retries with doubling delays, and then writes a dead letter", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    const fail = (now: number) =>
      bench.finish({ kind: "failed", errorCode: "handler_failed", errorMessage: "no" }, now);
    bench.begin(0);
    fail(0);
    expect(bench.begin(99)).toBeUndefined();
    expect(bench.channel.deadline).toBeLessThanOrEqual(100);
    expect(bench.begin(100)?.position).toEqual({ epoch: 7, number: 1 });
    expect(bench.turns.at(-1)?.attempts).toBe(2);
    fail(100);
    expect(bench.begin(299)).toBeUndefined();
    bench.begin(300);
    fail(300);
    expect(bench.take().filter((line) => !line.startsWith("ack"))).toEqual([
      "dead 7/1 handler_failed after 3",
      "commit 7/1",
    ]);
    expect(bench.handleAll(301)).toEqual(["7/2"]);
  });

  it("does not retry an at-most-once message", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [undefined]);
    bench.begin(0);
    bench.finish({ kind: "failed", errorCode: "handler_failed", errorMessage: "no" }, 1);
    expect(bench.take()).toEqual(["dropped handler_failed"]);
  });

  it("starts no message while it is halted", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1]);
    bench.channel.halt(true);
    expect(bench.handleAll(1)).toEqual([]);
    bench.channel.halt(false);
    expect(bench.handleAll(2)).toEqual(["7/1"]);
  });

  it("stays busy while it is halted, whatever message ends", () => {
    const bench = ListenerBench.connected({ creditBytes: 40 });
    bench.messages("c1", 0, [1, 2]);
    bench.begin(0);
    bench.channel.halt(true);
    bench.finish({ kind: "done" }, 1);
    const acks = () => bench.take().filter((effect) => effect.startsWith("ack"));
    expect(acks()).toEqual(["ack c1 7/0 busy", "ack c1 7/0 busy"]);
    bench.channel.halt(false);
    expect(acks()).toEqual(["ack c1 7/0"]);
  });
});

describe("a listener's channel after an unclean exit", () => {
  const hasSuspect = { hasSuspect: true, maxAttempts: 3 };

  it("starts its first message only when the attempt is counted, and the next when its cursor is committed", () => {
    const bench = ListenerBench.connected(hasSuspect);
    bench.messages("c1", 0, [1, 2]);
    expect(bench.handleAll(1)).toEqual([]);
    expect(bench.take()).toEqual(["count"]);
    bench.channel.onStartCounted(2);
    bench.begin(1);
    expect(bench.turns.at(-1)?.attempts).toBe(2);
    bench.finish({ kind: "done" }, 1);
    expect(bench.handleAll(1)).toEqual([]);
    bench.channel.onCommitted({ epoch: 7, number: 1 });
    expect(bench.handleAll(1)).toEqual(["7/2"]);
  });

  it("counts again when the attempt could not be counted", () => {
    const bench = ListenerBench.connected(hasSuspect);
    bench.messages("c1", 0, [1]);
    bench.handleAll(1);
    bench.channel.onStartCounted(undefined);
    bench.handleAll(1);
    expect(bench.take()).toEqual(["count", "count"]);
  });

  it("dead-letters a message that was started too often", () => {
    const bench = ListenerBench.connected(hasSuspect);
    bench.messages("c1", 0, [1]);
    bench.handleAll(1);
    bench.channel.onStartCounted(4);
    bench.take();
    bench.begin(1);
    expect(bench.turns.at(-1)!.attempts).toBe(4);
    bench.finish({ kind: "refused", errorCode: "handler_crashed", errorMessage: "" }, 1);
    expect(bench.take()).toEqual(["dead 7/1 handler_crashed after 3", "commit 7/1"]);
  });

  it("handles one, two, four, … messages between commits", () => {
    const bench = ListenerBench.connected({ ...hasSuspect, creditBytes: 10_000 });
    const twenty = Array.from({ length: 20 }, (_, index) => index + 1);
    bench.messages("c1", 0, twenty);
    bench.handleAll(1);
    bench.channel.onStartCounted(1);
    const counts: number[] = [];
    for (let handled = 0; handled < 20; ) {
      const { length } = bench.handleAll(1);
      counts.push(length);
      handled += length;
      bench.channel.onCommitted({ epoch: 7, number: handled });
    }
    expect(counts).toEqual([1, 2, 4, 8, 5]);
  });

  it("starts at-most-once messages as usual", () => {
    const bench = ListenerBench.connected(hasSuspect);
    bench.messages("c1", 0, [undefined]);
    expect(bench.handleAll(1)).toEqual(["~"]);
  });
});

describe("a message whose handler's session has ended", () => {
  const sessionEnded = { kind: "sessionEnded", errorCode: "handler_crashed", errorMessage: "" } as const;

  it("restarts the message when all its starts are counted, including earlier ones of this process", () => {
    const bench = ListenerBench.connected({ maxAttempts: 4, retryDelayMs: 0 });
    bench.messages("c1", 0, [1]);
    bench.begin(1);
    bench.finish({ kind: "failed", errorCode: "handler_failed", errorMessage: "" }, 1);
    bench.begin(2);
    bench.finish(sessionEnded, 2);
    for (const counted of [1, 2, 3]) {
      expect(bench.begin(3)).toBeUndefined();
      expect(bench.take()).toEqual(["count"]);
      bench.channel.onStartCounted(counted);
    }
    expect(bench.begin(3)).toBeDefined();
    expect(bench.turns.at(-1)?.attempts).toBe(3);
    expect(bench.channel.isUnderSuspicion).toBe(true);
    expect(bench.channel.waitsForCommits).toBe(true);
    bench.finish({ kind: "done" }, 4);
    expect(bench.take()).toEqual(["commit 7/1"]);
    bench.channel.onCommitted({ epoch: 7, number: 1 });
    expect(bench.channel.isUnderSuspicion).toBe(false);
  });

  it("dead-letters the message if its session ends in its last counted start", () => {
    const bench = ListenerBench.connected({ maxAttempts: 2, retryDelayMs: 0 });
    bench.messages("c1", 0, [1]);
    for (const attempt of [1, 2]) {
      bench.begin(attempt);
      bench.finish(attempt === 1 ? { kind: "failed", errorCode: "", errorMessage: "" } : sessionEnded, attempt);
    }
    // The second start was not alone: it is one again.
    for (const counted of [1, 2]) {
      expect(bench.begin(3)).toBeUndefined();
      bench.channel.onStartCounted(counted);
    }
    bench.take();
    expect(bench.begin(3)).toBeDefined();
    expect(bench.turns.at(-1)?.attempts).toBe(2);
    bench.finish(sessionEnded, 3);
    expect(bench.take()).toEqual(["dead 7/1 handler_crashed after 2", "commit 7/1"]);
  });

  it("does not report an open start for a message that has ended its session", () => {
    const bench = ListenerBench.connected({ maxAttempts: 3, retryDelayMs: 0 });
    bench.messages("c1", 0, [1]);
    bench.begin(1);
    bench.finish(sessionEnded, 1);
    bench.begin(2);
    bench.channel.onStartCounted(1);
    expect(bench.channel.hasOpenStart).toBe(false);
    bench.begin(2);
    bench.channel.onStartCounted(2);
    expect(bench.channel.hasOpenStart).toBe(true);
    bench.begin(2);
    bench.finish(sessionEnded, 2);
    expect(bench.channel.hasOpenStart).toBe(false);
  });

  it("restarts the message when it is the first, in isolation after the committed cursor, while other keys continue", () => {
    const bench = ListenerBench.connected({ maxAttempts: 2, retryDelayMs: 0, creditBytes: 10_000, maxAhead: 10 });
    bench.keyed("c1", 0, 1, ["a", "b", "c", "b", "d"]);
    bench.beginAll(1);
    const turnOf = (number: number) => bench.turns.find(({ running }) => running.position?.number === number)!;
    bench.finish(sessionEnded, 1, turnOf(2));
    bench.keyed("c1", 1, 6, ["c"]);
    bench.finish({ kind: "done" }, 2, turnOf(3));
    expect(bench.beginAll(2)).toEqual([6]);
    bench.finish({ kind: "done" }, 3, turnOf(1));
    bench.keyed("c1", 3, 7, ["e"]);
    // Others end first, and nothing begins any more.
    expect(bench.beginAll(3)).toEqual([]);
    bench.finish({ kind: "done" }, 4, turnOf(6));
    bench.finish({ kind: "done" }, 4, turnOf(5));
    expect(bench.beginAll(4)).toEqual([]);
    expect(bench.take()).toEqual(["commit 7/1"]);
    bench.channel.onCommitted({ epoch: 7, number: 1 });
    expect(bench.beginAll(5)).toEqual([]);
    expect(bench.take().at(-1)).toBe("count alone");
    for (const counted of [1, 2]) {
      bench.channel.onStartCounted(counted);
      bench.begin(6);
    }
    bench.finish({ kind: "done" }, 7, turnOf(2));
    expect(bench.beginAll(7).sort()).toEqual([4, 7]);
  });
});

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

describe("a listener's channel whose messages have keys", () => {
  const turnOf = (bench: ListenerBench, number: number) =>
    bench.turns.find(({ running }) => running.position?.number === number)!;
  const done = { kind: "done" } as const;
  const failed = { kind: "failed", errorCode: "handler_failed", errorMessage: "no" } as const;

  it("handles different keys in parallel, each in order, and messages without a key one after another", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", undefined, "a", undefined, "c", "b"]);
    expect(bench.beginAll(1).sort()).toEqual([1, 2, 3, 6]);
    bench.finish(done, 2, turnOf(bench, 3));
    expect(bench.beginAll(2)).toEqual([5]);
    bench.finish(done, 2, turnOf(bench, 2));
    expect(bench.beginAll(2)).toEqual([7]);
    expect(bench.channel.isHandling).toBe(true);
  });

  it("commits only up to the first unfinished message", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "c", "a"]);
    bench.beginAll(1);
    bench.finish(done, 2, turnOf(bench, 3));
    bench.finish(done, 2, turnOf(bench, 2));
    expect(bench.take()).toEqual([]);
    bench.finish(done, 2, turnOf(bench, 1));
    expect(bench.take()).toEqual(["commit 7/3"]);
    expect(bench.beginAll(3)).toEqual([4]);
    bench.finish(done, 3);
    expect(bench.take()).toEqual(["commit 7/4"]);
  });

  it("retries a failed message without blocking other keys, and writes its dead letter at once", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, maxAttempts: 2 });
    bench.keyed("c1", 0, 1, ["a", "b", "b", "a"]);
    bench.beginAll(0);
    bench.finish(failed, 0, turnOf(bench, 2));
    expect(bench.beginAll(50)).toEqual([]);
    expect(bench.beginAll(100)).toEqual([2]);
    expect(turnOf(bench, 2).attempts).toBe(2);
    bench.finish(failed, 100, turnOf(bench, 2));
    expect(bench.take()).toEqual(["dead 7/2 handler_failed after 2"]);
    expect(bench.beginAll(101)).toEqual([3]);
    bench.finish(done, 101, turnOf(bench, 3));
    expect(bench.take()).toEqual([]);
    bench.finish(done, 102, turnOf(bench, 1));
    expect(bench.take()).toEqual(["commit 7/3"]);
  });

  it("lets at most maxAhead messages wait for a retry, and queries no more bytes than may wait", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, maxAhead: 3, refillBelowBytes: 20 });
    bench.keyed("c1", 0, 1, ["a", "b", "c", "d"]);
    bench.beginAll(0);
    for (const turn of [...bench.turns].slice(0, 3)) bench.finish(failed, 0, turn);
    bench.finish(done, 0);
    bench.take();
    bench.channel.onAnnounced();
    expect(bench.take()).toEqual([]);
    bench.keyed("c1", 0, 5, [undefined]);
    expect(bench.beginAll(50)).toEqual([]);
    expect(bench.beginAll(100)).toEqual([1, 2, 3, 5]);
    for (const turn of [...bench.turns]) bench.finish(done, 101, turn);
    expect(bench.take()).toContain("query above 7/5");
  });

  it("starts a message that its handler wants later again then, as the same attempt", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, maxAttempts: 1 });
    bench.keyed("c1", 0, 1, ["a", "b"]);
    bench.beginAll(0);
    bench.finish({ ...failed, kind: "deferred", delayMs: 700 }, 0, turnOf(bench, 1));
    expect(bench.beginAll(699)).toEqual([]);
    expect(bench.beginAll(700)).toEqual([1]);
    expect(turnOf(bench, 1).attempts).toBe(1);
    bench.finish({ ...failed, kind: "deferred", delayMs: 10_000 }, 700, turnOf(bench, 1));
    expect(bench.take()).toEqual(["park 7/1 after 0 until 10700"]);
  });

  it("takes back the counted start of a message that its handler wants later, and counts the next one", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, maxAttempts: 3, hasSuspect: true, startsBefore: 1 });
    bench.keyed("c1", 0, 1, [undefined]);
    bench.beginAll(0);
    expect(bench.take().at(-1)).toBe("count");
    bench.channel.onStartCounted(2);
    bench.beginAll(0);
    expect(turnOf(bench, 1).attempts).toBe(2);
    bench.finish({ ...failed, kind: "deferred", delayMs: 700 }, 0, turnOf(bench, 1));
    expect(bench.take()).toEqual(["uncount"]);
    expect(bench.beginAll(700)).toEqual([]);
    expect(bench.take()).toEqual(["count"]);
    bench.channel.onStartCounted(2);
    expect(bench.beginAll(700)).toEqual([1]);
    expect(turnOf(bench, 1).attempts).toBe(2);
  });

  describe("a message with a long retry delay", () => {
    const long = { retryDelayMs: 10_000, maxAhead: 2, creditBytes: 10_000, maxAttempts: 3 };
    const at = (number: number) => ({ epoch: 7, number });

    it("is parked with the messages behind it, and the channel continues once the store has them", () => {
      const bench = ListenerBench.connected(long);
      bench.keyed("c1", 0, 1, ["x", "y", "x", "y", "y"]);
      expect(bench.beginAll(0)).toEqual([1, 2]);
      bench.finish(failed, 0, turnOf(bench, 1));
      bench.handle(0);
      expect(bench.take()).toEqual(["park 7/1 after 1 until 10000", "park 7/3 after 0 until 0"]);
      expect(bench.beginAll(0)).toEqual([]);
      bench.channel.onParked([at(1), at(3)]);
      expect(bench.take()).toEqual(["commit 7/3"]);
      expect([bench.channel.waitingWireBytes, bench.channel.parkedMessages]).toEqual([20, 2]);
      expect(bench.handleAll(0)).toEqual(["7/4", "7/5"]);
      bench.keyed("c1", 0, 6, ["x", "y", "y", "y"]);
      expect(bench.take().at(-1)).toBe("park 7/6 after 0 until 0");
      bench.channel.onParked([at(6)]);
      expect(bench.handleAll(0)).toEqual(["7/7", "7/8", "7/9"]);
      expect(bench.take().at(-1)).toBe("commit 7/9");
      bench.channel.tick(500);
      expect(bench.channel.deadline).toBe(10_000);
      expect(bench.handleAll(10_000)).toEqual(["7/1", "7/3", "7/6"]);
      expect(bench.take()).toEqual(["unpark 7/1", "unpark 7/3", "unpark 7/6"]);
      expect(bench.channel.parkedMessages).toBe(0);
    });

    it("waits in memory where it cannot be parked: without a key, and beyond the limits", () => {
      const bench = ListenerBench.connected({ ...long, maxParked: 1, maxAhead: 10 });
      bench.keyed("c1", 0, 1, [undefined, "x", "y", "x"]);
      bench.beginAll(0);
      for (const number of [1, 2, 3]) bench.finish(failed, 0, turnOf(bench, number));
      expect(bench.take()).toEqual(["park 7/2 after 1 until 10000"]);
      bench.channel.onParked([at(2)]);
      expect(bench.take()).toEqual([]);
      expect(bench.beginAll(10_000)).toEqual([1, 2, 3]);
    });

    it("precedes all others of its key when the channel is opened, and keeps its row with a new time if it fails", () => {
      const bench = new ListenerBench(at(3), long, [at(5)]);
      const payload = new Uint8Array(10);
      const message = { topicId: 1, payload, encoding: undefined, headers: undefined, key: "x", fromWire: false };
      const parked = [1, 5].map((number) => ({
        message: { ...message, position: at(number) },
        attempts: number === 1 ? 1 : 0,
        dueAt: number === 1 ? 50 : 0,
      }));
      bench.channel.restore(parked);
      bench.channel.onHello("c1", 7, 0);
      bench.keyed("c1", 0, 4, ["y", "x", "x"]);
      expect(bench.handleAll(0)).toEqual(["7/4"]);
      expect(bench.take()).toEqual(["park 7/6 after 0 until 0", "commit 7/5"]);
      bench.channel.onParked([at(6)]);
      expect(bench.beginAll(50)).toEqual([1]);
      expect(turnOf(bench, 1).attempts).toBe(2);
      bench.finish(failed, 50);
      expect(bench.take()).toEqual(["commit 7/6", "park 7/1 after 2 until 20050"]);
      expect(bench.beginAll(20_050)).toEqual([1]);
      bench.finish(failed, 20_050);
      expect(bench.take()).toEqual(["dead 7/1 handler_failed after 3", "unpark 7/1"]);
      expect(bench.beginAll(20_050)).toEqual([5]);
    });

    it("starts in isolation and counted where it may have ended a process, and delays the drain until it is removed", () => {
      const bench = new ListenerBench(at(0), { ...long, hasSuspect: true });
      const message = { topicId: 1, payload: new Uint8Array(10), encoding: undefined, headers: undefined, key: "x" };
      const parked = { message: { ...message, position: at(1), fromWire: false }, attempts: 1, dueAt: 0 };
      bench.channel.restore([parked]);
      expect(bench.beginAll(0)).toEqual([]);
      expect(bench.take()).toEqual(["count parked 7/1"]);
      expect(bench.channel.isUnderSuspicion).toBe(true);
      bench.channel.onStartCounted(undefined, true);
      expect(bench.beginAll(0)).toEqual([]);
      bench.channel.onStartCounted(3, true);
      expect(bench.take()).toEqual(["count parked 7/1"]);
      expect(bench.beginAll(0)).toEqual([1]);
      expect(turnOf(bench, 1).attempts).toBe(3);
      bench.channel.giveBack();
      bench.finish(done, 0);
      expect(bench.take()).toEqual(["unpark 7/1"]);
      bench.channel.onUnparked(1);
      expect(bench.take()).toEqual(["drained"]);
    });
  });

  it("treats marked messages as finished, from the connection and from the store", () => {
    const marked = [2, 3, 5].map((number) => ({ epoch: 7, number }));
    const bench = ListenerBench.connected({ creditBytes: 10_000 }, marked);
    bench.keyed("c1", 0, 1, ["a", "b", "c"]);
    expect(bench.beginAll(0)).toEqual([1]);
    expect(bench.channel.waitingWireBytes).toBe(10);
    bench.finish(done, 1);
    expect(bench.take()).toContain("commit 7/3");
    bench.channel.onAnnounced();
    bench.rows([4, 5]);
    bench.handle(2);
    expect(bench.take().at(-1)).toBe("commit 7/5");
  });

  it("keeps no handled message in memory while an earlier one is unfinished", async () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["slow", "b"]);
    bench.beginAll(0);
    const payload = new WeakRef(turnOf(bench, 2).running.payload);
    bench.finish(done, 1, turnOf(bench, 2));
    // What a WeakRef was asked for lives until the end of the turn.
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
    expect(payload.deref()).toBeUndefined();
    bench.finish(done, 2, turnOf(bench, 1));
    expect(bench.take()).toEqual(["commit 7/2"]);
  });

  it("runs only up to its limit ahead of an unfinished message", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "b", "b", "b", "a", undefined]);
    const slow = bench.channel.take(1)!;
    expect(slow.running.position?.number).toBe(1);
    const ahead: number[] = [];
    for (let next = bench.begin(1); next !== undefined && ahead.length < 10; next = bench.begin(1)) {
      ahead.push(next.position!.number);
      bench.finish(done, 1);
    }
    expect(ahead).toHaveLength(3);
    expect(bench.channel.canTake).toBe(false);
    bench.channel.finish(slow, done, 2);
    expect(bench.handleAll(3)).toHaveLength(3);
    expect(bench.take().at(-1)).toBe("commit 7/7");
  });

  it("reports busy when there is no progress while messages wait", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "a"]);
    bench.beginAll(0);
    bench.finish(done, 9, turnOf(bench, 2));
    expect(bench.channel.deadline).toBe(19);
    bench.channel.tick(18);
    expect(bench.take()).toEqual([]);
    bench.channel.tick(19);
    expect(bench.take()).toEqual(["ack c1 7/0 busy"]);
  });

  it("handles all messages one after another while it has a suspect", () => {
    const bench = ListenerBench.connected({ hasSuspect: true, creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", undefined, "a"]);
    const order: number[] = [];
    bench.begin(1);
    bench.channel.onStartCounted(1);
    for (let round = 1; round <= 4; round++) {
      if (bench.turns.length === 0) order.push(...bench.beginAll(round));
      else order.push(bench.turns[0]!.running.position!.number);
      expect(bench.turns.length).toBe(1);
      bench.finish(done, round);
      bench.channel.onCommitted({ epoch: 7, number: round });
    }
    expect(order).toEqual([1, 2, 3, 4]);
  });
});

describe("a message that is done while an earlier one is not", () => {
  /** Its messages a, b and c have begun; the first one goes on. */
  function behindAnUnfinishedOne() {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "c"]);
    bench.beginAll(0);
    const turns = [...bench.turns];
    bench.take();
    const marksAt = (now: number): string[] => {
      bench.channel.tick(now);
      return bench.take().filter((line) => line.startsWith("mark"));
    };
    return { bench, turns, marksAt };
  }

  it("gets a mark within a second, once, together with the others, and also while no message may start", () => {
    const { bench, turns, marksAt } = behindAnUnfinishedOne();
    expect(bench.channel.deadline).toBe(Infinity);
    bench.finish({ kind: "done" }, 100, turns[1]);
    bench.channel.halt(true);
    bench.finish({ kind: "done" }, 600, turns[2]);
    expect(bench.channel.deadline).toBe(600);
    expect(marksAt(599)).toEqual([]);
    expect(marksAt(600)).toEqual([]);
    expect(marksAt(1_099)).toEqual([]);
    expect(marksAt(1_100)).toEqual(["mark 7/2 7/3"]);
    expect(bench.channel.deadline).toBe(Infinity);
    expect(marksAt(5_000)).toEqual([]);
    bench.channel.mark();
    expect(bench.take()).toEqual([]);
  });

  it("needs no mark when the cursor passes it soon", () => {
    const { bench, turns, marksAt } = behindAnUnfinishedOne();
    bench.finish({ kind: "done" }, 0, turns[1]);
    expect(marksAt(500)).toEqual([]);
    bench.finish({ kind: "done" }, 600, turns[0]);
    expect(marksAt(1_000)).toEqual([]);
    expect(bench.channel.deadline).toBe(Infinity);
  });

  it("needs no further mark when its transaction wrote one, or its dead letter", () => {
    const { bench, turns, marksAt } = behindAnUnfinishedOne();
    bench.finish({ kind: "done", isMarked: true }, 0, turns[1]);
    bench.finish({ kind: "refused", errorCode: "x", errorMessage: "y" }, 0, turns[2]);
    expect([...marksAt(500), ...marksAt(1_000)]).toEqual([]);
    bench.channel.mark();
    expect(bench.take()).toEqual([]);
  });
});

describe("a channel that is given back", () => {
  it("is drained at once without pending work", () => {
    const bench = ListenerBench.connected();
    bench.take();
    bench.channel.giveBack();
    expect(bench.take()).toEqual(["drained"]);
    bench.channel.giveBack();
    expect(bench.take()).toEqual([]);
  });

  it("is drained when the handler has ended and its cursor is committed, and starts no message until then", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    bench.begin(0);
    bench.take();
    bench.channel.giveBack();
    expect(bench.take()).toEqual(["ack c1 7/0 busy"]);
    bench.channel.halt(false);
    bench.finish({ kind: "done" }, 1);
    expect(bench.begin(1)).toBeUndefined();
    expect(bench.take()).toEqual(["commit 7/1"]);
    bench.channel.onCommitted({ epoch: 7, number: 1 });
    expect(bench.take().at(-1)).toBe("drained");
    expect(bench.begin(2)).toBeUndefined();
  });

  it("is drained when messages finished beyond an unfinished one have their marks", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "c"]);
    bench.beginAll(0);
    const [first, ...others] = [...bench.turns];
    bench.channel.giveBack();
    bench.take();
    for (const turn of others) bench.finish({ kind: "done" }, 1, turn);
    bench.finish({ kind: "failed", errorCode: "x", errorMessage: "y" }, 1, first);
    expect(bench.take()).toEqual(["mark 7/2 7/3"]);
    bench.channel.onMarked(1);
    expect(bench.take()).toEqual([]);
    bench.channel.onMarked(1);
    expect(bench.take()).toEqual(["drained"]);
  });

  it("is drained when the marks that were on their way are written too", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "c"]);
    bench.beginAll(0);
    const [first, second, third] = [...bench.turns];
    bench.finish({ kind: "done" }, 0, second);
    bench.channel.tick(500);
    bench.channel.tick(1_000);
    bench.finish({ kind: "done" }, 1_001, third);
    bench.channel.giveBack();
    bench.take();
    bench.finish({ kind: "failed", errorCode: "x", errorMessage: "y" }, 1_001, first);
    expect(bench.take()).toEqual(["mark 7/3"]);
    bench.channel.onMarked(1);
    expect(bench.take()).toEqual([]);
    bench.channel.onMarked(1);
    expect(bench.take()).toEqual(["drained"]);
  });

  it("is drained while its message waits for a retry, which is left to the next owner", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1]);
    bench.begin(0);
    bench.channel.giveBack();
    bench.take();
    bench.finish({ kind: "failed", errorCode: "x", errorMessage: "y" }, 1);
    expect(bench.take()).toEqual(["drained"]);
    bench.channel.tick(1_000);
    expect(bench.begin(1_000)).toBeUndefined();
  });

  it("waits for the count of a start", () => {
    const bench = ListenerBench.connected({ hasSuspect: true });
    bench.messages("c1", 0, [1]);
    bench.begin(0);
    bench.take();
    bench.channel.giveBack();
    expect(bench.take()).not.toContain("drained");
    bench.channel.onStartCounted(1);
    expect(bench.take()).toContain("drained");
    expect(bench.begin(0)).toBeUndefined();
  });
});
