/** Messages whose handlers a channel has started, and that a worker goes on with when they are rows of the queue. */
import { describe, expect, it } from "vitest";
import type { HandlerResult } from "../../src/jobs-and-peers/channel/index.js";
import { ConcurrencyLimit, type Limited } from "../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { LeasedMessages, type LeasedTurn } from "../../src/jobs-and-peers/queue/worker/leased-messages.js";
import { RunningTurns } from "../../src/jobs-and-peers/queue/worker/running-turns.js";
import { QueuedMessage } from "../../src/jobs-and-peers/store/index.js";

const done: HandlerResult = { kind: "done" };
const failed: HandlerResult = { kind: "failed", errorCode: "handler_failed", errorMessage: "no", failedAt: 5 };
const worker = 5n;

/** Row of a sent message. */
function row(rank: bigint, { key = "7:=k", server = "here" } = {}): QueuedMessage {
  const place = { topic: "t", recipient: "@b", role: "r", rank };
  const marks = { isSuspect: false, wasRunning: false, isUnique: false, isKept: false };
  return new QueuedMessage(
    { ...place, ...marks, key, attempts: 0 },
    rank,
    { payload: new Uint8Array(), headers: [], fault: undefined },
    server,
  );
}

/** Term of a worker, of which {@link RunningTurns} sees nothing else. */
function newTerm(log: string[]) {
  const retry = { attempts: 3, delayMs: () => 100 };
  const leased = new LeasedMessages({ retryOf: () => retry, limitOf: () => undefined } as never, {
    run: () => undefined,
    limitFreed: () => undefined,
    complete: ({ rank }) => log.push(`complete ${rank}`),
    putOff: ({ running }) => log.push(`put off ${running.rank}`),
    giveUp: ({ running }) => log.push(`give up ${running.rank}`),
  });
  return {
    ...{ leased, server: "here", isOver: false, statements: { worker } },
    finish: (turn: LeasedTurn, result: HandlerResult) => leased.finish(turn, result, 0),
    takes: { deletedOutside: ({ rank }: QueuedMessage) => log.push(`deleted outside ${rank}`) },
    endCancelled: () => undefined,
  };
}

function bench() {
  const log: string[] = [];
  const counts = { handled: { done: 0, cancelled: 0 } };
  const owner = {
    effects: {
      clock: { now: () => 0 },
      dispatcher: { freeSlot: () => log.push("slot freed"), hasWoken: false },
      handlers: { countsOf: () => counts },
      attempts: { isCancelled: () => false },
      quarantine: { holder: undefined },
      idle: () => undefined,
    },
    room: {
      inBatch: (_: string, by: number) => log.push(`in batch ${by}`),
      ended: () => undefined,
    },
    term: newTerm(log) as ReturnType<typeof newTerm> | undefined,
    isCuttingOff: false,
    handledOutside: ({ rank }: QueuedMessage) => log.push(`handled outside ${rank}`),
    run: () => undefined,
    limitFreed: () => undefined,
  };
  const limit = new ConcurrencyLimit(1);
  limit.take();
  const turn: Limited = { limit };
  return { log, counts, owner, limit, turn, turns: new RunningTurns(owner as never) };
}

describe("a message whose handler a channel has started", () => {
  it("is one of the worker's own, with the place under the limit, and the next of its lane waits for it", () => {
    const { log, counts, owner, limit, turn, turns } = bench();
    const { leased } = owner.term!;
    const end = turns.adopt(row(1n), worker, turn);
    expect([turns.size, turn.limit, limit.free]).toEqual([1, undefined, 0]);
    leased.add([row(2n)]);
    expect(leased.take(0)).toBeUndefined();
    end(done);
    // The slot is that of its channel.
    expect(log).toEqual(["complete 1"]);
    expect([turns.size, limit.free, counts.handled.done]).toEqual([0, 1, 1]);
    expect(leased.take(0)!.running.rank).toBe(2n);
  });

  it("is tried again as one of the worker's own", () => {
    const { log, turn, turns } = bench();
    turns.adopt(row(1n), worker, turn)(failed);
    expect(log).toEqual(["put off 1"]);
  });

  it("of which another one of its lane runs ends outside", () => {
    const { log, turn, turns } = bench();
    turns.adopt(row(1n), worker, { limit: undefined });
    turns.adopt(row(2n), worker, turn)(done);
    expect(log).toEqual(["handled outside 2"]);
  });

  it.each([
    ["whose row another worker has", worker + 1n, "here", true],
    ["whose row is on another server", worker, "there", true],
    ["that comes while there is no worker", worker, "here", false],
  ])("%s is not handled a third time if it is done, and nothing is written if it is not", (_, of, server, hasTerm) => {
    for (const result of [done, failed] as const) {
      const { log, counts, owner, limit, turn, turns } = bench();
      if (!hasTerm) owner.term = undefined;
      const end = turns.adopt(row(1n, { server }), of, turn);
      expect([turns.size, limit.free]).toEqual([0, 0]);
      end(result);
      const outside = result === done ? ["handled outside 1"] : [];
      expect(log).toEqual(outside);
      expect([limit.free, counts.handled.done]).toEqual([1, outside.length]);
    }
  });

  it("goes on in the next term if that has the row, and otherwise ends outside", () => {
    for (const hasRow of [true, false]) {
      const { log, owner, turn, turns } = bench();
      const end = turns.adopt(row(1n), worker, turn);
      owner.term!.isOver = true;
      turns.termEnded();
      owner.term = newTerm(log);
      if (hasRow) expect(turns.resume(owner.term as never, row(1n))).toBe(true);
      end(done);
      expect(log).toEqual([hasRow ? "complete 1" : "handled outside 1"]);
    }
  });
});
