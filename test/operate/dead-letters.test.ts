import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { insertBytes } from "../../src/jobs-and-peers/store/stored-messages.js";
import { examinedDeadLetters } from "../../src/operating/operate/dead-letters.js";
import { TestWorker } from "../queue/support/test-worker.js";
import { type LeftMessage, leave } from "../store/support/left-messages.js";
import { type World, world } from "../store/support/world.js";
import { slowIt } from "../support/slow-it.js";

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
    await w.operator.query("TRUNCATE hawser_data.dead_letters, hawser_data.queue");
    channel = await w.channelOf(of(`source ${round}`), "listener");
    channelName = `sender:source ${round}:listener`;
  });

  /** Lets messages of the channel die, as its listener does, and resolves with their ids. */
  async function die(letters: readonly LeftMessage[]): Promise<number[]> {
    const known = new Set((await w.store.deadLetters.list()).map(({ id }) => id));
    const dead = letters.map((letter, index) => ({
      ...{ payload: `message ${index + 1}`, listener: "listener", attempts: 5 },
      ...{ errorCode: "handler_failed", errorMessage: "no", ...letter },
    }));
    await leave(w.operator, listener, channel, dead);
    const ids = (await w.store.deadLetters.list()).map(({ id }) => id);
    return ids.filter((id) => !known.has(id)).reverse();
  }

  /** Rows of the queue, in order. */
  async function queued() {
    const { rows } = await w.operator.query(
      `SELECT topic, recipient, convert_from(payload, 'UTF8') AS text, key, origin, message_id AS place, headers
         FROM hawser_data.queue WHERE channel_id IS NOT NULL ORDER BY rank`,
    );
    return rows;
  }

  it("are listed without their payload, the newest first", async () => {
    const [, id] = await die([{}, { payload: "x".repeat(100), headers: [["a", "1"]], attempts: 3 }]);
    const list = await w.store.deadLetters.list();
    expect(list).toHaveLength(2);
    expect(list[0]).toEqual({
      id,
      origin: "queue",
      role: (await w.operator.query("SELECT session_user")).rows[0].session_user,
      source: "@listener",
      enqueuedBy: null,
      sentAs: `${channelName}/7/2`,
      listener: "listener",
      worker: "listener",
      jobId: expect.stringMatching(/^\d+$/),
      topic: "topic",
      payloadBytes: 100,
      errorCode: "handler_failed",
      errorMessage: "no",
      attempts: 3,
      givenBack: 0,
      createdAt: expect.any(Date),
    });
    const whole = await w.store.deadLetters.get(id as number);
    expect(whole).toEqual({
      ...list[0],
      payload: Buffer.from("x".repeat(100)),
      headers: [
        ["message-origin", `sender:source ${round}:`],
        ["a", "1"],
      ],
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
    expect(await ids({ origin: "queue" })).toEqual([three, two, one]);
    expect(await ids({ source: "@listener", topic: "topic" })).toEqual([three, one]);
    expect(await ids({ errorCode: "unsubscribed" })).toEqual([three]);
    expect(await ids({ before: new Date("2021-01-01") })).toEqual([three]);
    expect(await ids({ after: new Date("2021-01-01"), origin: "queue" })).toEqual([two, one]);
    expect(await ids({ origin: "queue", limit: 2 })).toEqual([three, two]);
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

  it("become rows of the queue in order, without an order, and are no dead letters any more", async () => {
    const ids = await die([{ headers: [["a", "1"]], lane: "key" }, { topic: "other" }, {}]);
    const report = await w.store.deadLetters.retry({ ids: [...ids].reverse() });
    expect(report).toEqual(ids.map((id) => ({ id, outcome: "enqueued" })));
    const common = { recipient: "@listener", key: null, origin: `sender:source ${round}`, headers: null };
    expect(await queued()).toEqual([
      { ...common, topic: "topic", text: "message 1", place: `${channelName}/7/1`, headers: [["a", "1"]] },
      { ...common, topic: "other", text: "message 2", place: `${channelName}/7/2` },
      { ...common, topic: "topic", text: "message 3", place: `${channelName}/7/3` },
    ]);
    expect(await w.store.deadLetters.list()).toEqual([]);
  });

  it("are listed by the same place and id when they fail again", async () => {
    const [id] = await die([{}]);
    const [before] = await w.store.deadLetters.list();
    await w.store.deadLetters.retry({ ids: [id!] });
    const worker = await TestWorker.open(w.operator, { name: "listener", topics: ["topic"] });
    const [taken] = await worker.take();
    await worker.giveUp(taken!);
    const [after] = await w.store.deadLetters.list();
    const { jobId, sentAs } = before!;
    expect(after).toMatchObject({ jobId, sentAs, source: "@listener", worker: "listener", enqueuedBy: null });
    expect(after!.id).toBeGreaterThan(id!);
    await w.store.deadLetters.retry({ ids: [after!.id] });
    expect(await queued()).toMatchObject([{ place: `${channelName}/7/1`, origin: `sender:source ${round}` }]);
  });

  it("are retried once by concurrent retries, and discard finds only the rest", async () => {
    const ids = await die(Array.from({ length: 200 }, () => ({})));
    await using other = await openStore({ databaseUrl: `${w.url}?application_name=other` });
    const reports = await Promise.all([
      w.store.deadLetters.retry({ ids }),
      other.deadLetters.retry({ ids: [...ids].reverse() }),
      w.store.deadLetters.retry({ source: "@listener" }),
      other.deadLetters.discard({ ids: ids.slice(0, 100) }),
    ]);
    const done = reports.flat().filter(({ outcome }) => outcome !== "missing");
    const retried = done.filter(({ outcome }) => outcome === "enqueued");
    expect(done.map(({ id }) => id).sort((x, y) => x - y)).toEqual(ids);
    expect(new Set((await queued()).map(({ place }) => place)).size).toBe(retried.length);
    expect(await queued()).toHaveLength(retried.length);
    expect(await w.store.deadLetters.list()).toEqual([]);
  });

  it("are retried in order while new ones are written, which are not retried with them", async () => {
    const ids = await die(Array.from({ length: storeConstants.deadLetterRows + 5 }, () => ({})));
    const retrying = w.store.deadLetters.retry({ all: true });
    const later = await die([{}]);
    const retried = await retrying;
    expect(retried.map(({ id }) => id).slice(0, ids.length)).toEqual(ids);
    const texts = (await queued()).map(({ text }) => text);
    expect(texts.slice(0, 3)).toEqual(["message 1", "message 2", "message 3"]);
    const left = (await w.store.deadLetters.list()).map(({ id }) => id);
    expect([...retried.map(({ id }) => id), ...left]).toEqual([...ids, ...later]);
  });

  slowIt("are retried in batches within the bytes of one insert, however long they are", async () => {
    const long = { payload: Buffer.alloc(insertBytes * 0.6, 1) };
    for (let n = 0; n < 3; n += 1) await die([long]);
    const sizes: number[] = [];
    for await (const batch of w.store.deadLetters.retryInBatches({ all: true })) sizes.push(batch.length);
    expect(sizes.filter((size) => size > 0)).toEqual([1, 1, 1]);
    const { rows } = await w.operator.query("SELECT count(*)::int AS rows FROM hawser_data.queue");
    expect(rows).toEqual([{ rows: 3 }]);
  });

  it("are not pending messages of their sender, which cannot clear them", async () => {
    await w.store.deadLetters.retry({ ids: await die([{}]) });
    const sender = of(`source ${round}`);
    expect((await w.store.pending(sender)).count).toBe(0);
    expect((await w.store.pending(sender)).listeners).toEqual([]);
    await w.store.clearStoredMessages(sender);
    expect(await queued()).toHaveLength(1);
  });

  it("of unsubscribed functions and with invalid topics cannot be retried, and stay", async () => {
    const insert = async (origin: string, topic: string): Promise<number> => {
      const { rows } = await w.operator.query(
        "INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts) VALUES ($1, '', $2, 'x', 'c', 'm', 1) RETURNING id",
        [origin, topic],
      );
      return Number(rows[0].id);
    };
    const ids = [await insert("subscription", "subject"), await insert("queue", "a:b"), ...(await die([{}]))];
    const report = await w.store.deadLetters.retry({ ids: [...ids, 999_999] });
    const refused = (message: string) => ({
      ...{ outcome: "refused", code: "invalid_argument" },
      message: expect.stringContaining(message),
    });
    expect(report).toEqual([
      { id: ids[0], ...refused("a function that is no longer subscribed") },
      { id: ids[1], ...refused("not valid for a message") },
      { id: ids[2], outcome: "enqueued" },
      { id: 999_999, outcome: "missing" },
    ]);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual(ids.slice(0, 2).reverse());
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
       SELECT 'queue', '', 'topic', 'x', 'c', CASE WHEN n % $1 = 1 THEN 'rare' ELSE 'frequent' END, 1
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
       SELECT 'queue', '', 't', 'x', 'c', 'm', 1, now() - make_interval(days => n) FROM generate_series(1, $1::integer) AS n`,
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
