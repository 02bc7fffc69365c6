/** Lists of jobs: by topic, state, key and header, in pages; counted and cancelled by the same selection. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { cancelJobs, countJobs, enqueue, type JobsPage, jobs } from "../../src/jobs-and-peers/peer/index.js";
import { login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { type Taken, TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let work: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  work = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  for (const table of ["queue", "dead_letters", "results", "workers", "cancellations", "flow_edges", "topic_settings"])
    await client.query(`DELETE FROM hawser_data.${table}`);
  await client.query("SELECT hawser.keep_results('t', 60000)");
});

/** @returns its id */
const put = async (rest = "", topic = "t", on = client): Promise<bigint> =>
  BigInt((await on.query(`SELECT hawser.enqueue($1, 'x'::text${rest}) AS id`, [topic])).rows[0].id);
/** Ids of a list, by their places in `of`. */
const listed = async (page: JobsPage, of: readonly bigint[], on = client): Promise<number[]> =>
  (await jobs(on, page)).map(({ id }) => of.indexOf(id));
const takenOf = (all: readonly Taken[], id: bigint): Taken => all.find((each) => each.id === id)!;

/** One job in each state, the first one waiting. */
async function oneOfEach() {
  const later = ", deliver_at => now() + interval '1 hour'";
  const names = ["done", "dead", "running", "waiting", "later", "cancelled", "held"] as const;
  const ids: Record<string, bigint> = {};
  for (const name of names.slice(0, 4)) ids[name] = await put();
  await client.query("UPDATE hawser_data.queue SET recipient = '@nobody' WHERE id = $1", [String(ids["waiting"])]);
  ids["later"] = await put(later);
  ids["cancelled"] = await put(later);
  const held = "SELECT hawser.enqueue_after('t', 'x'::text, ARRAY[$1::bigint]) AS id";
  ids["held"] = BigInt((await client.query(held, [String(ids["later"])])).rows[0].id);
  await client.query("SELECT hawser.cancel($1)", [String(ids["cancelled"])]);
  const worker = await TestWorker.open(work);
  const all = await worker.take();
  const { topic, recipient, role, rank } = takenOf(all, ids["done"]!);
  await work.query("SELECT hawser.done($1, $2, $3, $4, false, 42, NULL)", [topic, recipient, role, String(rank)]);
  await worker.giveUp(takenOf(all, ids["dead"]!));
  return ids;
}

