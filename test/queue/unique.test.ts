/** Unique keys: of a topic and a role at most one message waits with one, under any concurrency. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
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
    "TRUNCATE hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks, hawser_data.unique_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.dead_letters",
  );
});

/** @param rest further arguments, in SQL */
const put = async (payload: string, rest = "", on = client, key = "k"): Promise<string> =>
  (await on.query(`SELECT hawser.enqueue_unique('t', $1, $2${rest}) AS id`, [payload, key])).rows[0].id;
const waiting = async (): Promise<string[]> =>
  (
    await client.query<{ text: string }>(
      `SELECT CASE WHEN later IS NULL THEN '' ELSE 'later ' END || convert_from(payload, 'UTF8') AS text FROM hawser_data.queue
        ORDER BY later IS NOT NULL, 1`,
    )
  ).rows.map(({ text }) => text);
const keys = async (): Promise<number> =>
  (
    await client.query<{ n: number }>(
      "SELECT greatest((SELECT count(*) FROM hawser_data.unique_keys), (SELECT count(*) FROM hawser_data.unique_locks))::int AS n",
    )
  ).rows[0]!.n;
const begin = async (worker: TestWorker, { topic, recipient, role, rank }: Taken) =>
  (
    await work.query<{ begins: boolean; due_in_ms: string | null; text: string | null }>(
      "SELECT begins, due_in_ms, convert_from(payload, 'UTF8') AS text FROM hawser.begin_unique($1, $2, $3, $4, $5)",
      [worker.id, topic, recipient, role, rank],
    )
  ).rows[0]!;
const begun = { begins: true, due_in_ms: null, text: null };
const cancel = async (id: string) => (await client.query("SELECT hawser.cancel($1) AS state", [id])).rows[0].state;
const isBlocked = async ({ processID }: { processID?: number | null }): Promise<boolean> =>
  (await client.query("SELECT cardinality(pg_blocking_pids($1)) > 0 AS is", [processID])).rows[0].is;

