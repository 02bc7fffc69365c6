/** Kept results: what became of a message can be read after its end, by its role, for a time. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import { login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { type Taken, TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;
let work: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
  work = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  for (const each of [client, other, work]) await each.query("ROLLBACK");
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks, hawser_data.unique_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.dead_letters, hawser_data.results, hawser_data.topic_settings",
  );
});

/** @param rest further arguments, in SQL @returns the id, and whether its result is kept */
const put = async (rest = "", on = client): Promise<{ id: string; kept: boolean }> =>
  (
    await on.query(
      `SELECT e.id, hawser.keep_result(e.id, 60000) AS kept FROM hawser.enqueue('t', 'x'::text${rest}) AS e (id)`,
    )
  ).rows[0];
const jobOf = async (id: string, on = client) => (await on.query("SELECT * FROM hawser.job($1)", [id])).rows[0];
const stateOf = async (id: string, on = client): Promise<string> => (await jobOf(id, on)).state;
const taken = async (worker: TestWorker): Promise<Taken> => (await worker.take({ most: 1, looksBehind: true }))[0]!;
/** @param results as of done_batch, with the number of the row in place of its rank */
const done = async (rows: readonly Taken[], results: readonly unknown[][], on = work) =>
  await on.query("SELECT hawser.done_batch($1, $2, $3, $4, false, $5)", [
    rows.map(({ topic }) => topic),
    rows.map(({ recipient }) => recipient),
    rows.map(({ role }) => role),
    rows.map(({ rank }) => rank),
    JSON.stringify(results.map(([nth, ...result]) => [String(rows[Number(nth) - 1]!.rank), ...result])),
  ]);