describe("a list", () => {
  it("has jobs in each state, with what is known of them", async () => {
    const ids = await oneOfEach();
    for (const page of [{ topic: "t" }, {}]) {
      const all = await jobs(client, page);
      expect(Object.fromEntries(all.map(({ state, id }) => [state, id]))).toEqual(ids);
      expect(all.map(({ place }) => place)).toEqual(all.map(({ id }) => id).sort((one, other) => Number(other - one)));
      for (const [state, id] of Object.entries(ids))
        expect(await jobs(client, { ...page, state: state as "done" })).toEqual(all.filter((job) => job.id === id));
      const of = (state: string) => all.find((job) => job.state === state);
      expect(of("done")).toMatchObject({
        ...{ topic: "t", key: undefined, enqueuedBy: expect.any(String), listener: expect.any(String), attempts: 1 },
        ...{ enqueuedAt: expect.any(Date), dueAt: undefined, endedAt: expect.any(Date), durationMs: 42 },
      });
      expect(of("dead")).toMatchObject({ errorCode: "handler_failed", endedAt: expect.any(Date) });
      expect(of("later")).toMatchObject({ dueAt: expect.any(Date), endedAt: undefined, listener: undefined });
      expect(of("running")).toMatchObject({ listener: expect.any(String), dueAt: undefined });
    }
    expect(await countJobs(client, { topic: "t" })).toEqual(
      Object.fromEntries(Object.keys(ids).map((state) => [state, 1])),
    );
    expect(await countJobs(client, { topic: "t", state: "held" })).toEqual({ held: 1 });
  });

  it("has a dead letter once, and one that is discarded as long as it is kept", async () => {
    const ids = await oneOfEach();
    await client.query("UPDATE hawser_data.results SET state = 'dead' WHERE id = $1", [String(ids["done"])]);
    expect(await jobs(client, { topic: "t", state: "dead" })).toHaveLength(2);
    await client.query("DELETE FROM hawser_data.dead_letters");
    expect((await jobs(client, { state: "dead" })).map(({ id }) => id)).toEqual([ids["dead"], ids["done"]]);
    await client.query("UPDATE hawser_data.results SET expires_at = now()");
    expect(await jobs(client, { topic: "t", state: "dead" })).toEqual([]);
  });

  it("has pages, also of priorities, recipients and other topics", async () => {
    const ids: bigint[] = [];
    for (const [rest, topic] of [
      ["", "t"],
      [", priority => 3", "t"],
      ["", "u"],
      [", priority => -2", "t"],
      ["", "t"],
      [", deliver_at => now() + interval '1 hour', priority => 3", "t"],
      ["", "t"],
    ] as const)
      ids.push(await put(rest, topic));
    await client.query("UPDATE hawser_data.queue SET recipient = '@nobody' WHERE id = $1", [String(ids[4])]);
    for (const [topic, expected] of [
      ["t", [6, 5, 4, 3, 1, 0]],
      [undefined, [6, 5, 4, 3, 2, 1, 0]],
    ] as const) {
      const found: number[] = [];
      for (let after: bigint | undefined; ; ) {
        const page = await jobs(client, { topic, limit: 2, after });
        found.push(...page.map(({ id }) => ids.indexOf(id)));
        if (page.length === 0) break;
        after = page.at(-1)!.place;
      }
      expect(found).toEqual(expected);
    }
  });

  it("finds keys and headers, in whatever state", async () => {
    const ids = [];
    for (const [key, order] of [
      ["k", "17"],
      ["k", "18"],
      ["l", "17"],
      ["order", "17"],
    ])
      ids.push(await put(`, key => '${key}', headers => '{"Order": "${order}", "17": "order"}'`));
    const worker = await TestWorker.open(work);
    const all = await worker.take();
    await worker.done(takenOf(all, ids[0]!));
    await worker.giveUp(takenOf(all, ids[2]!));
    for (const topic of ["t", undefined]) {
      expect(await listed({ topic, key: "k" }, ids)).toEqual([1, 0]);
      expect(await listed({ topic, key: "l", state: "dead" }, ids)).toEqual([2]);
      expect(await listed({ topic, key: "l", state: "waiting" }, ids)).toEqual([]);
      expect(await listed({ topic, header: ["ORDER", "17"] }, ids)).toEqual([3, 2, 0]);
      expect(await listed({ topic, header: ["order", "order"] }, ids)).toEqual([]);
      expect(await listed({ topic, key: "k", header: ["order", "17"] }, ids)).toEqual([0]);
    }
    expect(await countJobs(client, { topic: "t", key: "k" })).toEqual({ running: 1, done: 1 });
    expect(await countJobs(client, { topic: "t", header: ["order", "17"] })).toEqual({ running: 1, done: 1, dead: 1 });
  });

  it("has only jobs of roles that the caller is a member of, and none for NATS", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const own = new pg.Client({ connectionString: ann.url });
    const foreign = new pg.Client({ connectionString: mal.url });
    await Promise.all([own.connect(), foreign.connect()]);
    try {
      const ids = [
        await put("", "t", own),
        await put("", "t", own),
        await put(", deliver_at => now() + '1 hour'", "t", own),
      ];
      const worker = await TestWorker.open(work);
      const all = await worker.take();
      await worker.done(takenOf(all, ids[0]!));
      await worker.giveUp(takenOf(all, ids[1]!));
      const forNats = await put(", deliver_at => now() + '1 hour'");
      await client.query("UPDATE hawser_data.queue SET later = 'nats' WHERE id = $1", [String(forNats)]);
      for (const topic of ["t", undefined]) {
        expect(await listed({ topic }, ids, own)).toEqual([2, 1, 0]);
        expect(await listed({ topic }, ids)).toEqual([2, 1, 0]);
        expect(await listed({ topic }, ids, foreign)).toEqual([]);
      }
      expect(await countJobs(foreign, { topic: "t" })).toEqual({});
      expect(await cancelJobs(foreign, { topic: "t" })).toEqual([]);
      expect(await countJobs(own, { topic: "t" })).toEqual({ done: 1, dead: 1, later: 1 });
      // A later role of the name is another one.
      for (const table of ["queue", "dead_letters", "results"])
        await client.query(`UPDATE hawser_data.${table} SET role_id = 1`);
      expect([await jobs(own), await jobs(own, { topic: "t" }), await countJobs(own, { topic: "t" })]).toEqual([
        [],
        [],
        {},
      ]);
    } finally {
      await Promise.all([own.end(), foreign.end()]);
    }
  });

  it("refuses what it does not know", async () => {
    await expect(jobs(client, { state: "asleep" as "done" })).rejects.toMatchObject({ code: "22023" });
    await expect(jobs(client, { limit: 10_001 })).rejects.toMatchObject({ code: "22023" });
    await expect(jobs(client, { tpic: "t" } as JobsPage)).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(client.query("SELECT * FROM hawser.jobs(header_name => 'a')")).rejects.toMatchObject({
      code: "22004",
    });
    await using viewer = await login(w.url, "IN ROLE hawser_viewer");
    const session = new pg.Client({ connectionString: viewer.url });
    await session.connect();
    await expect(jobs(session)).rejects.toMatchObject({ code: "42501" });
    await session.end();
  });
});

