import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { DeadLetter, Lease } from "../../src/jobs-and-peers/store/index.js";
import { insertBytes } from "../../src/jobs-and-peers/store/stored-messages.js";
import { examinedDeadLetters } from "../../src/operating/operate/dead-letters.js";
import { type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";

const start = { epoch: 0, number: 0 };
const fixed = 1;

describe("dead letters", () => {
  let w: World;
  let listener: Lease;
  let channel: number;
  let channelName: string;
  let round = 0;
  const of = (sourceTopic: string) => ({ name: "sender", sourceTopic });

  beforeAll(async () => {
    w = await world();
    listener = await w.take("listener");
    for (const topic of ["topic", "other"]) await w.store.idOfTopic(topic);
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    round += 1;
    await w.operator.query("DELETE FROM hawser_data.dead_letters");
    channel = await w.channelOf(of(`source ${round}`), "listener");
    channelName = `sender:source ${round}:listener`;
  });

  /** Lets messages die, as a listener does, and resolves with their ids. */
  async function die(
    letters: readonly Partial<DeadLetter>[],
    { key = channel, lease = listener, epoch = 7 } = {},
  ): Promise<number[]> {
    const { number: before } = (await w.store.channel(key))!.cursor;
    const dead = letters.map((letter, index) => ({
      epoch,
      number: before + index + 1,
      topic: "topic",
      payload: Buffer.from(`message ${before + index + 1}`),
      headers: [],
      errorCode: "handler_failed",
      errorMessage: "no",
      attempts: 5,
      ...letter,
    }));
    const known = new Set((await w.store.deadLetters.list()).map(({ id }) => id));
    const number = before + letters.length;
    const result = await w.store.commitCursors(lease, [{ channelId: key, epoch, number, deadLetters: dead }]);
    expect(result).toEqual({ committed: [key], notOwned: [] });
    const ids = (await w.store.deadLetters.list()).map(({ id }) => id);
    return ids.filter((id) => !known.has(id)).reverse();
  }

  /** Reads the stored messages of the channel's retry channel. */
  async function retryChannel(key = channel) {
    const { rows } = await w.operator.query("SELECT channel_id FROM hawser_peer_data.channels WHERE retry_of = $1", [
      key,
    ]);
    const channelId: number | undefined = rows[0]?.channel_id;
    if (channelId === undefined) return undefined;
    const { rows: stored } = await w.store.drain(channelId, start);
    return {
      channelId,
      stored: stored.map(({ position, payload }) => ({ ...position, text: Buffer.from(payload).toString() })),
    };
  }

  it("are listed without their payload, the newest first", async () => {
    const [, id] = await die([{}, { payload: Buffer.alloc(100), headers: [["a", "1"]], attempts: 3 }]);
    const list = await w.store.deadLetters.list();
    expect(list).toHaveLength(2);
    expect(list[0]).toEqual({
      id,
      origin: "peer",
      role: (await w.operator.query("SELECT session_user")).rows[0].session_user,
      source: channelName,
      enqueuedBy: null,
      listener: "listener",
      worker: "listener",
      jobId: null,
      topic: "topic",
      payloadBytes: 100,
      errorCode: "handler_failed",
      errorMessage: "no",
      attempts: 3,
      givenBack: 0,
      createdAt: expect.any(Date),
      retried: false,
    });
    const whole = await w.store.deadLetters.get(id as number);
    expect(whole).toEqual({
      ...list[0],
      payload: Buffer.alloc(100),
      headers: [["a", "1"]],
      stack: null,
      failures: [],
      edit: null,
    });
    expect(await w.store.deadLetters.get(1_000_000)).toBeUndefined();
  });

  it("are filtered by id, origin, source, topic, error, time and number", async () => {
    const [one, two, three] = await die([{}, { topic: "other" }, { errorCode: "unsubscribed" }]);
    await w.operator.query(
      "INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts) VALUES ('subscription', 'public.f', 'subject', 'x', 'P0001', 'no', 1)",
    );
    await w.operator.query("UPDATE hawser_data.dead_letters SET created_at = '2020-01-01T00:00:00Z' WHERE id = $1", [
      three,
    ]);
    const ids = async (filter: Parameters<typeof w.store.deadLetters.list>[0]) =>
      (await w.store.deadLetters.list(filter)).map(({ id }) => id);
    expect(await ids({ ids: [two as number, 999_999] })).toEqual([two]);
    expect(await ids({ origin: "peer" })).toEqual([three, two, one]);
    expect(await ids({ source: channelName, topic: "topic" })).toEqual([three, one]);
    expect(await ids({ errorCode: "unsubscribed" })).toEqual([three]);
    expect(await ids({ before: new Date("2021-01-01") })).toEqual([three]);
    expect(await ids({ after: new Date("2021-01-01"), origin: "peer" })).toEqual([two, one]);
    expect(await ids({ origin: "peer", limit: 2 })).toEqual([three, two]);
    expect(await ids({ source: "public.f" })).toHaveLength(1);
    expect(await ids({ ids: [] })).toEqual([]);
  });

  it.each([
    [{ ids: [0] }, "an id is a positive integer"],
    [{ ids: [1.5] }, "an id is a positive integer"],
    [{ origin: "elsewhere" }, "origin"],
    [{ before: new Date("nonsense") }, "before is not a valid date"],
    [{ limit: 0 }, "limit 0"],
  ])("cannot be filtered by %j", async (filter, message) => {
    await expect(w.store.deadLetters.list(filter)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(message),
    });
  });

  it("become stored messages of their own channel in order, and are no dead letters any more", async () => {
    const ids = await die([{ headers: [["a", "1"]] }, { topic: "other" }, {}]);
    const report = await w.store.deadLetters.retry({ ids: [...ids].reverse() });
    const retry = await retryChannel();
    expect(report).toEqual(ids.map((id) => ({ id, outcome: "retried", listener: "listener" })));
    expect(retry?.stored).toEqual([1, 2, 3].map((number) => ({ epoch: fixed, number, text: `message ${number}` })));
    const { rows } = await w.store.drain(retry?.channelId as number, start);
    expect(rows[0]?.headers).toEqual([
      ["a", "1"],
      ["message-id", expect.stringMatching(/^sender:source \d+:listener\/\d+\/1$/)],
    ]);
    expect(await w.store.topicOfId(rows[1]?.topicId as number)).toBe("other");
    expect(await w.store.deadLetters.list()).toEqual([]);
    expect(await w.store.channel(retry?.channelId as number)).toMatchObject({
      senderName: "sender",
      sourceTopic: `source ${round}`,
      owner: "listener",
    });
  });

  it("are numbered after the last number, which is never reused", async () => {
    await w.store.deadLetters.retry({ ids: await die([{}, {}]) });
    const { channelId = 0 } = (await retryChannel()) ?? {};
    await w.store.commitCursors(listener, [{ channelId, epoch: fixed, number: 1 }]);
    // Even where somebody deleted what the listener may have taken already.
    await w.operator.query("DELETE FROM hawser_peer_data.stored_messages WHERE channel_id = $1", [channelId]);
    await w.store.deadLetters.retry({ ids: await die([{}]) });
    expect((await retryChannel())?.stored.map(({ number }) => number)).toEqual([3]);
  });

  it("return over the same channel when they fail again, and are listed under the original one", async () => {
    await w.store.deadLetters.retry({ ids: await die([{}]) });
    const { channelId = 0 } = (await retryChannel()) ?? {};
    const [id] = await die([{}], { key: channelId, epoch: fixed });
    expect(await w.store.deadLetters.list({ source: channelName })).toMatchObject([
      { id, source: channelName, listener: "listener", retried: true },
    ]);
    await w.store.deadLetters.retry({ ids: [id as number] });
    expect((await retryChannel())?.stored.map(({ number }) => number)).toEqual([2]);
  });

  it("are retried once by concurrent retries, and discard finds only the rest", async () => {
    const ids = await die(Array.from({ length: 200 }, () => ({})));
    await using other = await openStore({ databaseUrl: `${w.url}?application_name=other` });
    const reports = await Promise.all([
      w.store.deadLetters.retry({ ids }),
      other.deadLetters.retry({ ids: [...ids].reverse() }),
      w.store.deadLetters.retry({ source: channelName }),
      other.deadLetters.discard({ ids: ids.slice(0, 100) }),
    ]);
    const done = reports.flat().filter(({ outcome }) => outcome !== "missing");
    const retried = done.filter(({ outcome }) => outcome === "retried");
    expect(done.map(({ id }) => id).sort((x, y) => x - y)).toEqual(ids);
    const stored = (await retryChannel())?.stored.map(({ number }) => number) ?? [];
    expect(stored).toEqual(Array.from({ length: retried.length }, (_, n) => n + 1));
    expect(await w.store.deadLetters.list()).toEqual([]);
  });

  it("are retried in order while new ones are written, which are not retried with them", async () => {
    const ids = await die(Array.from({ length: storeConstants.deadLetterRows + 5 }, () => ({})));
    const retrying = w.store.deadLetters.retry({ all: true });
    const later = await die([{}]);
    const retried = await retrying;
    expect(retried.map(({ id }) => id).slice(0, ids.length)).toEqual(ids);
    const numbers = (await retryChannel())?.stored.map(({ text }) => text);
    expect(numbers?.slice(0, 3)).toEqual(["message 1", "message 2", "message 3"]);
    const left = (await w.store.deadLetters.list()).map(({ id }) => id);
    expect([...retried.map(({ id }) => id), ...left]).toEqual([...ids, ...later]);
  });

  slowIt("are retried in batches within the bytes of one insert, however long they are", async () => {
    const long = { payload: Buffer.alloc(insertBytes * 0.6, 1) };
    await die([long, long, long]);
    const sizes: number[] = [];
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=batches` });
    const stop = store.on("announced", () => sizes.push(1));
    await store.listenForMessages("listener");
    expect(await store.deadLetters.retry({ all: true })).toHaveLength(3);
    // Each batch is announced: one letter fits each.
    await eventually("three announcements", () => sizes.length === 3);
    stop();
    const { channelId = 0 } = (await retryChannel()) ?? {};
    expect(await store.backlogOf(channelId, start)).toBe(3);
  });

  it("follow their channel to its new owner together with the retry channel", async () => {
    const lost = await w.take(`lost-${round}`);
    const key = await w.channelOf(of("source"), `lost-${round}`);
    const ids = await die([{}, {}], { key, lease: lost });
    await w.store.deadLetters.retry({ ids: [ids[0] as number] });
    await lost.release({ clean: false });
    const handed = await w.store.reassign({ from: `lost-${round}`, to: `heir-${round}`, channelIds: [key] });
    expect(handed.map(({ stored }) => stored)).toEqual([0, 1]);
    expect(await w.store.deadLetters.retry({ ids: [ids[1] as number] })).toMatchObject([{ listener: `heir-${round}` }]);
    expect((await retryChannel(key))?.stored).toHaveLength(2);
    expect(await w.store.channelsOwnedBy(`lost-${round}`)).toEqual([]);
    // A retry channel that is made only now has the new owner, too.
    const late = await w.channelOf(of("late"), `lost-${round}`);
    const again = await w.take(`lost-${round}`);
    const lateIds = await die([{}], { key: late, lease: again });
    await again.release({ clean: false });
    await w.store.reassign({ from: `lost-${round}`, to: `heir-${round}` });
    expect(await w.store.deadLetters.retry({ ids: lateIds })).toMatchObject([{ listener: `heir-${round}` }]);
    expect(await w.store.ownedChannels(`heir-${round}`)).toMatchObject([
      { channelId: key, madeFor: `lost-${round}`, stored: 0 },
      { madeFor: `lost-${round}`, stored: 2, topics: ["topic"] },
      { channelId: late, madeFor: `lost-${round}`, stored: 0 },
      { madeFor: `lost-${round}`, stored: 1, topics: ["topic"] },
    ]);
  });

  it("wait for a pending hand-over, and go to the new owner", async () => {
    const lost = await w.take(`lost-${round}`);
    const key = await w.channelOf(of("source"), `lost-${round}`);
    const ids = await die([{}], { key, lease: lost });
    await lost.release({ clean: false });
    const [taker, retrier] = [await w.connect(), await w.connect()];
    const { rows } = await retrier.query("SELECT pg_backend_pid() AS pid");
    await taker.query("BEGIN");
    await taker.query("SELECT FROM hawser.reassign_channels($1, $2, false, true, '{}')", [
      `lost-${round}`,
      `heir-${round}`,
    ]);
    const retrying = retrier.query("SELECT owner FROM hawser.retry_dead_letters($1::bigint[])", [ids]);
    await w.waitsForLock(rows[0].pid);
    await taker.query("COMMIT");
    expect((await retrying).rows).toEqual([{ owner: `heir-${round}` }]);
    expect((await w.store.ownedChannels(`heir-${round}`)).map(({ stored }) => stored)).toEqual([0, 1]);
  });

  it("are not pending messages of their sender, which cannot clear them", async () => {
    await w.store.deadLetters.retry({ ids: await die([{}]) });
    const sender = of(`source ${round}`);
    expect((await w.store.pending(sender)).count).toBe(0);
    expect((await w.store.pending(sender)).listeners).toEqual([]);
    await w.store.clearStoredMessages(sender);
    expect((await retryChannel())?.stored).toHaveLength(1);
  });

  it("of unsubscribed functions, unknown channels and unknown topics cannot be retried, and stay", async () => {
    const insert = async (origin: string, topic: string, key: number | null): Promise<number> => {
      const { rows } = await w.operator.query(
        "INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, channel_id) VALUES ($1, 's', $2, 'x', 'c', 'm', 1, $3) RETURNING id",
        [origin, topic, key],
      );
      return Number(rows[0].id);
    };
    const ids = [
      await insert("subscription", "subject", null),
      await insert("peer", "topic", 1_000_000),
      await insert("peer", "topic id 99", channel),
      ...(await die([{}])),
    ];
    const report = await w.store.deadLetters.retry({ ids: [...ids, 999_999] });
    const refused = (message: string) => ({
      ...{ outcome: "refused", code: "invalid_argument" },
      message: expect.stringContaining(message),
    });
    expect(report).toEqual([
      { id: ids[0], ...refused("a function that is no longer subscribed") },
      { id: ids[1], ...refused("a channel that this database does") },
      { id: ids[2], ...refused("a topic that this database does") },
      { id: ids[3], outcome: "retried", listener: "listener" },
      { id: 999_999, outcome: "missing" },
    ]);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual(ids.slice(0, 3).reverse());
  });

  it("stay if their topic is made while they are retried", async () => {
    const [first] = await die([{}]);
    const one = channel;
    channel = await w.channelOf(of(`beside ${round}`), "listener");
    const [late] = await die([{ topic: `late ${round}` }]);
    const maker = await w.connect();
    // Has the lock of all who make keys, for which the retry waits once it has chosen the retry channels to make.
    await maker.query("BEGIN");
    await maker.query("SELECT hawser.id_of_topic($1)", [`late ${round}`]);
    const retrier = await w.connect();
    const pid = (await retrier.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")).rows[0]!.pid;
    const retried = retrier.query("SELECT id::integer, refused FROM hawser.retry_dead_letters($1) ORDER BY id", [
      [first, late],
    ]);
    await w.waitsForLock(pid);
    await maker.query("COMMIT");
    expect((await retried).rows).toEqual([
      { id: first, refused: null },
      { id: late, refused: "topic" },
    ]);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual([late]);
    expect((await retryChannel(one))?.stored).toHaveLength(1);
    expect(await w.store.deadLetters.retry({ ids: [late!] })).toMatchObject([{ id: late, outcome: "retried" }]);
    expect((await retryChannel())?.stored).toHaveLength(1);
  });

  it("are discarded if they are selected, and only then", async () => {
    const [one, two, three] = (await die([{}, {}, {}])) as [number, number, number];
    expect(await w.store.deadLetters.discard({ ids: [two, 999_999] })).toEqual([
      { id: two, outcome: "discarded" },
      { id: 999_999, outcome: "missing" },
    ]);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual([three, one]);
    expect(await w.store.deadLetters.discard({ all: true, limit: 1 })).toEqual([{ id: one, outcome: "discarded" }]);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual([three]);
  });

  it("are searched part by part, however rare those that match are", async () => {
    await w.operator.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
       SELECT 'peer', 's:t:l', 'topic', 'x', 'c', CASE WHEN n % $1 = 1 THEN 'rare' ELSE 'frequent' END, 1
         FROM generate_series(1, 2 * $1 + 1) AS n ORDER BY n`,
      [examinedDeadLetters],
    );
    const all = (await w.store.deadLetters.list({ cause: "rare" })).reverse();
    expect(all).toHaveLength(3);
    const found: number[] = [];
    const [, second] = all;
    for await (const outcomes of w.store.deadLetters.discardInBatches({ cause: "rare", throughId: second!.id })) {
      found.push(...outcomes.map(({ id }) => id));
    }
    expect(found).toEqual(all.slice(0, 2).map(({ id }) => id));
    await expect(w.store.deadLetters.discard({ cause: "rare" })).resolves.toMatchObject([{ outcome: "discarded" }]);
    await expect(w.store.deadLetters.discard({ throughId: -1 })).rejects.toThrow("an id is a positive integer");
  });

  it("are not all selected by an empty selection", async () => {
    await die([{}]);
    for (const selection of [{}, { limit: 5 }, { topic: undefined }]) {
      await expect(w.store.deadLetters.retry(selection)).rejects.toMatchObject({ code: "invalid_argument" });
      await expect(w.store.deadLetters.discard(selection)).rejects.toMatchObject({ code: "invalid_argument" });
    }
    expect(await w.store.deadLetters.list()).toHaveLength(1);
  });

  it("expire after the given days, the oldest first, one batch at a time", async () => {
    await w.operator.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
       SELECT 'peer', 's', 't', 'x', 'c', 'm', 1, now() - make_interval(days => n) FROM generate_series(1, $1::integer) AS n`,
      [storeConstants.deadLetterRows + 40],
    );
    expect(await w.store.deadLetters.expire()).toBe(storeConstants.deadLetterRows);
    expect(await w.store.deadLetters.expire()).toBe(11);
    expect(await w.store.deadLetters.expire()).toBe(0);
    const list = await w.store.deadLetters.list();
    expect(list).toHaveLength(29);
    expect(Math.min(...list.map(({ createdAt }) => createdAt.getTime()))).toBeGreaterThan(Date.now() - 30 * 86_400_000);
  });

  it.each(["retry_dead_letters", "discard_dead_letters"])("are left alone by the retention during %s", async (fn) => {
    const busy = await w.connect();
    await busy.query("BEGIN");
    await busy.query(`SELECT FROM hawser.${fn}('{}')`);
    expect(await w.store.deadLetters.expire()).toBeUndefined();
    await busy.query("COMMIT");
    expect(await w.store.deadLetters.expire()).toBe(0);
  });
});