describe("a message whose result is kept", () => {
  it("is known while it waits and runs, and after its end", async () => {
    const { id, kept } = await put(", priority => 3");
    expect(kept).toBe(true);
    expect(await jobOf(id)).toMatchObject({ state: "waiting", topic: "t", attempts: 0, listener: null, result: null });
    const worker = await TestWorker.open(work);
    const message = await taken(worker);
    expect(message.isKept).toBe(true);
    const progress = async (value: string, of = worker.id) =>
      (
        await work.query("SELECT written FROM hawser.set_progress($1, $2, $3, $4, $5, $6)", [
          ...[of, message.topic, message.recipient, message.role, message.rank, value],
        ])
      ).rows[0].written;
    expect([await progress('{"at": 1}'), await progress("2", 17n)]).toEqual([true, false]);
    await expect(progress("{")).rejects.toMatchObject({ code: "22P02" });
    expect(await jobOf(id)).toMatchObject({ state: "running", listener: expect.any(String), progress: '{"at": 1}' });
    await client.query("LISTEN hawser_results");
    await client.query("SELECT pg_advisory_lock_shared($1, ($2::bigint & 31)::int)", [queueConstants.resultsLock, id]);
    const told: (string | undefined)[] = [];
    client.on("notification", ({ payload }) => told.push(payload));
    await done([message], [[1, 42, '{"a": "\\u00e4"}']]);
    expect(await jobOf(id)).toMatchObject({
      ...{
        state: "done",
        topic: "t",
        attempts: 1,
        duration_ms: "42",
        result: '{"a": "\\u00e4"}',
        progress: '{"at": 1}',
      },
      ...{ enqueued_at: expect.any(Date), ended_at: expect.any(Date), error_code: null },
    });
    await eventually("its end is told", () => told.includes(id));
    client.removeAllListeners("notification");
    await client.query("UNLISTEN *; SELECT pg_advisory_unlock_all()");
    await client.query("UPDATE hawser_data.results SET expires_at = now()");
    expect(await stateOf(id)).toBe("unknown");
  });

  it("is one of the transaction that has enqueued it, or is due later", async () => {
    await client.query("BEGIN");
    const first = await put();
    await client.query("SAVEPOINT s");
    const second = await put();
    await client.query("RELEASE s; SAVEPOINT s");
    const { id: third } = (await client.query("SELECT hawser.enqueue('t', 'x'::text, to_all => true) AS id")).rows[0];
    await expect(client.query("SELECT hawser.keep_result($1, 1000)", [third])).rejects.toMatchObject({ code: "22023" });
    await client.query("ROLLBACK TO s");
    const batch = await client.query(
      "SELECT hawser.keep_result(id, 1000) AS kept FROM unnest(hawser.enqueue_batch('t', ARRAY['x', 'y'])) AS e (id)",
    );
    await client.query("COMMIT");
    expect([first.kept, second.kept, ...batch.rows.map(({ kept }) => kept)]).toEqual([true, true, true, true]);
    const { id } = (await client.query("SELECT hawser.enqueue('t', 'x'::text) AS id")).rows[0];
    const keep = async (of: string): Promise<boolean> =>
      (await client.query("SELECT hawser.keep_result($1, 1000) AS kept", [of])).rows[0].kept;
    // Its worker would wait for the row.
    expect([await keep(id), await keep(first.id), await keep("999999999")]).toEqual([false, true, false]);
    const later = await put(", deliver_at => now() + interval '1 hour'");
    expect([later.kept, await keep(later.id), await stateOf(later.id)]).toEqual([true, true, "later"]);
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    const worker = await TestWorker.open(work);
    const all = await worker.take({ most: 10, looksBehind: true });
    expect(all.filter(({ isKept }) => isKept).length).toBe(5);
    await done(all, [[all.length, 1, null]]);
    expect([await stateOf(later.id), await stateOf(first.id), await stateOf(id)]).toEqual(["done", "done", "unknown"]);
  });

  it("keeps nothing of a transaction that is rolled back, or comes second", async () => {
    const { id } = await put();
    const worker = await TestWorker.open(work);
    const message = await taken(worker);
    await work.query("BEGIN");
    await done([message], [[1, 1, '"lost"']]);
    await work.query("ROLLBACK");
    await work.query("BEGIN");
    await done([message], [[1, 1, '"first"']]);
    const second = expect(done([message], [[1, 1, '"second"']], other)).rejects.toMatchObject({ code: "NA009" });
    await work.query("COMMIT");
    await second;
    expect((await jobOf(id)).result).toBe('"first"');
    await expect(done([message], [])).rejects.toMatchObject({ code: "NA009" });
  });

  it("refuses results that are too long, or no JSON", async () => {
    await put();
    const worker = await TestWorker.open(work);
    const message = await taken(worker);
    await expect(done([message], [[1, 1, "{"]])).rejects.toMatchObject({ code: "22P02" });
    await expect(done([message], [[1, 1, JSON.stringify("x".repeat(65_535))]])).rejects.toMatchObject({
      code: "23514",
    });
    await done([message], [[1, 1, JSON.stringify("x".repeat(65_534))]]);
  });

  it("keeps its id, result and progress through a dead letter that is retried, at any time of its life", async () => {
    const worker = await TestWorker.open(work);
    const { id } = await put(', priority => 3, headers => \'{"a": "b"}\'');
    const later = await put(", deliver_at => clock_timestamp() + interval '1 ms'");
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("SELECT FROM hawser.bring_due(NULL, NULL)");
    for (let time = 0; time < 2; time += 1) {
      for (const message of await worker.take({ looksBehind: true })) {
        await work.query("SELECT hawser.set_progress($1, $2, $3, $4, $5, $6)", [
          ...[worker.id, message.topic, message.recipient, message.role, message.rank, `{"time": ${time}}`],
        ]);
        const dead = await worker.giveUp(message);
        await client.query("SELECT FROM hawser.retry_dead_letters($1)", [[dead]]);
      }
      for (const each of [id, later.id])
        expect(await jobOf(each)).toMatchObject({
          ...{ state: "waiting", attempts: 0, progress: `{"time": ${time}}`, error_code: null, ended_at: null },
        });
    }
    const messages = await worker.take({ looksBehind: true });
    expect(messages.map(({ isKept }) => isKept)).toEqual([true, true]);
    await done(messages, [
      [1, 1, '"again"'],
      [2, 1, '"again"'],
    ]);
    for (const each of [id, later.id])
      expect(await jobOf(each)).toMatchObject({ state: "done", attempts: 1, result: '"again"', error_code: null });
    expect((await client.query("SELECT FROM hawser_data.results")).rows).toHaveLength(2);
  });

  it("is cancelled by the id that it keeps as a retried dead letter", async () => {
    const worker = await TestWorker.open(work);
    const { id } = await put();
    const dead = await worker.giveUp(await taken(worker));
    await client.query("SELECT FROM hawser.retry_dead_letters($1)", [[dead]]);
    expect((await client.query("SELECT hawser.cancel($1) AS state", [id])).rows).toEqual([{ state: "cancelled" }]);
    expect(await stateOf(id)).toBe("cancelled");
  });

  it("is dead as long as its dead letter is there, also if nothing is kept, and gone with it", async () => {
    const worker = await TestWorker.open(work);
    const { id } = (await client.query("SELECT hawser.enqueue('t', 'x'::text) AS id")).rows[0];
    const dead = await worker.giveUp(await taken(worker));
    expect(await jobOf(id)).toMatchObject({
      ...{ state: "dead", topic: "t", error_code: "handler_failed", error_message: "no" },
      ...{ enqueued_at: expect.any(Date), ended_at: expect.any(Date), expires_at: null },
    });
    await client.query("SELECT FROM hawser.discard_dead_letters($1)", [[dead]]);
    expect(await stateOf(id)).toBe("unknown");
  });

  it("is known as a dead letter, and as one that was cancelled", async () => {
    const worker = await TestWorker.open(work);
    const cancel = async (id: string) => (await client.query("SELECT hawser.cancel($1) AS state", [id])).rows[0].state;
    const dead = await put();
    await worker.giveUp(await taken(worker));
    expect(await jobOf(dead.id)).toMatchObject({ state: "dead", attempts: 0, error_code: expect.any(String) });
    const waiting = await put();
    expect(await cancel(waiting.id)).toBe("cancelled");
    const later = await put(", deliver_at => now() + interval '1 hour'");
    expect(await cancel(later.id)).toBe("cancelled");
    const running = await put();
    await taken(worker);
    expect(await cancel(running.id)).toBe("cancelling");
    expect(await stateOf(running.id)).toBe("running");
    await worker.endCancelled();
    const filtered = await put(", key => 'k', deliver_at => now() + interval '1 hour'");
    await client.query("SELECT * FROM hawser.cancel_messages('peer', 't', 'k', NULL, -100, 10)");
    for (const { id } of [waiting, later, running, filtered]) expect(await stateOf(id)).toBe("cancelled");
  });

  it("is readable by its role and those who operate, and kept by nobody else", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const as = async <Result>(role: string, run: () => Promise<Result>): Promise<Result> => {
      await other.query(`SET SESSION AUTHORIZATION ${role}`);
      try {
        return await run();
      } finally {
        await other.query("RESET SESSION AUTHORIZATION");
      }
    };
    const seenBy = (role: string, id: string) => as(role, () => stateOf(id, other));
    const { id } = await as(ann.role, () => put("", other));
    expect([await seenBy(ann.role, id), await seenBy(mal.role, id)]).toEqual(["waiting", "unknown"]);
    const worker = await TestWorker.open(work);
    await done([await taken(worker)], [[1, 1, '"secret"']]);
    expect([await seenBy(ann.role, id), await seenBy(mal.role, id), await stateOf(id)]).toEqual([
      "done",
      "unknown",
      "done",
    ]);
    await expect(as(mal.role, () => other.query("SELECT * FROM hawser_data.results"))).rejects.toMatchObject({
      code: "42501",
    });
    const later = await as(ann.role, () => put(", deliver_at => now() + interval '1 hour'", other));
    const keeps = await as(mal.role, () => other.query("SELECT hawser.keep_result($1, 1000) AS kept", [later.id]));
    expect(keeps.rows[0].kept).toBe(false);
    expect([await seenBy(mal.role, later.id), await seenBy(ann.role, later.id)]).toEqual(["unknown", "later"]);
  });

  it("is removed with all of its day, when the day is over", async () => {
    const worker = await TestWorker.open(work);
    for (let nth = 0; nth < 3; nth += 1) {
      await put();
      await done([await taken(worker)], []);
    }
    const [first, second] = (await client.query("SELECT id FROM hawser_data.results ORDER BY id")).rows;
    const move = async (id: string, days: number) =>
      await client.query(
        "UPDATE hawser_data.results SET segment = (floor(extract(epoch FROM now()) / 86400)::bigint - $2::bigint) % 12, expires_at = now() - $2 * interval '1 day' WHERE id = $1",
        [id, days],
      );
    await move(first.id, 1);
    await move(second.id, 4);
    // Who reads is not waited for.
    await other.query("BEGIN; SELECT FROM hawser_data.results");
    const left = async () => {
      await client.query("SELECT hawser.expire_dead_letters(1000)");
      return (await client.query("SELECT count(*)::int AS n FROM hawser_data.results")).rows[0].n;
    };
    expect(await left()).toBe(3);
    await other.query("COMMIT");
    // Also of a day whose segment is that of a later one by now, unless a result of that one is just written.
    const [{ segment }] = (await client.query("SELECT segment FROM hawser_data.results WHERE id = $1", [second.id]))
      .rows;
    await other.query(`
      BEGIN;
      INSERT INTO hawser_data.results (segment, id, role, topic, state, attempts, enqueued_at, ended_at, expires_at)
      VALUES (${segment}, 0, 'r', 't', 'done', 0, now(), now(), now() + interval '8 days')`);
    expect(await left()).toBe(2);
    await other.query("COMMIT");
    expect(await left()).toBe(3);
    await client.query("DELETE FROM hawser_data.results WHERE id = 0");
    expect(await left()).toBe(1);
  });
});