it("cancels the jobs of a selection that have not ended", async () => {
  const ids = await oneOfEach();
  const key = await enqueue(client, "t", "x", { key: "k", headers: { order: "17" } });
  await expect(cancelJobs(client, { topic: "t", state: "done" })).rejects.toMatchObject({ code: "invalid_argument" });
  expect(await cancelJobs(client, { topic: "t", header: ["order", "18"] })).toEqual([]);
  expect(await cancelJobs(client, { topic: "t", header: ["order", "17"] })).toEqual([
    { id: key, outcome: "cancelled" },
  ]);
  expect(await cancelJobs(client, { topic: "t", state: "later" })).toEqual([
    { id: ids["later"], outcome: "cancelled" },
  ]);
  expect(await cancelJobs(client, { topic: "t" })).toEqual([
    { id: ids["held"], outcome: "cancelled" },
    { id: ids["waiting"], outcome: "cancelled" },
    { id: ids["running"], outcome: "cancelling" },
  ]);
  expect(await countJobs(client, { topic: "t" })).toEqual({ cancelled: 5, running: 1, dead: 1, done: 1 });
});

describe("the first messages of a topic", () => {
  /** Ids of the list, by their places in `of`. */
  const first = async (isReady: boolean, of: readonly bigint[], on = client, most = 10): Promise<number[]> =>
    (await on.query("SELECT id FROM hawser.first_jobs('t', $1, $2)", [isReady, most])).rows.map(({ id }) =>
      of.indexOf(BigInt(id)),
    );

  it("are the oldest ones, and those that are taken next, as a worker takes them", async () => {
    const of: bigint[] = [];
    for (const rest of [
      "",
      "",
      ", key => 'k'",
      ", key => 'k'",
      ", priority => 7",
      ", deliver_at => now() + interval '1 h'",
      "",
    ])
      of.push(await put(rest));
    await put("", "other");
    const worker = await TestWorker.open(work);
    const [taken, failed] = await worker.take({ most: 2 });
    expect([taken, failed].map((each) => of.indexOf(each!.id)).sort()).toEqual([0, 4]);
    await worker.retry(takenOf([taken!, failed!], of[0]!), 3_600_000);
    const rest = await worker.take();
    expect(rest.map(({ id }) => of.indexOf(id))).toEqual([1, 2, 3, 6]);
    expect(await first(false, of)).toEqual([0, 1, 2, 3, 4, 6]);
    expect(await first(false, of, client, 2)).toEqual([0, 1]);
    expect(await first(true, of)).toEqual([]);
    await client.query("UPDATE hawser_data.queue SET worker = NULL WHERE topic = 't'");
    expect(await first(true, of)).toEqual([4, 1, 2, 3, 6]);
    // Another one of its key is before it.
    await client.query("UPDATE hawser_data.queue SET behind = 'kk' WHERE id = $1", [String(of[3])]);
    expect(await first(true, of)).toEqual([4, 1, 2, 6]);
    expect(await first(true, of, client, 2)).toEqual([4, 1]);
    await client.query("UPDATE hawser_data.queue SET due_at = now() - interval '1 s' WHERE id = $1", [String(of[0])]);
    expect((await first(true, of)).sort()).toEqual([0, 1, 2, 4, 6]);
  });

  it("say what is known of them, and roles take turns", async () => {
    await using other = await login(w.url, "IN ROLE hawser_peer");
    const theirs = new pg.Client({ connectionString: other.url });
    await theirs.connect();
    const of = [await put(), await put(), await put(", key => 'k'", "t", theirs), await put("", "t", theirs)];
    expect(await first(true, of)).toEqual([0, 2, 1, 3]);
    expect(await first(true, of, theirs)).toEqual([2, 3]);
    expect(await first(false, of, theirs)).toEqual([2, 3]);
    const { rows } = await theirs.query("SELECT * FROM hawser.first_jobs('t', max_rows => 1)");
    expect(rows).toEqual([
      {
        ...{ id: String(of[2]), state: "waiting", key: "k", role: other.role, listener: null, attempts: 0 },
        ...{ enqueued_at: expect.any(Date), due_at: null, priority: 0, payload_bytes: 1 },
      },
    ]);
    await theirs.end();
  });
});

