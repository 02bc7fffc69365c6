import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import type { IncomingMessage, LeavingMessage } from "../../src/jobs-and-peers/channel/index.js";
import { ConcurrencyLimit } from "../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { ListenerBench } from "./support.js";

const done = { kind: "done" } as const;
const failed = { kind: "failed", errorCode: "handler_failed", errorMessage: "no" } as const;

describe("a listener's channel that takes messages from a connection", () => {
  it("commits handled messages and acknowledges only committed ones", () => {
    const bench = new ListenerBench();
    expect(bench.channel.welcome(0)).toEqual({ cursorEpoch: 7, cursor: 0, backlog: 0, credit: 100, queued: 0 });
    expect(bench.channel.onHello("c1", 7, 0)).toBe(true);
    bench.messages("c1", 0, [1, 2]);
    expect(bench.handleAll(1)).toEqual(["7/1", "7/2"]);
    expect(bench.take()).toEqual(["commit 7/1", "commit 7/2"]);
    bench.committed(2);
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
    bench.committed(2);
    // For the sender all of the second and the third batch is in flight, and 40 bytes of that wait here.
    expect(bench.credit).toBe(100 + 50 - 40);
    bench.handleAll(1);
    bench.committed(3);
    expect(bench.credit).toBe(100 + 50);
    bench.committed(7);
    expect(bench.credit).toBe(100);
    const numbers = Array.from({ length: 41 }, (_, index) => 8 + index);
    for (const number of numbers) bench.messages("c1", 2, [number]);
    bench.handleAll(2);
    bench.committed(8);
    expect(bench.credit).toBe(400);
    // What came over the connection before is in flight no more.
    bench.channel.onHello("c2", 7, 0);
    bench.committed(9);
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
    bench.committed(5);
    expect(bench.take()).toEqual(["commit 7/5", "ack c1 7/0", "ack c1 7/5"]);
    expect(bench.credit).toBe(100);
  });

  it("passes only the next message through, and none while a message is queued, held, running, leaving or halted", () => {
    const bench = ListenerBench.connected();
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
    bench.finish(failed, 2);
    expect(passes(4)).toBe(false);
    bench.committed(3, 2);
    expect(passes(4)).toBe(true);
  });

  it("passes no message through that may have ended the process before, or while the queue has others without a key", () => {
    expect(ListenerBench.connected({ suspects: 1 }).channel.canPassThrough("c1", 7, 1)).toBe(false);
    const bench = ListenerBench.connected({ hasRows: true });
    expect(bench.channel.canPassThrough("c1", 7, 1)).toBe(false);
    bench.channel.tick(0);
    bench.lanes([]);
    expect(bench.channel.canPassThrough("c1", 7, 1)).toBe(true);
  });

  it("has a message leave that failed after passed-through ones, with the cursor before it", () => {
    const bench = ListenerBench.connected();
    expect(bench.pass("c1", 1, 1, 2)).toBe(true);
    bench.beginPassed(1, 3);
    bench.finish(failed, 1);
    expect(bench.take()).toEqual(["commit 7/2", "commit 7/3, 3 after 1 until 101"]);
    bench.messages("c1", 1, [4]);
    expect(bench.begin(1)).toBeUndefined();
    expect(bench.take()).toEqual(["commit 7/4, 4"]);
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
    bench.committed(1);
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
    bench.committed(2);
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

  it("deletes them also while the sender's new epoch has sent nothing yet", () => {
    const bench = new ListenerBench({ epoch: 7, number: 9 });
    bench.channel.onHello("c1", 8, 0);
    bench.rows([]);
    expect(bench.channel.accepted).toEqual({ epoch: 8, number: 0 });
    bench.take();
    bench.channel.onPolled();
    bench.rows([]);
    expect(bench.take()).toEqual(["query above 8/0", "delete up to 7/9"]);
  });

  it("passes at-most-once messages on at once while it drains", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [3, undefined]);
    expect(bench.handleAll(1)).toEqual(["~"]);
  });
});