describe("a topic that keeps results", () => {
  const keep = async (ms: number | null, on = client): Promise<boolean> =>
    (await on.query("SELECT hawser.keep_results('t', $1) AS kept", [ms])).rows[0].kept;
  const plain = async (rest = "", on = client): Promise<string> =>
    (await on.query(`SELECT hawser.enqueue('t', 'x'::text${rest}) AS id`)).rows[0].id;
  const keptFor = async (id: string) =>
    (
      await client.query(
        "SELECT round(extract(epoch FROM expires_at - ended_at))::int AS s FROM hawser_data.results WHERE id = $1",
        [id],
      )
    ).rows[0]?.s;

  it("keeps those of messages that workers take, a message's own time before its own", async () => {
    const before = await plain();
    expect(await keep(5_000)).toBe(true);
    const own = await put();
    const later = await plain(", deliver_at => now() + interval '1 hour'");
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    const urgent = await plain(", priority => 7");
    const other = (await client.query("SELECT hawser.enqueue('u', 'x'::text) AS id")).rows[0].id;
    const worker = await TestWorker.open(work, { topics: ["t", "u"] });
    const all = await worker.take({ most: 10 });
    await done(all, [[1, 42, '"first"']]);
    expect(all.map(({ topic, isKept }) => [topic, isKept]).toSorted()).toEqual([
      ...Array.from({ length: 4 }, () => ["t", true]),
      ["u", false],
    ]);
    for (const id of [before, later, urgent]) expect(await keptFor(id)).toBe(5);
    expect(await keptFor(own.id)).toBe(60);
    expect(await stateOf(other)).toBe("unknown");
    expect((await jobOf(urgent)).result).toBe('"first"');
    expect(await keep(null)).toBe(false);
    const after = await plain();
    await done([await taken(worker)], []);
    expect([await stateOf(after), await stateOf(before)]).toEqual(["unknown", "done"]);
  });

  it("keeps nothing of a message for NATS that is due later, whose subject is its name", async () => {
    await keep(5_000);
    const { rows } = await client.query(
      "SELECT hawser.enqueue('t', 'x'::text, stream => true, deliver_at => now() + interval '1 hour') AS id",
    );
    const { id } = rows[0];
    expect(await stateOf(id)).toBe("unknown");
    expect((await client.query("SELECT hawser.keep_result($1, 1000) AS kept", [id])).rows[0].kept).toBe(false);
    expect((await client.query("SELECT hawser.cancel($1) AS state", [id])).rows[0].state).toBe("cancelled");
    expect(await keptFor(id)).toBeUndefined();
  });

  it("keeps what has become of those that end before a worker takes them, or that become dead letters", async () => {
    const running = await plain();
    const before = await TestWorker.open(work);
    await taken(before);
    await keep(5_000);
    expect((await client.query("SELECT hawser.cancel($1) AS state", [running])).rows[0].state).toBe("cancelling");
    await before.endCancelled();
    expect([await stateOf(running), await keptFor(running)]).toEqual(["cancelled", 5]);
    const ends = [await plain(), await plain(", deliver_at => now() + interval '1 hour'")];
    for (const id of ends) await client.query("SELECT hawser.cancel($1)", [id]);
    const filtered = [
      await plain(", key => 'k'"),
      await plain(", key => 'k', deliver_at => now() + interval '1 hour'"),
      (
        await client.query(
          "SELECT hawser.enqueue_after('t', 'x'::text, ARRAY[hawser.enqueue('u', 'x'::text)], key => 'k') AS id",
        )
      ).rows[0].id,
    ];
    await client.query("SELECT * FROM hawser.cancel_messages('peer', 't', 'k', NULL, -100, 10)");
    for (const id of [...ends, ...filtered]) expect([await stateOf(id), await keptFor(id)]).toEqual(["cancelled", 5]);
    const first = await plain();
    const behind = (
      await client.query("SELECT hawser.enqueue_after('t', 'x'::text, ARRAY[$1::bigint], cancels => true) AS id", [
        first,
      ])
    ).rows[0].id;
    const worker = await TestWorker.open(work);
    await worker.giveUp(await taken(worker));
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    expect([await stateOf(first), await stateOf(behind)]).toEqual(["dead", "cancelled"]);
  });

  it("takes no message for all, and keeps nothing of one that was there", async () => {
    await plain(", to_all => true");
    await keep(5_000);
    const hint = /for all listeners of its topic "t", and has a result of each/;
    await expect(plain(", to_all => true")).rejects.toMatchObject({
      code: "22023",
      message: expect.stringMatching(hint),
    });
    const worker = await TestWorker.open(work);
    await worker.take({ looksBehind: true });
    expect((await worker.take({ looksBehind: true })).map(({ isKept }) => isKept)).toEqual([false]);
  });

  it("is no other setting's end, and refuses other times", async () => {
    await client.query("SELECT hawser.limit_topic('t', running => 9)");
    await client.query("SELECT * FROM hawser.pause_topic('t')");
    await keep(5_000);
    await client.query("SELECT hawser.limit_topic('t'), hawser.resume_topic('t')");
    const left = async () => (await client.query("SELECT keep_ms FROM hawser_data.topic_settings")).rows;
    expect(await left()).toEqual([{ keep_ms: 5_000 }]);
    for (const ms of [999, 604_800_001]) await expect(keep(ms)).rejects.toMatchObject({ code: "22023" });
    await client.query("SELECT * FROM hawser.pause_topic('t')");
    await keep(null);
    expect(await left()).toEqual([{ keep_ms: null }]);
    await client.query("SELECT hawser.resume_topic('t')");
    expect(await left()).toEqual([]);
    for (const role of ["hawser_nats", "hawser_viewer", "hawser_bridge"]) {
      await using stranger = await login(w.url, `IN ROLE ${role}`);
      await other.query(`SET SESSION AUTHORIZATION ${stranger.role}`);
      await expect(keep(5_000, other)).rejects.toMatchObject({ code: "42501" });
      await other.query("RESET SESSION AUTHORIZATION");
    }
  });
});

it("nothing is written of a message whose result nobody keeps", async () => {
  const { id } = (await client.query("SELECT hawser.enqueue('t', 'x'::text) AS id")).rows[0];
  const worker = await TestWorker.open(work);
  const message = await taken(worker);
  expect(message.isKept).toBe(false);
  await done([message], [[1, 1, '"x"']]);
  expect((await client.query("SELECT FROM hawser_data.results")).rowCount).toBe(0);
  expect(await stateOf(id)).toBe("unknown");
});