describe("a message with its payload", () => {
  const read = async (id: bigint, on = client) =>
    (await on.query("SELECT * FROM hawser.job_message($1)", [String(id)])).rows[0];
  const nothing = { topic: null, key: null, headers: null, payload: null, is_for_any: null };

  it("is read while it waits, and without the payload once it was handled", async () => {
    const id = await put(`, key => 'k', headers => '{"a": "1"}'`);
    const waiting = { topic: "t", key: "k", headers: [["a", "1"]], payload: Buffer.from("x"), is_for_any: true };
    expect(await read(id)).toEqual(waiting);
    const later = await put(", deliver_at => now() + interval '1 hour'");
    expect(await read(later)).toMatchObject({ topic: "t", is_for_any: true });
    expect(await read(await put(", to_all => true", "all"))).toMatchObject({ is_for_any: false });
    const worker = await TestWorker.open(work);
    const { topic, recipient, role, rank } = takenOf(await worker.take(), id);
    await work.query("SELECT hawser.done($1, $2, $3, $4, false, 42, NULL)", [topic, recipient, role, String(rank)]);
    expect(await read(id)).toEqual({ ...waiting, payload: null });
    expect(await read(99n)).toEqual(nothing);
  });

  it("is not read by other roles, nor one for NATS", async () => {
    await using other = await login(w.url, "IN ROLE hawser_peer");
    const theirs = new pg.Client({ connectionString: other.url });
    await theirs.connect();
    expect(await read(await put(), theirs)).toEqual(nothing);
    await theirs.end();
    const nats = "SELECT hawser.enqueue('a.b', 'x'::text, stream => true, deliver_at => now() + interval '1 h') AS id";
    expect(await read(BigInt((await client.query(nats)).rows[0].id))).toEqual(nothing);
  });
});
