/** Which of the messages starts next that a process has taken of the queue. */
import { describe, expect, it } from "vitest";
import type { HandlerResult } from "../../src/jobs-and-peers/channel/index.js";
import { ConcurrencyLimit } from "../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { LeasedMessages, type LeasedTurn } from "../../src/jobs-and-peers/queue/worker/leased-messages.js";
import type { QueuedMessage } from "../../src/jobs-and-peers/store/index.js";

const attempts = 3;
const failed: HandlerResult = { kind: "failed", errorCode: "handler_failed", errorMessage: "no", failedAt: 5 };

/** Messages of one process, with what they ask of the store. */
function bench(
  limits: Readonly<Record<string, ConcurrencyLimit>> = {},
  onGivenUp: (failure: unknown) => void = () => undefined,
) {
  const asked: string[] = [];
  const turns = new Map<LeasedTurn, string>();
  const leased = new LeasedMessages(
    {
      retryOf: () => ({ attempts, delayMs: (failures: number) => failures * 100 }),
      limitOf: (topic: string) => limits[topic],
    } as never,
    {
      run: () => undefined,
      limitFreed: () => asked.push("limit freed"),
      complete: ({ id }) => asked.push(`complete ${id}`),
      putOff: ({ running }, delayMs, failure) =>
        asked.push(`put off ${running.id} for ${delayMs} at ${failure?.attempt ?? "no attempt"}`),
      giveUp: ({ running }, dead, failure) => {
        asked.push(`give up ${running.id}: ${dead.errorCode} at ${dead.attempts}`);
        onGivenUp(failure);
      },
    },
  );
  /** @param texts such as `t k 3`: topic, key (`-` for none) and id, number of failed attempts and role */
  const add = (...texts: string[]): void =>
    leased.add(
      texts.map((text) => {
        const [topic = "", key = "", id = "", failedAttempts = 0, role = ""] = text.split(" ");
        return {
          ...{ topic, recipient: "", role, rank: BigInt(id), id: BigInt(id), lane: key === "-" ? undefined : key },
          failedAttempts: Number(failedAttempts),
        } as QueuedMessage;
      }),
    );
  /** Starts all that can start. @returns their ids */
  const start = (now = 0): string[] => {
    const started: string[] = [];
    for (let turn = leased.take(now); turn !== undefined; turn = leased.take(now)) {
      turns.set(turn, `${turn.running.id}`);
      started.push(`${turn.running.id}`);
    }
    return started;
  };
  const turnOf = (id: string): LeasedTurn => [...turns.keys()].find((turn) => turn.running?.id === BigInt(id))!;
  const finish = (id: string, result: HandlerResult = { kind: "done", isMarked: true }, now = 0): LeasedTurn => {
    const turn = turnOf(id);
    leased.finish(turn, result, now);
    return turn;
  };
  return { leased, asked, add, start, finish };
}

