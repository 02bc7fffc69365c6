import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { postgresBackoff } from "../../src/foundation/postgres/open-session.js";
import {
  type CommittedCursors,
  type CursorCommit,
  CursorCommitter,
  type Lease,
  type LeaseState,
  type LeftMessage,
} from "../../src/jobs-and-peers/store/index.js";
import { insertBytes, insertRows } from "../../src/jobs-and-peers/store/stored-messages.js";
import { ManualClock } from "../support/manual-clock.js";
import { takeOver, terminateHolder, textMessages, type World, world } from "./support/world.js";

/** Flush that the committer began; the test answers it. */
interface Flush {
  readonly commits: readonly CursorCommit[];
  succeed(result?: CommittedCursors | "fenced"): Promise<void>;
  fail(): Promise<void>;
}

/** Lets everything run that is due by now. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

describe("the group commit of cursors", () => {
  let clock: ManualClock;
  let flushes: Flush[];
  let told: unknown[];
  let writable: boolean;
  let defect: Error | undefined;
  let changeLease: (state: LeaseState) => void;
  let committer: CursorCommitter;

  beforeEach(() => {
    clock = new ManualClock();
    flushes = [];
    told = [];
    writable = true;
    defect = undefined;
    const lease = {
      name: "listener",
      epoch: 1,
      get isWritable() {
        return writable;
      },
      onChange: (callback: (state: LeaseState) => void) => {
        changeLease = callback;
        return () => {};
      },
    } as Lease;
    const store = {
      commitCursors: (_: unknown, commits: readonly CursorCommit[]) =>
        new Promise<CommittedCursors | "fenced">((resolve, reject) => {
          const keys = commits.map(({ channelId }) => channelId);
          flushes.push({
            commits,
            succeed: (result = { committed: keys, notOwned: [], rows: new Map() }) => {
              resolve(result);
              return settled();
            },
            fail: () => {
              reject(new Error("no database"));
              return settled();
            },
          });
        }),
    };
    committer = new CursorCommitter(lease, store, {
      clock,
      events: {
        onCommitted: (cursors) => {
          if (defect !== undefined) throw defect;
          told.push(["committed", ...cursors.map((c) => `${c.channelId}:${c.number}`)]);
        },
        onFenced: () => told.push("fenced"),
        onNotOwned: (channelId) => told.push(["not owned", channelId]),
        onError: (error) => told.push(["error", (error as Error).message]),
      },
    });
  });

  function commit(channelId: number, epoch: number, number: number, ...left: LeftMessage[]): void {
    committer.commit(channelId, { epoch, number }, left);
  }

  function numbersOf(flush: Flush | undefined): string[] {
    return flush!.commits.map(({ channelId, epoch, number }) => `${channelId}:${epoch}:${number}`);
  }

  function leaving(channelId: number, number: number, bytes = 1): LeftMessage {
    return {
      ...{ channelId, epoch: 1, number, topicId: 1, listener: undefined, lane: "", messageId: `${number}` },
      ...{ payload: Buffer.alloc(bytes), headers: [], attempts: 0, failures: [], delayMs: 0, isSuspect: false },
      ...{ worker: undefined, dead: undefined },
    };
  }

  const leftOf = (flush: Flush): number[] => flush.commits.flatMap(({ left = [] }) => left.map(({ number }) => number));

  it("starts at once, with the newest cursors of the tick", async () => {
    commit(1, 1, 1);
    commit(2, 1, 7);
    commit(1, 1, 2);
    await settled();
    expect(flushes.map(numbersOf)).toEqual([["1:1:2", "2:1:7"]]);
    await flushes[0]!.succeed();
    expect(told).toEqual([["committed", "1:2", "2:7"]]);
  });

  it("goes on after a defect of those who hear of it", async () => {
    commit(1, 1, 1);
    await settled();
    defect = new Error("a defect");
    await flushes[0]!.succeed();
    expect(told).toEqual([["error", "a defect"]]);
    defect = undefined;
    commit(1, 1, 2);
    clock.advance(postgresBackoff.maxMs);
    await settled();
    await flushes[1]!.succeed();
    expect(told.at(-1)).toEqual(["committed", "1:2"]);
  });

  it("runs one flush at a time, and starts the next when it is done", async () => {
    commit(1, 1, 1);
    await settled();
    for (let number = 2; number <= 5; number++) commit(1, 1, number);
    commit(2, 1, 1);
    await settled();
    expect(flushes).toHaveLength(1);
    await flushes[0]!.succeed();
    expect(numbersOf(flushes[1])).toEqual(["1:1:5", "2:1:1"]);
    await flushes[1]!.succeed();
    expect(told).toEqual([
      ["committed", "1:1"],
      ["committed", "1:5", "2:1"],
    ]);
    commit(2, 1, 2);
    await settled();
    expect(flushes).toHaveLength(3);
  });

  it("retries after a failure with growing delays and the newest values", async () => {
    commit(1, 1, 1, leaving(1, 1));
    await settled();
    const waits: number[] = [];
    for (let attempt = 1; attempt <= 8; attempt++) {
      commit(1, 1, attempt + 1);
      await flushes.at(-1)!.fail();
      const before = clock.now();
      while (flushes.length === attempt) clock.advance(10);
      waits.push(clock.now() - before);
    }
    expect(waits).toEqual([50, 100, 200, 400, 800, 1600, 2000, 2000]);
    expect(numbersOf(flushes.at(-1))).toEqual(["1:1:9"]);
    expect(leftOf(flushes.at(-1)!)).toEqual([1]);
    await flushes.at(-1)!.succeed();
    expect(told.at(-1)).toEqual(["committed", "1:9"]);
    expect(told.filter((one) => Array.isArray(one) && one[0] === "error")).toHaveLength(8);
    commit(1, 1, 10);
    await settled();
    await flushes.at(-1)!.fail();
    clock.advance(postgresBackoff.minMs);
    expect(flushes).toHaveLength(11);
  });

  it("writes much that leaves in separate statements, in order, each with the cursor that passes it", async () => {
    // Beside their texts.
    const half = insertBytes / 2 - 1_000;
    commit(1, 1, 3, ...[1, 2, 3].map((number) => leaving(1, number, half)));
    commit(1, 1, 5, leaving(1, 4, 2 * half));
    commit(1, 1, 6);
    commit(2, 1, 1, leaving(2, 1, half));
    commit(3, 1, 1);
    for (let flush = 0; flush < 3; flush++) {
      await settled();
      await flushes[flush]!.succeed();
    }
    expect(flushes.map(numbersOf)).toEqual([["1:1:2", "3:1:1"], ["1:1:3", "2:1:1"], ["1:1:6"]]);
    expect(flushes.map(leftOf)).toEqual([[1, 2], [3, 1], [4]]);
  });

  it("writes at most so many rows in a statement", async () => {
    const numbers = Array.from({ length: insertRows + 1 }, (_, index) => index + 1);
    commit(1, 1, insertRows + 1, ...numbers.map((number) => leaving(1, number)));
    commit(2, 1, 1, leaving(2, 1));
    await settled();
    await flushes[0]!.succeed();
    expect(flushes.map(numbersOf)).toEqual([[`1:1:${insertRows}`], [`1:1:${insertRows + 1}`, "2:1:1"]]);
  });

  it("repeats what left with a failed flush, in front of what came later, and moves no cursor beyond what has not left", async () => {
    const half = insertBytes / 2 - 1_000;
    commit(1, 1, 2, leaving(1, 1, half), leaving(1, 2, half));
    await settled();
    commit(1, 1, 4, leaving(1, 4, half));
    commit(1, 1, 5);
    await flushes[0]!.fail();
    clock.advance(postgresBackoff.minMs);
    expect([numbersOf(flushes[1]), leftOf(flushes[1]!)]).toEqual([["1:1:2"], [1, 2]]);
    await flushes[1]!.succeed();
    expect([numbersOf(flushes[2]), leftOf(flushes[2]!)]).toEqual([["1:1:5"], [4]]);
    await flushes[2]!.succeed();
    expect(told.filter((one) => Array.isArray(one) && one[0] === "committed")).toEqual([
      ["committed", "1:2"],
      ["committed", "1:5"],
    ]);
  });

  it("starts no flush while the lease is not writable, and continues when it is again", async () => {
    writable = false;
    commit(1, 1, 1);
    await settled();
    clock.advance(60_000);
    expect(flushes).toHaveLength(0);
    writable = true;
    changeLease("held");
    expect(flushes).toHaveLength(1);
    await flushes[0]!.succeed();
    writable = false;
    commit(1, 1, 2);
    await settled();
    writable = true;
    clock.advance(postgresBackoff.maxMs);
    expect(flushes).toHaveLength(2);
  });

  it("reports fencing once, and ignores later commits", async () => {
    commit(1, 1, 1);
    await settled();
    const drained = committer.drain();
    await flushes[0]!.succeed("fenced");
    expect(await drained).toBe(false);
    commit(1, 1, 2);
    changeLease("lost");
    await settled();
    expect(flushes).toHaveLength(1);
    expect(told).toEqual(["fenced"]);
    expect(await committer.drain()).toBe(false);
  });

  it("ends with its lease, also during a flush", async () => {
    commit(1, 1, 1);
    await settled();
    const drained = committer.drain();
    changeLease("lost");
    expect(told).toEqual(["fenced"]);
    await flushes[0]!.fail();
    expect(await drained).toBe(false);
    clock.advance(60_000);
    expect(flushes).toHaveLength(1);
  });

  it("reports channels of another listener instead of committing them", async () => {
    commit(1, 1, 1);
    commit(2, 1, 1);
    await settled();
    commit(1, 1, 2);
    await flushes[0]!.succeed({ committed: [2], notOwned: [1], rows: new Map() });
    expect(told).toEqual([
      ["committed", "2:1"],
      ["not owned", 1],
    ]);
    expect(flushes).toHaveLength(1);
  });

  it("drains at once when idle, otherwise when all is committed", async () => {
    expect(await committer.drain()).toBe(true);
    commit(1, 1, 1);
    let drained = false;
    void committer.drain().then(() => {
      drained = true;
    });
    await settled();
    commit(1, 1, 2);
    await flushes[0]!.succeed();
    expect(drained).toBe(false);
    await flushes[1]!.succeed();
    expect(drained).toBe(true);
  });

  it("discards waiting commits when it is closed", async () => {
    commit(1, 1, 1);
    committer.close();
    await settled();
    clock.advance(60_000);
    expect(flushes).toHaveLength(0);
    expect(await committer.drain()).toBe(true);
  });
});

describe("the group commit on Postgres", () => {
  let w: World;
  beforeEach(async () => {
    w = await world();
  });
  afterEach(() => w[Symbol.asyncDispose]());

  it("commits many channels in few statements, and continues after a lost database session", async () => {
    const sender = await w.take("sender");
    const listener = await w.take("listener");
    const keys: number[] = [];
    for (let n = 0; n < 50; n++) keys.push(await w.channelOf({ name: "sender", sourceTopic: `t${n}` }, "listener"));
    for (const key of keys) await w.store.storeMessages(sender, key, 1, textMessages("a", "b"));
    const committed = new Map<number, number>();
    let groups = 0;
    const committer = w.store.cursorCommitter(listener, {
      onCommitted: (cursors) => {
        groups += 1;
        for (const { channelId, number } of cursors) committed.set(channelId, number);
      },
      onFenced: () => expect.unreachable("nobody took the name"),
      onNotOwned: () => expect.unreachable("all channels are its own"),
      onError: () => {},
    });
    for (let number = 1; number <= 100; number++) {
      for (const key of keys) committer.commit(key, { epoch: sender.epoch, number });
      if (number === 50) await terminateHolder(w.operator, "listener");
      if (number % 10 === 0) await settled();
    }
    expect(await committer.drain()).toBe(true);
    expect([...committed.values()]).toEqual(keys.map(() => 100));
    expect(groups).toBeLessThan(100);
    const left = await w.operator.query("SELECT count(*)::integer AS rows FROM hawser_peer_data.stored_messages");
    expect(left.rows).toEqual([{ rows: 0 }]);

    await takeOver(w.operator, "listener");
    const fenced = new Promise<void>((resolve) => {
      const late = w.store.cursorCommitter(listener, {
        onCommitted: () => expect.unreachable("another has the name"),
        onFenced: resolve,
        onNotOwned: () => {},
        onError: () => {},
      });
      late.commit(keys[0]!, { epoch: sender.epoch, number: 101 });
    });
    await fenced;
    expect((await w.store.channel(keys[0]!))!.cursor).toEqual({ epoch: sender.epoch, number: 100 });
  });
});