describe("a listener's channel whose handler fails", () => {
  it("has the message leave for its next attempt, and with it what comes behind it", () => {
    const bench = ListenerBench.connected();
    bench.messages("c1", 0, [1, 2]);
    bench.begin(0);
    bench.finish(failed, 5);
    bench.messages("c1", 6, [3]);
    expect(bench.begin(1_000)).toBeUndefined();
    expect(bench.take()).toEqual(["commit 7/2, 1 after 1 until 105, 2", "commit 7/3, 3"]);
    expect(bench.channel.waitingMessages).toBe(3);
    bench.committed(2);
    expect([bench.channel.waitingMessages, bench.channel.waitingWireBytes]).toEqual([1, 10]);
    expect(bench.take()).toEqual(["ack c1 7/2 queued 2"]);
    expect(bench.channel.welcome(0).queued).toBe(2);
  });

  it("writes a dead letter after the last attempt, or if it must not be tried again, and goes on", () => {
    const bench = ListenerBench.connected({ maxAttempts: 1 });
    bench.messages("c1", 0, [1, 2, 3]);
    bench.begin(0);
    bench.finish(failed, 0);
    bench.begin(0);
    bench.finish({ ...failed, kind: "refused", errorCode: "unsubscribed" }, 0);
    expect(bench.take()).toEqual([
      "commit 7/1, 1 after 1 dead handler_failed",
      "commit 7/2, 2 after 1 dead unsubscribed",
    ]);
    expect(bench.handleAll(0)).toEqual(["7/3"]);
  });

  it("has a message leave as no attempt that its handler wants later, or whose outcome does not count", () => {
    const bench = ListenerBench.connected({ maxAttempts: 1 });
    bench.keyed("c1", 0, 1, ["a", "b"]);
    bench.beginAll(0);
    bench.finish({ ...failed, kind: "deferred", delayMs: 700 }, 0, bench.turnOf(1));
    bench.finish({ kind: "postponed" }, 0, bench.turnOf(2));
    expect(bench.take()).toEqual(["commit 7/1, 1 until 700", "commit 7/2, 2"]);
  });

  it("says which failure it was, for the dead letter of a later attempt", () => {
    const left: LeavingMessage[] = [];
    const bench = ListenerBench.connected();
    bench.commit = (_cursor, leaving) => left.push(...leaving);
    bench.messages("c1", 0, [1]);
    bench.begin(0);
    bench.finish({ ...failed, failedAt: 1_000, plain: new Uint8Array(1) }, 0);
    expect(left[0]).toMatchObject({ attempts: 1, plain: new Uint8Array(1), key: undefined });
    expect(left[0]!.failures).toEqual([{ attempt: 1, at: 1_000, code: "handler_failed", message: "no" }]);
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
  it("has its first messages leave as suspects, what is behind them in their lanes too, and handles the others", () => {
    const bench = ListenerBench.connected({ suspects: 2, creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, [undefined, "a", "b", undefined]);
    expect(bench.beginAll(1)).toEqual([3]);
    bench.finish(done, 1);
    expect(bench.take()).toEqual(["commit 7/1, 1 suspect", "commit 7/2, 2 suspect", "commit 7/4, 4"]);
  });

  it("starts at-most-once messages as usual", () => {
    const bench = ListenerBench.connected({ suspects: 1 });
    bench.messages("c1", 0, [undefined, 1, undefined]);
    expect(bench.handleAll(1)).toEqual(["~", "~"]);
    expect(bench.take()).toEqual(["commit 7/1, 1 suspect"]);
  });
});

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

describe("a listener's channel whose messages have keys", () => {
  it("handles different keys in parallel, each in order, and messages without a key one after another", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", undefined, "a", undefined, "c", "b"]);
    expect(bench.beginAll(1).sort()).toEqual([1, 2, 3, 6]);
    bench.finish(done, 2, bench.turnOf(3));
    expect(bench.beginAll(2)).toEqual([5]);
    bench.finish(done, 2, bench.turnOf(2));
    expect(bench.beginAll(2)).toEqual([7]);
    expect(bench.channel.isHandling).toBe(true);
  });

  it("commits only up to the first unfinished message", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "c", "a"]);
    bench.beginAll(1);
    bench.finish(done, 2, bench.turnOf(3));
    bench.finish(failed, 2, bench.turnOf(2));
    expect(bench.take()).toEqual([]);
    bench.finish(done, 2, bench.turnOf(1));
    expect(bench.take()).toEqual(["commit 7/3, 2 after 1 until 102"]);
    expect(bench.beginAll(3)).toEqual([4]);
    bench.finish(done, 3);
    expect(bench.take()).toEqual(["commit 7/4"]);
  });

  it("has only what has the key of a failed message leave", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "a", "b"]);
    bench.beginAll(0);
    bench.finish(failed, 0, bench.turnOf(1));
    expect(bench.take()).toEqual(["commit 7/1, 1 after 1 until 100"]);
    bench.finish(done, 0, bench.turnOf(2));
    expect(bench.beginAll(0)).toEqual([4]);
    expect(bench.take()).toEqual(["commit 7/3, 3"]);
  });

  it("has messages leave that the queue is to handle, with the waiting ones of their lane", () => {
    const leaves = ({ position }: IncomingMessage) => (position!.number === 3 ? "message" : false);
    const bench = ListenerBench.connected({ creditBytes: 10_000, leaves });
    bench.keyed("c1", 0, 1, ["a", "a"]);
    expect(bench.beginAll(0)).toEqual([1]);
    bench.keyed("c1", 0, 3, ["a", "b"]);
    expect(bench.beginAll(0)).toEqual([4]);
    expect(bench.take()).toEqual([]);
    bench.finish(done, 0, bench.turnOf(1));
    expect(bench.take()).toEqual(["commit 7/3, 2, 3"]);
  });

  it("keeps no handled message in memory while an earlier one is unfinished", async () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["slow", "b"]);
    bench.beginAll(0);
    const payload = new WeakRef(bench.turnOf(2).running.payload);
    bench.finish(done, 1, bench.turnOf(2));
    // What a WeakRef was asked for lives until the end of the turn.
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
    expect(payload.deref()).toBeUndefined();
    bench.finish(done, 2, bench.turnOf(1));
    expect(bench.take()).toEqual(["commit 7/2"]);
  });

  it("reports busy when there is no progress while messages wait", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b", "a"]);
    bench.beginAll(0);
    bench.finish(done, 9, bench.turnOf(2));
    expect(bench.channel.deadline).toBe(19);
    bench.channel.tick(18);
    expect(bench.take()).toEqual([]);
    bench.channel.tick(19);
    expect(bench.take()).toEqual(["ack c1 7/0 busy"]);
  });
});