describe("a message with a unique key", () => {
  it("waits once, and those that follow get its number, also of its own transaction, until it begins", async () => {
    const first = await put("1");
    await client.query("BEGIN");
    expect([await put("2"), await put("3"), await put("4", "", client, "other")]).toEqual([
      first,
      first,
      expect.anything(),
    ]);
    await client.query("COMMIT");
    expect(await waiting()).toEqual(["1", "4"]);
    const worker = await TestWorker.open(work);
    const [one] = (await worker.take({ most: 1 })) as [Taken];
    expect(one.isUnique).toBe(true);
    expect(await put("5")).toBe(first);
    expect(await begin(worker, one)).toEqual(begun);
    const second = await put("6");
    expect(second).not.toBe(first);
    // What has begun does not count, also when it is tried again.
    await worker.retry(one, 0);
    const again = (await worker.take({ looksBehind: true })).find(({ id }) => id === one.id)!;
    expect(await begin(worker, again)).toEqual(begun);
    await worker.done(again);
    expect(await put("7")).toBe(second);
    expect(await waiting()).toEqual(["4", "6"]);
    expect(await keys()).toBe(2);
  });

  it("is free after a rollback, and when it was cancelled or given up", async () => {
    await client.query("BEGIN");
    await put("1");
    await client.query("ROLLBACK");
    const second = await put("2");
    expect(await waiting()).toEqual(["2"]);
    expect(await cancel(second)).toBe("cancelled");
    const later = await put("3", ", deliver_at => now() + interval '1 hour'");
    expect(await cancel(later)).toBe("cancelled");
    await put("4");
    const worker = await TestWorker.open(work);
    const [message] = (await worker.take()) as [Taken];
    await worker.giveUp(message);
    expect(await keys()).toBe(0);
    await put("5");
    expect(await waiting()).toEqual(["5"]);
  });

  it("counts while it is due later, under its first number", async () => {
    const first = await put("1", ", deliver_at => now() + interval '1 hour', priority => 3");
    expect(await put("2")).toBe(first);
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    expect(await put("3")).toBe(first);
    expect(await waiting()).toEqual(["1"]);
    const worker = await TestWorker.open(work);
    const [message] = (await worker.take()) as [Taken];
    expect(await begin(worker, message)).toEqual(begun);
    await put("4");
    await worker.done(message);
    expect(await waiting()).toEqual(["4"]);
  });

  it("counts while it runs, if asked to, and for workers that do not know of unique keys", async () => {
    const first = await put("1", ", while_running => true");
    const worker = await TestWorker.open(work);
    const [message] = (await worker.take()) as [Taken];
    expect(await begin(worker, message)).toEqual(begun);
    expect([await put("2"), await put("3", ", replaces => true")]).toEqual([first, first]);
    await worker.done(message);
    const second = await put("4");
    expect(await waiting()).toEqual(["4"]);
    const [next] = (await worker.take()) as [Taken];
    expect(await put("5")).toBe(second);
    await worker.doneBatch(next);
    expect(await keys()).toBe(0);
  });

  it("does not begin before a transaction ends that relies on it, and is put off for it without an attempt", async () => {
    const worker = await TestWorker.open(work);
    const first = await put("1");
    const [message] = (await worker.take()) as [Taken];
    await client.query("BEGIN");
    await other.query("BEGIN");
    expect([await put("2"), await put("3", "", other)]).toEqual([first, first]);
    await client.query("COMMIT");
    expect(await begin(worker, message)).toMatchObject({ begins: false, due_in_ms: expect.stringMatching(/^\d+$/) });
    await other.query("ROLLBACK");
    await client.query("UPDATE hawser_data.queue SET due_at = now()");
    const [again] = (await worker.take()) as [Taken];
    expect(again.attempts).toBe(0);
    expect(await begin(worker, again)).toEqual(begun);
  });

  it("gives its key away when transactions hold it that follow each other without end", async () => {
    const worker = await TestWorker.open(work);
    const first = await put("1");
    const [message] = (await worker.take()) as [Taken];
    await client.query("BEGIN");
    expect(await put("2")).toBe(first);
    expect(await begin(worker, message)).toMatchObject({ begins: false });
    await other.query("BEGIN");
    expect(await put("3", "", other)).toBe(first);
    await client.query("COMMIT");
    await client.query("UPDATE hawser_data.queue SET due_at = now(), enqueued_at = now() - interval '3 seconds'");
    const [again] = (await worker.take()) as [Taken];
    expect(await begin(worker, again)).toMatchObject({ begins: false });
    const second = await put("4");
    expect(second).not.toBe(first);
    await other.query("COMMIT");
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE due_at IS NOT NULL");
    const both = await worker.take({ looksBehind: true });
    for (const one of both) expect(await begin(worker, one)).toEqual(begun);
    expect([both.length, await keys()]).toEqual([2, 0]);
  });

  it("replaces what waits: payload, headers and due time, wherever it is", async () => {
    const later = (interval: string) => `, replaces => true, deliver_at => now() + interval '${interval}'`;
    const first = await put("1", later("1 hour"));
    expect(await put("2", later("2 hours"))).toBe(first);
    expect(await waiting()).toEqual(["later 2"]);
    expect(await put("3", ', replaces => true, headers => \'{"a": "b"}\'')).toBe(first);
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    expect(await waiting()).toEqual(["3"]);
    const worker = await TestWorker.open(work);
    const [message] = (await worker.take()) as [Taken];
    // A worker has it.
    expect(await put("4", ", replaces => true, message_id => 'm'")).toBe(first);
    expect(await begin(worker, message)).toEqual({ ...begun, text: "4" });
    await worker.retry(message, 0);
    const [again] = (await worker.take()) as [Taken];
    expect([again.payload.toString(), JSON.stringify(again.headers)]).toEqual(["4", expect.stringContaining('"m"')]);
    await worker.done(again);
    // One in the queue that is put off as a whole.
    const second = await put("5");
    const [next] = (await worker.take()) as [Taken];
    expect(await put("6", later("1 hour"))).toBe(second);
    expect(await begin(worker, next)).toMatchObject({ begins: false, due_in_ms: null });
    expect(await waiting()).toEqual(["later 6"]);
    expect(await put("7")).toBe(second);
    expect(await cancel(second)).toBe("cancelled");
  });

  it("is refused with what does not go with it", async () => {
    await expect(put("1", ", replaces => true, while_running => true")).rejects.toMatchObject({ code: "22023" });
    await expect(put("1", ", replaces => true, deliver_at => 'infinity'")).rejects.toMatchObject({ code: "22023" });
    await expect(put("1", "", client, "a\nb")).rejects.toMatchObject({ code: "22023" });
    await expect(put("1", ", to_all => true")).rejects.toMatchObject({ code: "42883" });
  });

  it("of another role is another message", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const as = async (one: Login, text: string): Promise<string> => {
      await other.query(`SET SESSION AUTHORIZATION ${one.role}`);
      const id = await put(text, ", replaces => true", other);
      await other.query("RESET SESSION AUTHORIZATION");
      return id;
    };
    const [of, byMal] = [await as(ann, "ann"), await as(mal, "mal")];
    expect(of).not.toBe(byMal);
    expect([await as(ann, "ann 2"), await as(mal, "mal 2")]).toEqual([of, byMal]);
    expect(await waiting()).toEqual(["ann", "mal"]);
  });

  it("of a transaction that is not committed is waited for: one of the two is written", async () => {
    for (const end of ["COMMIT", "ROLLBACK"] as const) {
      await client.query("TRUNCATE hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks");
      await client.query("BEGIN");
      const first = await put("1");
      const second = put("2", "", other);
      const pid = (other as unknown as { processID: number }).processID;
      await eventually("it waits", async () => await isBlocked({ processID: pid }));
      await client.query(end);
      expect((await second) === first).toBe(end === "COMMIT");
      expect(await waiting()).toEqual([end === "COMMIT" ? "1" : "2"]);
    }
  });

  it.each(["REPEATABLE READ", "SERIALIZABLE"])("conflicts with 40001 at %s", async (level) => {
    await client.query(`BEGIN ISOLATION LEVEL ${level}; SELECT FROM hawser_data.unique_keys`);
    await put("1", "", other);
    await expect(put("2")).rejects.toMatchObject({ code: "40001" });
    await client.query("ROLLBACK");
    const worker = await TestWorker.open(work);
    const [message] = (await worker.take()) as [Taken];
    await client.query(`BEGIN ISOLATION LEVEL ${level}; SELECT FROM hawser_data.unique_keys`);
    await begin(worker, message);
    await expect(put("3")).rejects.toMatchObject({ code: "40001" });
    await client.query("ROLLBACK");
    expect(await waiting()).toEqual(["1"]);
  });

  it("whose message is cancelled or done while a transaction relies on it leaves nothing behind, though nobody waits", async () => {
    const worker = await TestWorker.open(work);
    for (const end of ["cancelled", "done", "cancelled while it is replaced"]) {
      const isDone = end === "done";
      const running = isDone ? ", while_running => true" : "";
      const id = await put("1", running);
      const [message] = isDone ? await worker.take({ looksBehind: true }) : [];
      await other.query("BEGIN");
      expect(await put("2", end.includes("replaced") ? ", replaces => true" : running, other)).toBe(id);
      if (isDone) await worker.done(message!);
      else expect(await cancel(id)).toBe("cancelled");
      // While that transaction is open, a beat waits for nobody either.
      await work.query("SET lock_timeout = '10s'");
      await worker.extend();
      await work.query("RESET lock_timeout");
      await other.query("COMMIT");
      await worker.extend();
      expect(await keys(), end).toBe(0);
      expect((await client.query("SELECT FROM hawser_data.unique_ends")).rows, end).toEqual([]);
    }
  });

  it("is freed whatever number of its own keys another role holds in an open transaction", async () => {
    const noted = (role: string, from: number, upto: number) =>
      client.query(
        `WITH ids AS (SELECT n FROM generate_series($2::int, $3::int) AS n), keys AS (
           INSERT INTO hawser_data.unique_keys (role, topic, unique_key, id, while_running) SELECT $1, 't', n::text, n, false FROM ids
         )
         INSERT INTO hawser_data.unique_ends (id, role, topic, unique_key) SELECT n, $1, 't', n::text FROM ids`,
        [role, from, upto],
      );
    await noted("mal", 1, 1_500);
    await noted("ann", 2_001, 2_010);
    await other.query("BEGIN; SELECT FROM hawser_data.unique_keys WHERE role = 'mal' FOR UPDATE");
    const worker = await TestWorker.open(work);
    await worker.extend();
    const left = "SELECT role, count(*)::int FROM hawser_data.unique_keys GROUP BY role ORDER BY role";
    expect((await client.query(left)).rows).toEqual([{ role: "mal", count: 1_500 }]);
    await other.query("ROLLBACK");
    for (let beat = 0; beat < 2; beat++) await worker.extend();
    expect((await client.query(left)).rows).toEqual([]);
  });

  it("is cancelled although it was replaced with one that is due later while a worker had it", async () => {
    const id = await put("a");
    const worker = await TestWorker.open(client);
    const [taken] = await worker.take();
    await put("b", ", replaces => true, deliver_at => now() + interval '1 hour'");
    expect((await client.query("SELECT state FROM hawser.cancel($1)", [id])).rows).toEqual([{ state: "cancelling" }]);
    const { topic, recipient, role } = taken!;
    const begun = await client.query("SELECT begins, due_in_ms FROM hawser.begin_unique($1, $2, $3, $4, $5)", [
      ...[worker.id, topic, recipient, role, taken!.rank],
    ]);
    expect(begun.rows).toEqual([{ begins: false, due_in_ms: null }]);
    expect((await client.query("SELECT state FROM hawser.job($1)", [id])).rows).toEqual([{ state: "unknown" }]);
    for (const table of ["queue", "cancellations", "unique_keys"])
      expect((await client.query(`SELECT FROM hawser_data.${table}`)).rowCount, table).toBe(0);
  });

  it("never waits twice, however many sessions enqueue, begin, cancel and roll back at once", async () => {
    const clients = await Promise.all(Array.from({ length: 6 }, () => w.connect()));
    const isDone = { value: false };
    let written = 0;
    const writers = clients.slice(0, 4).map(async (each, nth) => {
      for (let round = 0; round < 40; round++) {
        await each.query("BEGIN");
        const mode = (round + nth) % 3 === 0 ? ", replaces => true" : "";
        const at = round % 5 === 0 ? ", deliver_at => now() + interval '5 ms'" : "";
        const id = await put(`${nth}-${round}`, mode + at, each, `k${round % 2}`);
        if (round % 7 === 0) await each.query("SELECT hawser.cancel($1)", [id]);
        await each.query(round % 4 === 0 ? "ROLLBACK" : "COMMIT");
        written += 1;
      }
    });
    // Of those of a key that have not begun, two are never there in one snapshot.
    const sql = `SELECT unique_key FROM hawser_data.queue AS q
       JOIN hawser_data.unique_keys AS u USING (unique_key, id) GROUP BY 1 HAVING count(*) > 1`;
    // One that transactions have held for two seconds gives its key away before it begins.
    const unbegun = `SELECT q.unique_key, count(*) FROM hawser_data.queue AS q
       WHERE (q.later IS NOT NULL OR q.due_at IS NULL OR q.enqueued_at > clock_timestamp() - interval '2 seconds')
         AND q.id NOT IN (SELECT id FROM begun) GROUP BY 1 HAVING count(*) > 1`;
    await client.query("CREATE TABLE begun (id bigint)");
    const watcher = (async () => {
      while (!isDone.value) for (const text of [sql, unbegun]) expect((await clients[4]!.query(text)).rows).toEqual([]);
    })();
    const worker = await TestWorker.open(clients[5]!);
    const handler = (async () => {
      const functions = clients[5]!;
      while (!isDone.value || (await waiting()).length > 0) {
        await functions.query("SELECT hawser.bring_due(NULL, NULL)");
        for (const { topic, recipient, role, rank } of await worker.take({ looksBehind: true, most: 2 })) {
          await functions.query("BEGIN");
          const sqlBegin = "SELECT begins FROM hawser.begin_unique($1, $2, $3, $4, $5)";
          const { rows } = await functions.query(sqlBegin, [worker.id, topic, recipient, role, rank]);
          if (rows[0].begins)
            await functions.query("INSERT INTO begun SELECT id FROM hawser_data.queue WHERE rank = $1", [rank]);
          await functions.query("COMMIT");
          if (rows[0].begins)
            await functions
              .query("SELECT hawser.done($1, $2, $3, $4, false)", [topic, recipient, role, rank])
              .catch((error) => {
                if (error.code !== "NA009") throw error;
              });
        }
        await worker.extend();
      }
    })();
    await Promise.all(writers);
    isDone.value = true;
    await Promise.all([watcher, handler]);
    expect(written).toBe(160);
    expect(await waiting()).toEqual([]);
    await client.query("DROP TABLE begun");
  });
});