describe("messages that were taken of the queue", () => {
  it("start side by side without a key, and one after another with one", () => {
    const { add, start, finish } = bench();
    add("t - 1", "t k 2", "t k 3", "t - 4", "t l 5");
    expect(start()).toEqual(["1", "2", "4", "5"]);
    finish("2");
    expect(start()).toEqual(["3"]);
  });

  it("of several roles with one key have an order for each role, and run beside each other", () => {
    const { add, start, finish } = bench();
    add("t k 1 0 mal", "t k 2 0 mal", "t k 8 0 ann", "t k 9 0 ann");
    expect(start()).toEqual(["1", "8"]);
    finish("8");
    expect(start()).toEqual(["9"]);
  });

  it("start in the order of their ids within a key, also if one was committed late", () => {
    const { add, start, finish } = bench();
    add("t k 1", "t k 3");
    expect(start()).toEqual(["1"]);
    add("t k 2");
    finish("1");
    expect(start()).toEqual(["2"]);
    finish("2");
    expect(start()).toEqual(["3"]);
  });

  it("start in turn by topic, whatever the backlog of one", () => {
    const { add, start } = bench();
    add("busy - 1", "busy - 2", "busy - 3", "calm - 4", "calm k 5");
    expect(start()).toEqual(["1", "4", "2", "5", "3"]);
  });

  it("have the same key in two topics without waiting for each other", () => {
    const { add, start } = bench();
    add("t k 1", "u k 2");
    expect(start()).toEqual(["1", "2"]);
  });

  it("wait for the limit of their handler, and hold up no others", () => {
    const { add, start, finish, leased } = bench({ t: new ConcurrencyLimit(1) });
    add("t - 1", "t - 2", "u - 3");
    expect([start(), leased.startable, leased.waiting]).toEqual([["1", "3"], 0, 1]);
    finish("1");
    expect(start()).toEqual(["2"]);
  });

  it("ask for the end of the row unless the handler's transaction has ended it", () => {
    const { add, start, finish, asked } = bench();
    add("t - 1", "t - 2");
    start();
    finish("1");
    finish("2", { kind: "done" });
    expect(asked).toEqual(["complete 2"]);
  });

  it("are put off when they fail, with all of their key, of which nothing starts before the answer", () => {
    const { add, start, finish, asked, leased } = bench();
    add("t k 1 1", "t k 2", "t k 3");
    start();
    const turn = finish("1", failed);
    expect(asked).toEqual(["put off 1 for 200 at 2"]);
    expect(start()).toEqual([]);
    leased.onPutOff(turn);
    expect([start(), leased.waiting]).toEqual([[], 0]);
    add("t k 1 2");
    expect(start()).toEqual(["1"]);
  });

  it("are put off without those of their key that others have enqueued", () => {
    const { add, start, finish, leased } = bench();
    add("t k 1 1 shop", "t k 2 0 shop", "t k 3 0 billing", "t k 4 0 billing");
    start();
    leased.onPutOff(finish("1", failed));
    expect([leased.waiting, start()]).toEqual([1, []]);
    finish("3");
    expect(start()).toEqual(["4"]);
  });

  it("are put off for as long as their handler wants, which is no attempt, or one that counts", () => {
    const { add, start, finish, asked } = bench();
    add("t - 1 2", "t - 2 1", "t - 3 2");
    start();
    const error = { errorCode: "handler_failed", errorMessage: "later" };
    finish("1", { kind: "deferred", ...error, delayMs: 5 });
    finish("2", { kind: "failed", ...error, failedAt: 5, delayMs: 6 });
    finish("3", { kind: "failed", ...error, failedAt: 5, delayMs: 7 });
    expect(asked).toEqual(["put off 1 for 5 at no attempt", "put off 2 for 6 at 2", "give up 3: handler_failed at 3"]);
  });

  it("are given up after the last attempt, and at once if they are refused; the next of the key goes on", () => {
    const { add, start, finish, asked, leased } = bench();
    add("t k 1 2", "t k 2", "t l 3");
    start();
    const turn = finish("1", failed);
    finish("3", { ...failed, kind: "refused" } as HandlerResult);
    expect(asked).toEqual(["give up 1: handler_failed at 3", "give up 3: handler_failed at 1"]);
    expect(start()).toEqual([]);
    leased.onGivenUp(turn);
    expect(start()).toEqual(["2"]);
  });

  it("have as many attempts as were begun when they are given up because they ended their process too often", () => {
    const given: unknown[] = [];
    const { add, start, finish, asked } = bench({}, (failure) => given.push(failure));
    add("t - 1 3", "t - 2 2");
    start();
    finish("1", { ...failed, kind: "refused", errorCode: "handler_crashed" } as HandlerResult);
    finish("2", failed);
    expect(asked).toEqual(["give up 1: handler_crashed at 3", "give up 2: handler_failed at 3"]);
    expect(given).toEqual([undefined, { attempt: 3, at: 5, code: "handler_failed", message: "no" }]);
  });

  it("start again as the same attempt when they were postponed, before what is behind them", () => {
    const { add, start, finish, leased } = bench();
    add("t k 1", "t k 2");
    start();
    finish("1", { kind: "postponed" }, 1_000);
    expect([start(1_099), leased.deadline]).toEqual([[], 1_100]);
    expect(start(1_100)).toEqual(["1"]);
    expect(leased.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it("are forgotten when the worker is lost, also those that were postponed", () => {
    const { add, start, finish, leased } = bench();
    add("t k 1", "t k 2", "t - 3", "u - 4");
    start();
    finish("4", { kind: "postponed" });
    add("t - 5");
    expect(
      leased
        .clear()
        .map(({ id }) => Number(id))
        .sort(),
    ).toEqual([2, 4, 5]);
    expect([start(1_000), leased.waiting, leased.deadline]).toEqual([[], 0, Number.POSITIVE_INFINITY]);
  });

  it("are forgotten of one topic, when that has no handler any more", () => {
    const { add, start, finish, leased } = bench();
    add("t k 1", "t k 2", "u k 3", "u k 4", "u - 5");
    start();
    add("t - 6", "u - 7");
    const cleared = leased.clear(({ topic }) => topic === "t").map(({ id }) => Number(id));
    expect(cleared.sort()).toEqual([2, 6]);
    finish("1");
    finish("3");
    expect([start(), leased.waitingOf("t"), leased.waiting]).toEqual([["7", "4"], 0, 0]);
  });

  it("are not started again while a handler of before still runs, and end with it, before the next of their key", () => {
    const { add, start, asked, leased } = bench();
    const message = {
      topic: "t",
      recipient: "",
      role: "",
      rank: 1n,
      id: 1n,
      lane: "k",
      failedAttempts: 1,
    } as QueuedMessage;
    add("t k 2");
    const turn = leased.resume(message)!;
    expect([start(), leased.waiting]).toEqual([[], 1]);
    expect(leased.resume({ ...message, rank: 3n } as QueuedMessage)).toBeUndefined();
    leased.finish(turn, failed, 0);
    expect(asked).toEqual(["put off 1 for 200 at 2"]);
    leased.onPutOff(turn);
    expect([start(), leased.waiting]).toEqual([[], 0]);
    const other = leased.resume({ ...message, id: 4n } as QueuedMessage)!;
    add("t k 5");
    leased.finish(other, { kind: "done" }, 0);
    expect([asked.at(-1), start()]).toEqual(["complete 4", ["5"]]);
  });
});