describe("messages in front of one that has ended", () => {
  /** Messages 1 to 4 with these keys, of which the first of each key has begun. */
  function started(...keys: (string | undefined)[]) {
    const bench = ListenerBench.connected({ creditBytes: 10_000, busyAfterMs: 10_000 });
    bench.keyed("c1", 0, 1, keys);
    bench.beginAll(0);
    bench.take();
    return bench;
  }

  it("leave after a while: a running one as a row that this process has, whose handler goes on", () => {
    const bench = started("a", "b", "a", "c");
    bench.finish(done, 100, bench.turnOf(2));
    bench.finish(done, 300, bench.turnOf(4));
    expect(bench.channel.deadline).toBe(600);
    bench.channel.tick(599);
    expect(bench.take()).toEqual([]);
    bench.channel.tick(600);
    expect(bench.take()).toEqual(["commit 7/4, 1 running, 3"]);
    expect(bench.channel.runningMessages).toBe(0);
    const turn = bench.turnOf(1);
    bench.finish(failed, 700, turn);
    expect(bench.take()).toEqual([]);
    bench.committed(4, 800);
    expect(bench.take()).toEqual(["ack c1 7/4 queued 3"]);
    expect(bench.channel.waitingWireBytes).toBe(0);
  });

  it("leave up to the last that had ended when the time began; those that ended later, within twice the time", () => {
    const bench = started("a", "b", "c", "d");
    bench.finish(done, 0, bench.turnOf(2));
    bench.finish(done, 400, bench.turnOf(4));
    bench.channel.tick(500);
    expect(bench.take()).toEqual(["commit 7/2, 1 running"]);
    expect(bench.channel.deadline).toBe(1_000);
    bench.channel.tick(1_000);
    expect(bench.take()).toEqual(["commit 7/4, 3 running"]);
  });

  it("stay if the cursor passes them soon", () => {
    const bench = started("a", "b");
    bench.finish(done, 0, bench.turnOf(2));
    bench.finish(done, 400, bench.turnOf(1));
    expect(bench.take()).toEqual(["commit 7/2"]);
    expect(bench.channel.deadline).toBe(Infinity);
  });

  it("stay while they run and the process can have no rows", () => {
    const bench = started("a", "b");
    bench.goesOn = false;
    bench.finish(done, 0, bench.turnOf(2));
    bench.channel.tick(500);
    expect(bench.take()).toEqual([]);
    bench.goesOn = true;
    expect(bench.channel.deadline).toBe(1_000);
    bench.channel.tick(1_000);
    expect(bench.take()).toEqual(["commit 7/2, 1 running"]);
  });

  it("leave while no message may start, too, as a process that stops may be killed", () => {
    const bench = started("a", "b");
    bench.channel.halt(true);
    bench.finish(done, 0, bench.turnOf(2));
    bench.take();
    expect(bench.channel.deadline).toBe(500);
    bench.channel.tick(500);
    expect(bench.take()).toEqual(["commit 7/2, 1 running"]);
  });

  it("leave at a stop, as no attempt if their handlers are cut off; what is behind all that has ended stays", () => {
    const bench = started("a", "b", "a", "c");
    bench.finish(done, 0, bench.turnOf(2));
    bench.channel.halt(true);
    bench.take();
    bench.channel.leaveUnfinished(1);
    expect(bench.take()).toEqual(["commit 7/3, 1, 3"]);
    bench.committed(3, 2);
    expect(bench.channel.isCommitting).toBe(false);
    bench.channel.leaveUnfinished(3);
    expect(bench.take()).toEqual(["ack c1 7/3 busy queued 3"]);
  });
});

