import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { CommittedCursors, CursorCommit, Lease, LeftMessage } from "../../src/jobs-and-peers/store/index.js";
import { laneOf } from "../../src/jobs-and-peers/store/leaving.js";
import { TestWorker } from "../queue/support/test-worker.js";
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
  let topic: number;

  beforeAll(async () => {
    w = await world();
    sender = await w.take("sender");
    listener = await w.take("listener");
    topic = await w.store.idOfTopic("topic");
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

  /** A message that leaves the channel of the test, or another one, of epoch 1. */
  function leaving(number: number, given: Partial<LeftMessage> = {}): LeftMessage {
    return {
      ...{ channelId: channel, epoch: 1, number, topicId: topic, listener: "listener", lane: "=k" },
      ...{ messageId: `place/${number}`, payload: Buffer.from(`payload ${number}`), headers: [["name", "value"]] },
      ...{ attempts: 0, failures: [], delayMs: 0, isSuspect: false, worker: undefined, dead: undefined },
      ...given,
    };
  }

  /** A message that becomes a dead letter. */
  function dead(number: number, given: Partial<LeftMessage> = {}): LeftMessage {
    const error = { errorCode: "handler_failed", errorMessage: `no ${number}\0\ud800`, stack: "at a" };
    return leaving(number, { attempts: 5, dead: error, ...given });
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
      expect(await commit({ channelId: channel, epoch, number })).toEqual({
        committed: [channel],
        notOwned: [],
        rows: new Map(),
      });
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
    expect(result).toEqual({ committed: [channel], notOwned: [foreign, 2_000_000_000], rows: new Map() });
    if (companions === 0) {
      const alone = { channelId: foreign, epoch: sender.epoch, number: 1 };
      expect(await commit(alone)).toEqual({ committed: [], notOwned: [foreign], rows: new Map() });
    }
    expect((await w.store.channel(foreign))!.cursor).toEqual({ epoch: 0, number: 0 });
    expect(await rowsOf(foreign)).toEqual([1]);
  });

  it("writes nothing once another process has taken the name", async () => {
    const old = { name: "listener", epoch: listener.epoch - 1 };
    expect(await w.store.commitCursors(old, [{ channelId: channel, epoch: 1, number: 1 }])).toBe("fenced");
    expect(await w.store.deleteRowsUpTo(old, channel, { epoch: 1, number: 1 })).toBe("fenced");
    const left = [leaving(1), dead(1)];
    expect(await w.store.commitCursors(old, [{ channelId: channel, epoch: 1, number: 1, left }])).toBe("fenced");
    expect(await w.store.lanesLeft(old, channel, [undefined], ["topic"])).toBe("fenced");
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: 0, number: 0 });
    expect([await queued(channel), await lettersOf(channel)]).toEqual([[], []]);
  });

  it("writes what leaves with the cursor, as rows in their order and as dead letters", async () => {
    const failure = { attempt: 1, at: 0, code: "handler_failed", message: "no" };
    const left = [
      leaving(1, { attempts: 1, failures: [failure], delayMs: 60_000 }),
      leaving(2, { lane: "", listener: undefined, isSuspect: true, headers: [] }),
      dead(4, { failures: [failure] }),
      leaving(5, { payload: new Uint8Array() }),
    ];
    await commit({ channelId: channel, epoch: 1, number: 5, left });
    expect(await queued(channel)).toEqual(["1: payload 1", "2: payload 2", "5: "]);
    expect(await lettersOf(channel)).toEqual(["4: payload 4"]);
    const { channelName, hasRows, cursor } = (await w.store.channel(channel))!;
    expect([hasRows, cursor]).toEqual([true, { epoch: 1, number: 5 }]);
    const origin = channelName.split(":").slice(0, 2).join(":");
    const { rows } = await w.operator.query(
      "SELECT *, due_at > now() AS waits FROM hawser_data.queue WHERE channel_id = $1 ORDER BY id",
      [channel],
    );
    const failures = [{ ...failure, at: "1970-01-01T00:00:00.000Z" }];
    const user = new URL(w.url).username;
    expect(rows).toMatchObject([
      {
        ...{ topic: "topic", recipient: "@listener", role: user, key: `${channel}:=k`, origin, worker: null },
        ...{ headers: [["name", "value"]], attempts: 1, failures, waits: true, is_suspect: false },
      },
      { recipient: "", key: `${channel}:`, headers: [], attempts: 0, failures: null, waits: null, is_suspect: true },
      { key: `${channel}:=k`, due_at: null },
    ]);
    const letters = await w.operator.query("SELECT * FROM hawser_data.dead_letters WHERE channel_id = $1", [channel]);
    expect(letters.rows).toMatchObject([
      {
        ...{ origin: "queue", source: "@listener", topic: "topic", error_code: "handler_failed", role: user },
        ...{ error_message: "no 4\uFFFD\uFFFD", stack: "at a", attempts: 5, failures, worker: "listener" },
        headers: [
          ["message-origin", `${origin}:`],
          ["name", "value"],
        ],
      },
    ]);
    expect(letters.rows[0].job_id).not.toBeNull();
  });

  it("writes what leaves once, also when a commit with a lost answer is repeated with more", async () => {
    const left = [leaving(1), dead(2)];
    await commit({ channelId: channel, epoch: 1, number: 2, left });
    await commit({ channelId: channel, epoch: 1, number: 2, left });
    await commit({ channelId: channel, epoch: 1, number: 4, left: [...left, leaving(3), dead(4)] });
    expect(await queued(channel)).toEqual(["1: payload 1", "3: payload 3"]);
    expect(await lettersOf(channel)).toEqual(["2: payload 2", "4: payload 4"]);
    // Of an older epoch of the sender, too.
    await commit({ channelId: channel, epoch: 2, number: 1, left: [leaving(9), leaving(1, { epoch: 2 })] });
    await commit({ channelId: channel, epoch: 2, number: 1, left: [leaving(10), dead(11)] });
    expect(await queued(channel)).toEqual(["1: payload 1", "3: payload 3", "9: payload 9", "1: payload 1"]);
    expect(await lettersOf(channel)).toHaveLength(2);
  });

  it("keeps apart what leaves several channels", async () => {
    const [one, two] = [await newChannel(), await newChannel()];
    await commit(
      { channelId: two, epoch: 1, number: 2, left: [dead(1, { channelId: two }), leaving(2, { channelId: two })] },
      { channelId: channel, epoch: 1, number: 9 },
      { channelId: one, epoch: 1, number: 30, left: [leaving(30, { channelId: one, payload: Buffer.from("é") })] },
    );
    expect(await Promise.all([one, two, channel].map(queued))).toEqual([["30: é"], ["2: payload 2"], []]);
    expect(await Promise.all([one, two, channel].map(lettersOf))).toEqual([[], ["1: payload 1"], []]);
    const has = await Promise.all([one, two, channel].map(async (key) => (await w.store.channel(key))!.hasRows));
    expect(has).toEqual([true, true, false]);
  });

  it("writes nothing of another listener's channel", async () => {
    const foreign = await newChannel("somebody else");
    const left = [leaving(1, { channelId: foreign }), dead(2, { channelId: foreign })];
    const result = await commit(
      { channelId: foreign, epoch: 1, number: 2, left },
      { channelId: channel, epoch: 1, number: 1, left: [leaving(1)] },
    );
    expect(result).toEqual({ committed: [channel], notOwned: [foreign], rows: new Map() });
    expect(await Promise.all([foreign, channel].map(queued))).toEqual([[], ["1: payload 1"]]);
    expect(await lettersOf(foreign)).toEqual([]);
    expect(await w.store.lanesLeft(listener, foreign, ["k"], ["topic"])).toBe("fenced");
  });

  it("says which rows the worker has whose handlers run, also when it is repeated; none for a worker that is gone", async () => {
    const worker = await TestWorker.open(w.operator, { name: "listener" });
    const left = [
      leaving(1, { worker: worker.id }),
      leaving(2),
      dead(3),
      leaving(4, { worker: worker.id + 1_000n }),
      leaving(5, { worker: worker.id }),
    ];
    const whole = { channelId: channel, epoch: 1, number: 5, left };
    const { rows } = await commit(whole);
    const found = await w.operator.query(
      "SELECT message_id, rank, worker FROM hawser_data.queue WHERE channel_id = $1 ORDER BY id",
      [channel],
    );
    expect(found.rows.map(({ worker: of }) => of && BigInt(of))).toEqual([worker.id, null, null, worker.id]);
    const ranks = new Map(found.rows.map(({ message_id, rank }) => [message_id, BigInt(rank)]));
    const role = new URL(w.url).username;
    const expected = [left[0]!, left[3]!, left[4]!].map((each) => [each, { role, rank: ranks.get(each.messageId)! }]);
    expect([...rows]).toEqual(expected);
    expect([...(await commit(whole)).rows]).toEqual(expected);
    await w.operator.query("DELETE FROM hawser_data.queue WHERE message_id = 'place/1' AND channel_id = $1", [channel]);
    expect([...(await commit(whole)).rows]).toEqual(expected.slice(1));
    await worker.close();
    await commit({ channelId: channel, epoch: 1, number: 6, left: [leaving(6, { worker: worker.id })] });
    const { rows: last } = await w.operator.query(
      "SELECT worker FROM hawser_data.queue WHERE channel_id = $1 AND message_id = 'place/6'",
      [channel],
    );
    expect(last).toEqual([{ worker: null }]);
  });

  it("gives no worker of another process a row", async () => {
    const worker = await TestWorker.open(w.operator, { name: "another" });
    await commit({ channelId: channel, epoch: 1, number: 1, left: [leaving(1, { worker: worker.id })] });
    const { rows } = await w.operator.query("SELECT worker FROM hawser_data.queue WHERE channel_id = $1", [channel]);
    expect(rows).toEqual([{ worker: null }]);
    await worker.close();
  });

  it("has a place for the longest names", async () => {
    const [name, sourceTopic] = ["n".repeat(255), "é".repeat(127)];
    const key = await w.channelOf({ name, sourceTopic }, "listener");
    const { channelName } = (await w.store.channel(key))!;
    const messageId = `${channelName}/${Number.MAX_SAFE_INTEGER}/${Number.MAX_SAFE_INTEGER}`;
    const end = { epoch: Number.MAX_SAFE_INTEGER, number: Number.MAX_SAFE_INTEGER };
    const lane = laneOf("x".repeat(8_192));
    await commit({ channelId: key, ...end, left: [leaving(1, { channelId: key, ...end, messageId, lane })] });
    const { rows } = await w.operator.query("SELECT message_id FROM hawser_data.queue WHERE channel_id = $1", [key]);
    expect(rows).toEqual([{ message_id: messageId }]);
    expect(await w.store.lanesLeft(listener, key, ["x".repeat(8_192), "y".repeat(8_192)], ["topic"])).toEqual({
      ...{ hasRows: true, left: new Set(["x".repeat(8_192)]) },
    });
  });

  it.each([
    [
      "lengths that do not add up",
      { payload_bytes: 2 },
      "the lengths of the payloads do not add up to the 1 bytes given",
    ],
    ["a negative length", { payload_bytes: -1 }, "the lengths of the payloads do not add up to the 1 bytes given"],
    ["no length", { payload_bytes: null }, "the lengths of the payloads do not add up to the 1 bytes given"],
    [
      "failed attempts that are too large",
      { failures: ["x".repeat(65_536)] },
      "its failed attempts or its headers are too large",
    ],
    [
      "headers that are too large",
      { headers: [["a", "x".repeat(16_777_216)]] },
      "its failed attempts or its headers are too large",
    ],
    ["a header that is no pair", { headers: [["a"]] }, "a header is no pair of texts"],
    [
      "a header with a control character",
      { headers: [["a", "\u0007"]] },
      "a header has characters that it may not have",
    ],
    ["headers that are no array", { headers: {} }, "the headers are no array"],
  ])("refuses %s, and writes nothing", async (_, columns, fault) => {
    const one = { channel_id: channel, epoch: 1, number: 1, topic_id: topic, lane: "", message_id: "p", headers: [] };
    const json = JSON.stringify([{ ...one, attempts: 0, payload_bytes: 1, ...columns }]);
    const given = ["listener", listener.epoch, [channel], json];
    const sql = "SELECT * FROM hawser.commit_cursors($1, $2, $3, '{1}', '{1}', $4, 'x')";
    await expect(w.operator.query(sql, given)).rejects.toMatchObject({
      code: "22023",
      message: `a message that leaves its channel to "listener" is refused: ${fault}`,
    });
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: 0, number: 0 });
    expect(await queued(channel)).toEqual([]);
  });

  it("knows of which lanes the queue has rows, and notes when it has none", async () => {
    const left = [leaving(1, { lane: laneOf("a") }), leaving(2, { lane: laneOf(undefined) })];
    await commit({ channelId: channel, epoch: 1, number: 2, left });
    const ask = () => w.store.lanesLeft(listener, channel, ["a", "b", undefined], ["topic"]);
    const none = new Set();
    const end = (number: number) =>
      w.operator.query("DELETE FROM hawser_data.queue WHERE channel_id = $1 AND message_id = $2", [
        channel,
        `place/${number}`,
      ]);
    expect(await ask()).toEqual({ hasRows: true, left: new Set(["a", undefined]) });
    // All messages of a topic that does not count are rows.
    expect(await w.store.lanesLeft(listener, channel, ["a"], [])).toEqual({ hasRows: false, left: none });
    await end(2);
    expect(await ask()).toEqual({ hasRows: true, left: new Set(["a"]) });
    expect((await w.store.channel(channel))!.hasRows).toBe(true);
    await end(1);
    expect(await ask()).toEqual({ hasRows: false, left: none });
    expect((await w.store.channel(channel))!.hasRows).toBe(false);
    await commit({ channelId: channel, epoch: 1, number: 3, left: [dead(3)] });
    expect((await w.store.channel(channel))!.hasRows).toBe(false);
    await commit({ channelId: channel, epoch: 1, number: 4, left: [leaving(4)] });
    await commit({ channelId: channel, epoch: 1, number: 5 });
    expect((await w.store.channel(channel))!.hasRows).toBe(true);
  });

  it("lets two commits of the same channels wait for each other without a deadlock", async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, () => newChannel()));
    const commits = Array.from({ length: 30 }, (_, round) => {
      const inSomeOrder = round % 2 === 0 ? keys : [...keys].reverse();
      const left = (channelId: number) =>
        round % 3 === 0 ? [dead(round + 1, { channelId }), leaving(round + 1, { channelId })] : [];
      const each = (channelId: number) => ({ channelId, epoch: 1, number: round + 1, left: left(channelId) });
      return commit(...inSomeOrder.map(each));
    });
    await Promise.all(commits);
    for (const key of keys) expect((await w.store.channel(key))!.cursor).toEqual({ epoch: 1, number: 30 });
  });

  async function rowsOf(channelId: number): Promise<number[]> {
    return (await w.store.drain(channelId, { epoch: 0, number: 0 })).rows.map(({ position }) => position.number);
  }

  const numberAndPayload = `split_part(message_id, '/', -1) || ': ' || convert_from(payload, 'UTF8') AS text`;

  async function queued(channelId: number): Promise<string[]> {
    const sql = `SELECT ${numberAndPayload} FROM hawser_data.queue WHERE channel_id = $1 ORDER BY id`;
    return (await w.operator.query(sql, [channelId])).rows.map(({ text }) => text);
  }

  async function lettersOf(channelId: number): Promise<string[]> {
    const sql = `SELECT ${numberAndPayload} FROM hawser_data.dead_letters WHERE channel_id = $1 ORDER BY id`;
    return (await w.operator.query(sql, [channelId])).rows.map(({ text }) => text);
  }
});

it("a lane has a name of ASCII, whatever the key is", () => {
  expect([undefined, "", "a=b", "x".repeat(200)].map(laneOf)).toEqual(["", "=", "=a=b", `=${"x".repeat(200)}`]);
  const hashed = ["x".repeat(201), "x".repeat(202), "é", "日", "a\tb"].map(laneOf);
  for (const lane of hashed) expect(lane).toMatch(/^#[0-9a-f]{64}$/);
  expect(new Set(hashed).size).toBe(hashed.length);
});
