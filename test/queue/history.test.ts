/** History of the queue: what is kept of handled messages, and who is notified of an end. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import { type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { type Taken, TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let work: pg.Client;
let worker: TestWorker;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  work = await w.connect();
  await client.query("SELECT hawser.keep_results('t', 60000)");
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query("TRUNCATE hawser_data.queue, hawser_data.dead_letters, hawser_data.results, hawser_data.workers");
  worker = await TestWorker.open(work);
});

const put = async (rest = ""): Promise<string> =>
  (await client.query(`SELECT hawser.enqueue('t', 'x'::text${rest}) AS id`)).rows[0].id;
const place = ({ topic, recipient, role, rank }: Taken) => [topic, recipient, role, String(rank)];
const kept = async (id: string) =>
  (await client.query("SELECT * FROM hawser_data.results WHERE id = $1", [id])).rows[0];
const marked = ", key => 'k', headers => '{\"order\": \"17\"}'";

it("has the key and the headers of a message, however it ended", async () => {
  const ids = [
    await put(marked),
    await put(marked),
    await put(marked),
    await put(`${marked}, deliver_at => now() + interval '1 hour'`),
  ];
  const [first, second, third] = await worker.take();
  await work.query("SELECT hawser.done($1, $2, $3, $4, false, 42, '7')", place(first!));
  const lists = place(second!).map((part) => [part]);
  await work.query("SELECT hawser.done_batch($1, $2, $3, $4, false, $5)", [...lists, `[["${second!.rank}", 43, "8"]]`]);
  await worker.giveUp(third!);
  await client.query("SELECT hawser.cancel($1)", [ids[3]]);
  const found = await Promise.all(ids.map(kept));
  expect(found.map(({ state, duration_ms: ms, result }) => [state, ms, result])).toEqual([
    ["done", "42", "7"],
    ["done", "43", "8"],
    ["dead", null, null],
    ["cancelled", null, null],
  ]);
  for (const row of found) expect(row).toMatchObject({ key: "k", headers: [["order", "17"]], topic: "t" });
  expect(found.map(({ attempts }) => attempts)).toEqual([1, 1, 0, 0]);
  expect(found[0].listener).not.toBeNull();
});

it("has a message whose worker says nothing of its result", async () => {
  const ids = [await put(), await put()];
  const [first, second] = await worker.take();
  await worker.done(first!);
  await worker.doneBatch(second!);
  for (const id of ids) expect(await kept(id)).toMatchObject({ state: "done", duration_ms: null, result: null });
});

it("notifies nobody of an end unless somebody waits for it", async () => {
  const listening = await w.connect();
  const told: (string | undefined)[] = [];
  listening.on("notification", ({ payload }) => told.push(payload));
  await listening.query("LISTEN hawser_results");
  const ids = [await put(), await put(), await put(), await put()];
  const taken = await worker.take();
  const awaited = [ids[1]!, ids[3]!];
  for (const id of awaited)
    await listening.query("SELECT pg_advisory_lock_shared($1, $2)", [
      queueConstants.resultsLock,
      Number(BigInt(id) & 31n),
    ]);
  await worker.done(taken[0]!);
  await worker.done(taken[1]!);
  await worker.doneBatch(taken[2]!, taken[3]!);
  await eventually("the ends are told that are awaited", () => told.length >= 2);
  expect(told).toEqual(awaited);
  await listening.end();
});
