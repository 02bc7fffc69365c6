/** Messages that have left their channels for the queue, as those see them who look at jobs. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type Lease, QueuedMessage } from "../../src/jobs-and-peers/store/index.js";
import { leave } from "../store/support/left-messages.js";
import { type World, world } from "../store/support/world.js";
import { TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let listener: Lease;
let channel: number;
let round = 0;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  listener = await w.take("listener");
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.topic_starts, hawser_data.topic_settings",
  );
  channel = await w.channelOf({ name: "shop", sourceTopic: `source ${(round += 1)}` }, "listener");
});

/** Messages with keys leave the channel, as those for any listener of the topic. */
const left = (...keys: (string | undefined)[]): Promise<string[]> =>
  leave(
    client,
    listener,
    channel,
    keys.map((key) => ({
      topic: "t",
      lane: key === undefined ? "" : `k${key}`,
      headers: key === undefined ? [["a", "1"]] : [["message-key", key]],
    })),
  );
const rows = async (text: string, values: unknown[] = []) => (await client.query(text, values)).rows;
const take = async (worker: TestWorker) => (await worker.take()).map(({ payload }) => `${payload}`);

it("are listed, counted and found by the key that their senders gave", async () => {
  await left("one", undefined, "two", "one");
  await client.query("SELECT hawser.enqueue('t', 'x', key => 'one')");
  const all = (await rows("SELECT id, key FROM hawser.jobs('t') ORDER BY id")).map(({ key }) => key);
  expect(all).toEqual(["one", null, "two", "one", "one"]);
  const ids = (await rows("SELECT id FROM hawser_data.queue ORDER BY id")).map(({ id }) => id);
  const ofOne = [ids[4], ids[3], ids[0]];
  for (const topic of ["t", null])
    expect((await rows("SELECT id FROM hawser.jobs($1, of_key => 'one')", [topic])).map(({ id }) => id)).toEqual(ofOne);
  expect(await rows("SELECT id FROM hawser.jobs('t', of_key => 'one', after => $1, max_rows => 1)", [ids[4]])).toEqual([
    { id: ids[3] },
  ]);
  expect(await rows("SELECT state, count::int FROM hawser.count_jobs('t', of_key => 'one')")).toEqual([
    { state: "waiting", count: 3 },
  ]);
  expect((await rows("SELECT key FROM hawser.first_jobs('t', max_rows => 1)"))[0]).toEqual({ key: "one" });
  expect(await rows("SELECT key FROM hawser.job($1)", [ids[2]])).toEqual([{ key: "two" }]);
  const internal = `${channel}:kone`;
  expect(await rows("SELECT id FROM hawser.jobs('t', of_key => $1)", [internal])).toEqual([]);
  expect(await rows("SELECT key, is_for_any FROM hawser.job_message($1)", [ids[0]])).toEqual([
    { key: "one", is_for_any: true },
  ]);
});

it("are cancelled by that key, and what is kept of them has it", async () => {
  await client.query("SELECT hawser.keep_results('t', 60000)");
  await left("one", "two");
  const cancelled = await rows("SELECT state FROM hawser.cancel_messages('peer', 't', 'one', NULL, 0, 10)");
  expect(cancelled).toHaveLength(1);
  expect(await rows("SELECT key, state FROM hawser.jobs('t') ORDER BY id")).toEqual([
    { key: "one", state: "cancelled" },
    { key: "two", state: "waiting" },
  ]);
  await client.query("TRUNCATE hawser_data.results");
});

it("wait for those before them, which hawser.why names by that key", async () => {
  await left("one", "one", undefined, undefined);
  const why = async (id: string) =>
    (await rows("SELECT explanation FROM hawser.why($1) WHERE condition = 'first_of_key'", [id]))[0].explanation;
  const [one, two, three, four] = (await rows("SELECT id FROM hawser_data.queue ORDER BY id")).map(({ id }) => id);
  expect(await why(two)).toBe(`the message ${one} has the key "one", too, and comes first; no worker has it`);
  expect(await why(four)).toBe(`the message ${three} was sent in the same channel, and comes first; no worker has it`);
  expect(await rows("SELECT DISTINCT job_id AS id FROM hawser.why(topic => 't', key => 'one')")).toEqual([{ id: one }]);
});

it("count for the limit of what runs with a key, beside enqueued ones of that key", async () => {
  await client.query("SELECT hawser.limit_topic('t', running_per_key => 1)");
  await left("one", undefined);
  channel = await w.channelOf({ name: "other", sourceTopic: `source ${round}` }, "listener");
  await left("one", "two");
  await client.query("SELECT hawser.enqueue('t', 'x', key => 'one')");
  const worker = await TestWorker.open(client, { concurrency: 10 });
  await take(worker);
  const started = await rows(
    "SELECT s.limit_key FROM hawser_data.topic_starts AS s JOIN hawser_data.queue AS q USING (topic, recipient, role, rank) ORDER BY q.id",
  );
  expect(started.map(({ limit_key }) => limit_key)).toEqual(["one", null, "two"]);
});

it("are found by their place", async () => {
  const [first, second] = await left("one", "two");
  const find = (id: string) => rows("SELECT sent_as, topic, listener FROM hawser.queue_find(NULL, $1, 10)", [id]);
  expect(await find(second!)).toEqual([{ sent_as: second, topic: "t", listener: null }]);
  expect(await find(first!.replace(/1$/, "3"))).toEqual([]);
  expect(await find("nowhere/1/1")).toEqual([]);
});

it("are for their handler what they were when they were sent", async () => {
  const place = `shop:source ${round}:listener/7`;
  await leave(client, listener, channel, [
    {
      topic: "t",
      lane: "=one",
      headers: [
        ["message-key", "one"],
        ["message-id", `${place}/1`],
      ],
    },
    { topic: "t", lane: "", headers: [["message-id", "given"]] },
    {
      topic: "t",
      lane: "",
      headers: [
        ["message-origin", "forged:by:somebody"],
        ["message-id", `${place}/3`],
      ],
    },
  ]);
  await client.query("SELECT hawser.enqueue('t', 'x', key => 'one')");
  const worker = await TestWorker.open(client, { concurrency: 10 });
  const taken = await worker.take();
  const seen = taken.map((row) => {
    const content = { payload: row.payload, headers: row.headers as never, fault: undefined };
    const message = new QueuedMessage(row, row.id, content, undefined);
    const { key, lane, messageId, sentId, sender, enqueuedBy } = message;
    return { key, lane, messageId, sentId, sender, enqueuedBy };
  });
  const sender = { name: "shop", topic: `source ${round}` };
  const plain = { key: undefined, lane: `${channel}:`, sender, enqueuedBy: undefined };
  const own = String(taken[3]!.id);
  expect(seen).toEqual([
    { ...plain, key: "one", lane: `${channel}:=one`, messageId: `${place}/1`, sentId: undefined },
    { ...plain, messageId: "given", sentId: "given" },
    { ...plain, messageId: `${place}/3`, sentId: undefined },
    {
      ...{ key: "one", lane: "one", messageId: own, sentId: own, sender: undefined },
      enqueuedBy: new URL(w.url).username,
    },
  ]);
});
