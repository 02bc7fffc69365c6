import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { CommittedCursors, CursorCommit, DeadLetter, Lease } from "../../src/jobs-and-peers/store/index.js";
import { textMessages, type World, world } from "./support/world.js";

// The function has a way of its own for one channel alone.
describe.each([
  { how: "alone", companions: 0 },
  { how: "among others", companions: 2 },
])("committing cursors, each $how", ({ companions }) => {
  let w: World;
  let sender: Lease;
  let listener: Lease;
  let channel: number;
  let channels = 0;
  let rounds = 0;
  let others: number[];

  beforeAll(async () => {
    w = await world();
    sender = await w.take("sender");
    listener = await w.take("listener");
    others = await Promise.all(Array.from({ length: companions }, () => newChannel()));
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    channel = await newChannel();
  });

  function newChannel(listenerName = "listener"): Promise<number> {
    channels += 1;
    return w.channelOf({ name: "sender", sourceTopic: `source ${channels}` }, listenerName);
  }

  async function commit(...commits: CursorCommit[]): Promise<CommittedCursors> {
    rounds += 1;
    const company = others.map((channelId) => ({ channelId, epoch: 1, number: rounds }));
    const result = await w.store.commitCursors(listener, [...company, ...commits]);
    if (result === "fenced") throw new Error("fenced");
    return { ...result, committed: result.committed.filter((key) => !others.includes(key)) };
  }

  function letter(number: number, epoch = 1): DeadLetter {
    return {
      epoch,
      number,
      topic: "topic",
      payload: Buffer.from(`payload ${number}`),
      headers: [["name", "value"]],
      errorCode: "handler_failed",
      errorMessage: `no ${number}\0\ud800`,
      attempts: 5,
    };
  }

  it("moves a cursor forward, and never back", async () => {
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: 0, number: 0 });
    const steps = [
      [5, 1],
      [5, 3],
      [5, 2],
      [4, 100],
      [6, 1],
    ] as const;
    const cursors = [];
    for (const [epoch, number] of steps) {
      expect(await commit({ channelId: channel, epoch, number })).toEqual({ committed: [channel], notOwned: [] });
      cursors.push((await w.store.channel(channel))!.cursor);
    }
    expect(cursors.map(({ epoch, number }) => [epoch, number])).toEqual([
      [5, 1],
      [5, 3],
      [5, 3],
      [5, 3],
      [6, 1],
    ]);
  });

  it("deletes exactly the rows that the cursor has passed", async () => {
    const other = await newChannel();
    for (const key of [channel, other]) {
      await w.store.storeMessages(sender, key, 1, textMessages("a"));
      await w.store.storeMessages(sender, key, 2, textMessages("b", "c"));
      await w.store.storeMessages(sender, key, 4, textMessages("d", "e"));
    }
    // Of a batch that it has passed in part, none is deleted.
    await commit({ channelId: channel, epoch: sender.epoch, number: 4 });
    const [rows, otherRows] = [await rowsOf(channel), await rowsOf(other)];
    expect(rows).toEqual([4, 5]);
    expect(otherRows).toEqual([1, 2, 3, 4, 5]);
    await commit({ channelId: channel, epoch: sender.epoch, number: 5 });
    expect(await rowsOf(channel)).toEqual([]);
    await commit({ channelId: other, epoch: sender.epoch + 1, number: 1 });
    expect(await rowsOf(other)).toEqual([]);
  });

  it("deletes rows that were stored at or below the cursor afterwards", async () => {
    const cursor = { epoch: sender.epoch, number: 2 };
    await commit({ channelId: channel, ...cursor });
    await w.store.storeMessages(sender, channel, 1, textMessages("late", "late"));
    await w.store.storeMessages(sender, channel, 3, textMessages("new"));
    expect(await w.store.deleteRowsUpTo(listener, channel, cursor)).toBe("deleted");
    expect(await rowsOf(channel)).toEqual([3]);
    expect((await w.store.channel(channel))!.cursor).toEqual(cursor);
  });

  it("does not change channels of another listener", async () => {
    const foreign = await newChannel("somebody else");
    await w.store.storeMessages(sender, foreign, 1, textMessages("a"));
    const result = await commit(
      { channelId: foreign, epoch: sender.epoch, number: 1 },
      { channelId: channel, epoch: sender.epoch, number: 1 },
      { channelId: 2_000_000_000, epoch: 1, number: 1 },
    );
    expect(result).toEqual({ committed: [channel], notOwned: [foreign, 2_000_000_000] });
    if (companions === 0) {
      const alone = { channelId: foreign, epoch: sender.epoch, number: 1 };
      expect(await commit(alone)).toEqual({ committed: [], notOwned: [foreign] });
    }
    expect((await w.store.channel(foreign))!.cursor).toEqual({ epoch: 0, number: 0 });
    expect(await rowsOf(foreign)).toEqual([1]);
  });

  it("follows a channel that was handed over", async () => {
    const foreign = await newChannel("somebody else");
    await w.operator.query("UPDATE hawser_peer_data.channels SET owner = 'listener' WHERE channel_id = $1", [foreign]);
    await w.operator.query("UPDATE hawser_peer_data.channels SET owner = 'another' WHERE channel_id = $1", [channel]);
    const commits = [foreign, channel].map((channelId) => ({ channelId, epoch: 1, number: 1 }));
    expect(await commit(...commits)).toEqual({ committed: [foreign], notOwned: [channel] });
    expect(await w.store.channel(foreign)).toMatchObject({ owner: "listener", cursor: { epoch: 1, number: 1 } });
    expect(await w.store.channel(channel)).toMatchObject({ owner: "another" });
  });

  it("writes nothing once another process has taken the name", async () => {
    const old = { name: "listener", epoch: listener.epoch - 1 };
    expect(await w.store.commitCursors(old, [{ channelId: channel, epoch: 1, number: 1 }])).toBe("fenced");
    expect(await w.store.deleteRowsUpTo(old, channel, { epoch: 1, number: 1 })).toBe("fenced");
    expect(await w.store.countAttempt(old, channel)).toBe("fenced");
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: 0, number: 0 });
  });

  it("counts attempts until the cursor moves", async () => {
    expect(await w.store.countAttempt(listener, channel)).toBe(1);
    expect(await w.store.countAttempt(listener, channel)).toBe(2);
    expect(await w.store.channel(channel)).toMatchObject({ attempts: 2, cursor: { epoch: 0, number: 0 } });
    await commit({ channelId: channel, epoch: 1, number: 1 });
    expect(await w.store.channel(channel)).toMatchObject({ attempts: 0 });
    expect(await w.store.countAttempt(listener, channel)).toBe(1);
    await commit({ channelId: channel, epoch: 1, number: 1 });
    expect(await w.store.channel(channel)).toMatchObject({ attempts: 1 });
  });

  it("writes a dead letter unless its message is completed, with a mark if the cursor does not pass it", async () => {
    await commit({ channelId: channel, epoch: 1, number: 4 });
    const deadLetters = [letter(4), letter(5), letter(7), letter(8)];
    await commit({ channelId: channel, epoch: 1, number: 7, deadLetters });
    expect(await lettersOf(channel)).toEqual(["5: payload 5", "7: payload 7", "8: payload 8"]);
    expect((await w.store.channel(channel))!.done).toEqual([{ epoch: 1, number: 8 }]);
    await commit({ channelId: channel, epoch: 1, number: 8, deadLetters: [letter(8)] });
    expect(await lettersOf(channel)).toHaveLength(3);
    expect((await w.store.channel(channel))!.done).toEqual([]);
    const { rows } = await w.operator.query("SELECT * FROM hawser_data.dead_letters WHERE channel_id = $1", [channel]);
    expect(rows[0]).toMatchObject({
      origin: "peer",
      source: (await w.store.channel(channel))!.channelName,
      topic: "topic",
      headers: [["name", "value"]],
      error_code: "handler_failed",
      error_message: "no 5\uFFFD\uFFFD",
      attempts: 5,
    });
  });

  it("marks a message without touching its parked row, and removes only parked messages that are named as done", async () => {
    const messages = [2, 3, 4].map((number) => ({
      message: {
        ...{ position: { epoch: 1, number }, topicId: 1, payload: Buffer.from("x"), fromWire: false },
        ...{ encoding: undefined, headers: undefined, key: undefined },
      },
      attempts: 1,
      dueAt: performance.now(),
    }));
    expect(await w.store.parkMessages(listener, channel, messages)).toBe("parked");
    const state = async () => {
      const { done, parked } = (await w.store.channel(channel))!;
      return [done, parked.map(({ message }) => message.position)].map((all) => all.map(({ number }) => number));
    };
    const unmoved = { channelId: channel, epoch: 0, number: 0 };
    const done = [2, 3, 6].map((number) => ({ epoch: 1, number }));
    await commit({ ...unmoved, done });
    expect(await state()).toEqual([
      [2, 3, 4, 6],
      [2, 3, 4],
    ]);
    await commit({ ...unmoved, done, unparked: [{ epoch: 1, number: 3 }] });
    expect(await state()).toEqual([
      [2, 3, 4, 6],
      [2, 4],
    ]);
    await commit({ ...unmoved, deadLetters: [letter(3), letter(4), letter(6)] });
    expect(await state()).toEqual([[2, 3, 4, 6], [2]]);
    expect(await lettersOf(channel)).toEqual(["4: payload 4"]);
  });

  it("refuses a dead letter whose failed attempts are larger than a peer's may be", async () => {
    const json = JSON.stringify([
      { channel_id: channel, epoch: 1, number: 1, topic: "t", payload_bytes: 0, failures: ["x".repeat(65_536)] },
    ]);
    const sql = "SELECT * FROM hawser.commit_cursors('listener', $1, $2, '{0}', '{0}', $3, '', NULL, false)";
    await expect(w.operator.query(sql, [listener.epoch, [channel], json])).rejects.toThrow(
      'a dead letter of "listener" is refused: its failed attempts are too large',
    );
  });

  it("writes a dead letter once, also when a commit with a lost answer is repeated with more", async () => {
    await commit({ channelId: channel, epoch: 1, number: 1, deadLetters: [letter(1)] });
    await commit({ channelId: channel, epoch: 1, number: 1, deadLetters: [letter(1)] });
    await commit({ channelId: channel, epoch: 1, number: 3, deadLetters: [letter(1), letter(3)] });
    expect(await lettersOf(channel)).toEqual(["1: payload 1", "3: payload 3"]);
  });

  it("keeps the payloads of several channels' dead letters apart", async () => {
    const others = [await newChannel(), await newChannel()];
    await commit(
      { channelId: others[1]!, epoch: 1, number: 2, deadLetters: [letter(1), letter(2)] },
      { channelId: channel, epoch: 1, number: 9 },
      { channelId: others[0]!, epoch: 1, number: 30, deadLetters: [letter(30)] },
    );
    expect(await lettersOf(others[0]!)).toEqual(["30: payload 30"]);
    expect(await lettersOf(others[1]!)).toEqual(["1: payload 1", "2: payload 2"]);
    expect(await lettersOf(channel)).toEqual([]);
  });

  it("lets two commits of the same channels wait for each other without a deadlock", async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, () => newChannel()));
    const commits = Array.from({ length: 30 }, (_, round) => {
      const inSomeOrder = round % 2 === 0 ? keys : [...keys].reverse();
      const deadLetters = round % 3 === 0 ? [letter(round + 1)] : [];
      return commit(...inSomeOrder.map((channelId) => ({ channelId, epoch: 1, number: round + 1, deadLetters })));
    });
    await Promise.all(commits);
    for (const key of keys) expect((await w.store.channel(key))!.cursor).toEqual({ epoch: 1, number: 30 });
  });

  async function rowsOf(channelId: number): Promise<number[]> {
    return (await w.store.drain(channelId, { epoch: 0, number: 0 })).rows.map(({ position }) => position.number);
  }

  async function lettersOf(channelId: number): Promise<string[]> {
    const { rows } = await w.operator.query(
      "SELECT number, convert_from(payload, 'UTF8') AS payload FROM hawser_data.dead_letters WHERE channel_id = $1 ORDER BY id",
      [channelId],
    );
    return rows.map(({ number, payload }) => `${number}: ${payload}`);
  }
});