describe("a lane whose messages have left", () => {
  /** Message 1 of a key has failed and is committed. */
  function left() {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a"]);
    bench.begin(0);
    bench.finish(failed, 0);
    bench.committed(1, 0);
    bench.take();
    return bench;
  }

  it("comes back when the queue has no rows of it", () => {
    const bench = left();
    expect(bench.channel.deadline).toBe(100);
    bench.channel.tick(100);
    expect(bench.take()).toEqual(["ask a"]);
    expect(bench.channel.deadline).toBe(Infinity);
    bench.lanes([], false, 110);
    expect(bench.channel.deadline).toBe(Infinity);
    bench.keyed("c1", 110, 2, ["a"]);
    expect(bench.beginAll(110)).toEqual([2]);
  });

  it("stays away while it has, and is asked for less and less often", () => {
    const bench = left();
    let now = 0;
    const waits: number[] = [];
    for (let nth = 0; nth < 6; nth++) {
      waits.push(bench.channel.deadline - now);
      now = bench.channel.deadline;
      bench.channel.tick(now);
      bench.lanes(["a"], true, now);
    }
    expect(waits).toEqual([100, 200, 400, 800, 1_000, 1_000]);
    bench.keyed("c1", now, 2, ["a"]);
    expect(bench.beginAll(now)).toEqual([]);
    expect(bench.take().at(-1)).toBe("commit 7/2, 2");
  });

  it("does not come back by an answer that is older than what has left since", () => {
    const bench = left();
    bench.channel.tick(100);
    bench.keyed("c1", 101, 2, ["a"]);
    bench.lanes([], false, 102);
    bench.keyed("c1", 103, 3, ["a"]);
    expect(bench.beginAll(103)).toEqual([]);
    expect(bench.take()).toEqual(["ask a", "commit 7/2, 2", "commit 7/3, 3"]);
  });

  it("does not come back by an answer about the topics that were handled before the handlers changed", () => {
    let leaves: false | "topic" = "topic";
    const bench = ListenerBench.connected({ creditBytes: 10_000, hasRows: true, leaves: () => leaves });
    bench.keyed("c1", 0, 1, ["a"]);
    bench.committed(1, 0);
    bench.take();
    bench.channel.tick(0);
    expect(bench.take()).toEqual(["ask ~ a"]);
    leaves = false;
    bench.channel.handlersChanged();
    bench.lanes([], false, 10);
    bench.keyed("c1", 10, 2, ["a", "b"]);
    expect(bench.beginAll(10)).toEqual([]);
    bench.channel.tick(bench.channel.deadline);
    expect(bench.take()).toEqual(["ask ~ a"]);
    bench.lanes(["a"], true, 120);
    expect(bench.take()).toEqual(["commit 7/2, 2"]);
    bench.channel.tick(bench.channel.deadline);
    expect(bench.take()).toEqual(["ask b"]);
  });

  it("is asked for whenever handlers change, as rows of several topics may be there, also from before the channel was opened", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, hasRows: true });
    for (let nth = 1; nth <= 3; nth++) {
      if (nth > 1) bench.channel.handlersChanged();
      bench.channel.tick(nth * 1_000);
      expect(bench.take()).toEqual(["ask ~"]);
      bench.lanes([], false, nth * 1_000);
    }
  });

  it("is not forgotten before what has left of it as a topic is committed", () => {
    let leaves: false | "topic" = "topic";
    const bench = ListenerBench.connected({ creditBytes: 10_000, leaves: () => leaves });
    bench.keyed("c1", 0, 1, ["a"]);
    leaves = false;
    bench.channel.handlersChanged();
    bench.keyed("c1", 0, 2, ["a"]);
    bench.take();
    bench.channel.tick(0);
    expect(bench.take()).toEqual(["ask ~"]);
    bench.lanes([], false, 0);
    expect(bench.beginAll(0)).toEqual([]);
    bench.committed(1, 10);
    bench.channel.tick(bench.channel.deadline);
    expect(bench.take().at(-1)).toBe("ask a");
  });

  it("is not asked for before its rows are committed", () => {
    const bench = left();
    bench.keyed("c1", 50, 2, ["a"]);
    bench.take();
    bench.channel.tick(100);
    expect(bench.take()).toEqual([]);
    expect(bench.channel.deadline).toBe(Infinity);
    bench.committed(2, 150);
    expect(bench.channel.deadline).toBe(250);
    bench.channel.tick(250);
    expect(bench.take()).toEqual(["ack c1 7/2 queued 2", "ask a"]);
  });

  it("is asked for again after a while if the store has not answered", () => {
    const bench = left();
    bench.channel.tick(100);
    bench.channel.onLanes(undefined, true, 110);
    expect(bench.channel.deadline).toBe(210);
  });

  it("is asked for before its first start in a channel that was opened with rows, a few lanes at a time", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000, busyAfterMs: 10_000, hasRows: true });
    expect(bench.channel.welcome(0).queued).toBe(0);
    bench.keyed("c1", 0, 1, ["a", "b", undefined]);
    expect(bench.beginAll(0)).toEqual([]);
    expect(bench.channel.deadline).toBe(-Infinity);
    bench.channel.tick(0);
    expect(bench.take()).toEqual(["ask ~ a"]);
    bench.lanes(["a"], true, 10);
    expect(bench.take()).toEqual(["commit 7/1, 1"]);
    expect(bench.beginAll(10)).toEqual([3]);
    expect(bench.channel.deadline).toBe(110);
    bench.channel.tick(110);
    expect(bench.take()).toEqual(["ask b"]);
    bench.lanes([], true, 110);
    expect(bench.beginAll(110)).toEqual([2]);
    bench.keyed("c1", 111, 4, ["c"]);
    expect(bench.beginAll(111)).toEqual([]);
    bench.committed(1, 111);
    bench.channel.tick(211);
    bench.lanes([], false, 211);
    expect(bench.beginAll(211)).toEqual([4]);
    bench.keyed("c1", 212, 5, ["d"]);
    expect(bench.beginAll(212)).toEqual([5]);
  });

  it("is asked for again after a while, also if all are away when the channel is opened", () => {
    const bench = ListenerBench.connected({ hasRows: true });
    bench.channel.tick(0);
    bench.lanes([undefined], true, 0);
    expect(bench.channel.deadline).toBe(200);
  });

  it("tells a sender that reconnects that what was committed before may be in the queue", () => {
    const bench = new ListenerBench({ epoch: 7, number: 4 }, { hasRows: true });
    expect(bench.channel.welcome(0)).toMatchObject({ cursor: 4, queued: 4 });
  });

  it("is not asked for while a message of it runs, and is when that has ended", () => {
    const bench = ListenerBench.connected({ hasRows: true });
    bench.messages("c1", 0, [undefined, 1]);
    bench.begin(0);
    bench.channel.tick(0);
    expect(bench.take()).toEqual([]);
    bench.finish(done, 50);
    expect(bench.channel.deadline).toBe(150);
    bench.channel.tick(150);
    expect(bench.take()).toEqual(["ask ~"]);
    bench.lanes([], false, 160);
    expect(bench.beginAll(160)).toEqual([1]);
  });

  it("starts at-most-once messages, also behind one that has left while its handler runs", () => {
    const bench = ListenerBench.connected({ creditBytes: 10_000 });
    bench.keyed("c1", 0, 1, ["a", "b"]);
    bench.beginAll(0);
    bench.messages("c1", 0, [undefined], 7, "a");
    bench.finish(done, 0, bench.turnOf(2));
    bench.channel.tick(500);
    expect(bench.beginAll(500)).toEqual([]);
    bench.finish(done, 600, bench.turnOf(1));
    expect(bench.handleAll(600)).toEqual(["~"]);
  });

  it("waits for its limit as often as it has a message that can start", () => {
    const limit = new ConcurrencyLimit(1);
    limit.take();
    const bench = ListenerBench.connected({ creditBytes: 10_000, limitOf: () => limit });
    bench.messages("c1", 0, [undefined]);
    bench.keyed("c1", 0, 1, ["a"]);
    expect(limit.waitingOf(bench)).toBe(2);
    bench.keyed("c1", 0, 2, ["b"]);
    expect(limit.waitingOf(bench)).toBe(3);
    const suspected = ListenerBench.connected({ suspects: 1, limitOf: () => limit });
    suspected.messages("c1", 0, [undefined]);
    suspected.keyed("c1", 0, 1, [undefined, "a"]);
    expect(limit.waitingOf(suspected)).toBe(2);
    suspected.committed(1, 0);
    suspected.channel.tick(100);
    suspected.lanes([], false, 100);
    expect(limit.waitingOf(suspected)).toBe(2);
  });
});
