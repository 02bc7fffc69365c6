/** Messages that come after others, on the level of SQL: released once all of those are handled, under any concurrency. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { Random } from "../simulator/random.js";
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
    `TRUNCATE hawser_data.queue, hawser_data.flow_edges, hawser_data.flow_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.dead_letters, hawser_data.unique_keys, hawser_data.unique_locks`,
  );
});

/** @param rest further arguments, in SQL */
const put = async (payload: string, rest = "", on = client): Promise<string> =>
  (await on.query(`SELECT hawser.enqueue('t', $1${rest}) AS id`, [payload])).rows[0].id;
const behind = async (ids: readonly string[], payload: string, rest = "", on = client): Promise<string> =>
  (await on.query(`SELECT hawser.enqueue_after('t', $1, $2${rest}) AS id`, [payload, ids])).rows[0].id;
const cancel = async (id: string, on = client): Promise<string> =>
  (await on.query("SELECT hawser.cancel($1) AS state", [id])).rows[0].state;
/** Draws the consequences, as processes do that bring in what is due, until there are none. */
const bring = async (on = client): Promise<void> => {
  for (let dueInMs: string | null = "0"; dueInMs === "0"; )
    dueInMs = (await on.query("SELECT due_in_ms FROM hawser.bring_due(NULL, NULL)")).rows[0].due_in_ms;
};
const textOf = ({ payload }: Taken): string => payload.toString();
const take = async (worker: TestWorker): Promise<Taken[]> => {
  await bring();
  return await worker.take({ looksBehind: true });
};
const refused = { code: "NA010", message: expect.stringMatching(/^the message -?\d+ does not wait/) };
const left = async () =>
  (
    await client.query<{ held: number; edges: number; ends: number }>(
      `SELECT (SELECT count(*)::int FROM hawser_data.queue WHERE later = 'held') AS held,
              (SELECT count(*)::int FROM hawser_data.flow_edges) AS edges, (SELECT count(*)::int FROM hawser_data.flow_ends) AS ends`,
    )
  ).rows[0];
const nothing = { held: 0, edges: 0, ends: 0 };

describe("a message that comes after others", () => {
  it("is held until all of its own transaction are handled, and may be one that others come after", async () => {
    await client.query("BEGIN");
    const parts = [await put("a"), await put("b", ", priority => 3")];
    const sum = await behind(parts, "sum");
    await behind([sum, parts[0]!], "end");
    await client.query("COMMIT");
    const worker = await TestWorker.open(work);
    const [b, a] = (await take(worker)) as [Taken, Taken];
    expect([a, b].map(textOf)).toEqual(["a", "b"]);
    await worker.done(a);
    expect(await take(worker)).toEqual([]);
    await worker.doneBatch(b);
    const [middle] = (await take(worker)) as [Taken];
    expect(textOf(middle)).toBe("sum");
    expect(await left()).toEqual({ held: 1, edges: 1, ends: 0 });
    await worker.done(middle);
    const last = await take(worker);
    expect(last.map(textOf)).toEqual(["end"]);
    // Nothing follows from the end of one that was held, and that none comes after.
    await worker.done(last[0]!);
    expect(await left()).toEqual(nothing);
  });

  it("is cancelled with one before it whose role may not enqueue any more when it is due", async () => {
    await using role = await login(w.url, "IN ROLE hawser_peer");
    const owner = new pg.Client(role.url);
    await owner.connect();
    await owner.query("BEGIN");
    const first = await put("first", ", deliver_at => clock_timestamp() + interval '1 s'", owner);
    await behind([first], "second", ", cancels => true", owner);
    await owner.query("COMMIT");
    await owner.end();
    await client.query(`REVOKE hawser_peer FROM ${role.role}`);
    await eventually("the first one is a dead letter", async () => {
      await bring();
      return (
        (await client.query("SELECT FROM hawser_data.dead_letters WHERE error_code = 'not_permitted'")).rows.length ===
        1
      );
    });
    await bring();
    expect(await left()).toEqual(nothing);
  });

  it("is not held without others, and its own due time, priority and key count once it is released", async () => {
    const first = await put("first");
    await behind([], "at once");
    await behind([first], "later", ", deliver_at => now() + interval '1 hour'");
    await behind([first], "urgent", ', priority => 7, headers => \'{"a": "b"}\'');
    await behind([first, first], "in order", ", key => 'k'");
    const worker = await TestWorker.open(work);
    const [one, two] = (await take(worker)) as [Taken, Taken];
    expect([one, two].map(textOf)).toEqual(["first", "at once"]);
    await worker.done(one);
    const released = await take(worker);
    expect(released.map((each) => [textOf(each), each.key])).toEqual([
      ["urgent", null],
      ["in order", "k"],
    ]);
    expect(JSON.stringify(released[0]!.headers)).toContain('"b"');
    const { rows } = await client.query(
      "SELECT later, due_at > now() + interval '59 min' AS is FROM hawser_data.queue WHERE later IS NOT NULL",
    );
    expect(rows).toEqual([{ later: "peer", is: true }]);
  });

  it("comes after what waits, which does not begin before its transaction ends, while others do", async () => {
    const worker = await TestWorker.open(work);
    const [waits, late, retried, unique] = [
      await put("waits"),
      await put("late", ", deliver_at => now() + interval '1 ms'"),
      await put("retried"),
      (await client.query("SELECT hawser.enqueue_unique('t', 'unique', 'k') AS id")).rows[0].id as string,
    ];
    const taken = await worker.take();
    await worker.retry(taken.find((each) => textOf(each) === "retried")!, 0);
    await worker.giveBack(...taken.filter((each) => textOf(each) !== "retried"));
    const ids = [waits, late, retried, unique];
    // The first that comes after a message marks it; others do not wait for each other then.
    await cancel(await behind(ids, "0"));
    await client.query("BEGIN");
    await other.query("BEGIN");
    await behind(ids, "1");
    await behind(ids, "2", "", other);
    await put("free", "", work);
    await bring(work);
    expect((await worker.take({ looksBehind: true })).map(textOf)).toEqual(["free"]);
    await client.query("COMMIT");
    expect((await worker.take({ looksBehind: true })).map(textOf)).toEqual([]);
    await other.query("ROLLBACK");
    const all = await take(worker);
    expect(all.map(textOf).toSorted()).toEqual(["late", "retried", "unique", "waits"]);
    for (const [nth, each] of all.entries()) {
      await bring();
      expect(await left()).toMatchObject({ held: 1, edges: 4 - nth });
      await worker.done(each);
    }
    expect((await take(worker)).map(textOf)).toEqual(["1"]);
    expect(await left()).toEqual(nothing);
  });

  it("is refused after what a worker has, has ended, is for all or for NATS, or is not there", async () => {
    const worker = await TestWorker.open(work);
    const [done, dead, running] = [await put("done"), await put("dead"), await put("running")];
    const [one, two] = (await worker.take()) as [Taken, Taken];
    await worker.done(one);
    await worker.giveUp(two);
    const cancelled = await put("cancelled");
    await cancel(cancelled);
    const toAll = [
      await put("all", ", to_all => true"),
      await put("all", ", to_all => true, deliver_at => now() + interval '1 hour'"),
    ];
    const nats = ["", ", deliver_at => now() + interval '1 hour'"].map(
      async (rest) =>
        (await client.query(`SELECT hawser.enqueue('a.b', ''::text, stream => true${rest}) AS id`)).rows[0].id,
    );
    const waits = await put("waits");
    for (const id of [done, dead, running, cancelled, ...toAll, ...(await Promise.all(nats)), "0", "-5"])
      await expect(behind([waits, id], "x")).rejects.toMatchObject(refused);
    await expect(
      behind(
        Array.from({ length: 10_001 }, () => waits),
        "x",
      ),
    ).rejects.toMatchObject({ code: "22023" });
    await expect(client.query("SELECT hawser.enqueue_after('t', 'x', ARRAY[NULL]::bigint[])")).rejects.toMatchObject({
      code: "22004",
    });
    await client.query("BEGIN");
    await client.query("SAVEPOINT s");
    const gone = await put("gone");
    await client.query("ROLLBACK TO s");
    await expect(behind([gone], "x")).rejects.toMatchObject(refused);
    await client.query("ROLLBACK");
    expect(await left()).toEqual(nothing);
  });

  it("is held by a dead letter until that is handled, which keeps its id, or is cancelled itself", async () => {
    const worker = await TestWorker.open(work);
    const first = await put("first", ", deliver_at => now() + interval '1 ms'");
    await bring();
    const held = await behind([first], "held");
    await behind([first], "also held");
    for (let time = 0; time < 2; time += 1) {
      const [message] = (await take(worker)) as [Taken];
      expect(textOf(message)).toBe("first");
      const dead = await worker.giveUp(message);
      expect(await take(worker)).toEqual([]);
      expect(await left()).toEqual({ held: 2, edges: 2, ends: 0 });
      await client.query("SELECT FROM hawser.retry_dead_letters($1)", [[dead]]);
    }
    await behind([first], "third");
    expect(await cancel(held)).toBe("cancelled");
    const [message] = (await take(worker)) as [Taken];
    await worker.done(message);
    expect((await take(worker)).map(textOf).toSorted()).toEqual(["also held", "third"]);
    expect(await left()).toEqual(nothing);
  });

  it("is cancelled after a dead letter or a cancelled message, with those behind it, if asked to", async () => {
    const worker = await TestWorker.open(work);
    for (const end of [
      "dead",
      "cancelled",
      "cancelled by topic",
      "cancelled while it runs",
      "cancelled while it is held",
    ] as const) {
      await client.query("BEGIN");
      const root = await put("root");
      const first = end === "cancelled while it is held" ? await behind([root], "first") : await put("first");
      const second = await behind([first], "second", ", cancels => true");
      const third = await behind([second], "third", ", cancels => true");
      await behind([third, root], "held");
      await behind([third, root], "fourth", ", cancels => true");
      await client.query("COMMIT");
      if (end === "cancelled") expect(await cancel(first)).toBe("cancelled");
      const taken = await worker.take();
      if (end === "dead") await worker.giveUp(taken.find((each) => textOf(each) === "first")!);
      if (end === "cancelled while it is held") expect(await cancel(first)).toBe("cancelled");
      if (end === "cancelled while it runs") {
        expect(await cancel(first)).toBe("cancelling");
        await worker.endCancelled();
      }
      if (end === "cancelled by topic") {
        await worker.giveBack(...taken);
        await client.query("SELECT FROM hawser.cancel_messages('peer', 't', NULL, NULL, 0, 10)");
        await bring();
        expect(await left()).toEqual(nothing);
        continue;
      }
      await worker.done(taken.find((each) => textOf(each) === "root")!);
      expect(await take(worker), end).toEqual([]);
      expect(await left(), end).toEqual({ held: 1, edges: 1, ends: 0 });
      const { rows } = await client.query("SELECT id, held_for FROM hawser.later_messages WHERE kind = 'held'");
      expect(rows).toEqual([{ id: expect.any(String), held_for: 1 }]);
      expect(await cancel(rows[0].id)).toBe("cancelled");
      await bring();
      expect(await left()).toEqual(nothing);
    }
  });

  const jobOf = async (id: string) =>
    (await client.query("SELECT * FROM hawser.job($1)", [id])).rows[0] as Record<string, unknown>;
  const backlog = async () =>
    (
      await client.query(
        "SELECT topic, state, messages::int, is_complete FROM hawser.backlog(1000) WHERE state IN ('held', 'blocked') ORDER BY state",
      )
    ).rows;

  it("is held as a state of its own, for messages that it names, and blocked by those that release nothing", async () => {
    const worker = await TestWorker.open(work);
    const parts = [await put("a"), await put("b"), await put("c")] as [string, string, string];
    const sum = await behind(parts, "sum");
    const later = await behind([parts[0]], "later", ", deliver_at => now() + interval '1 hour'");
    const states = (...given: string[]) => given.map((state, nth) => ({ id: parts[nth], state }));
    expect(await jobOf(sum)).toMatchObject({
      ...{ state: "held", topic: "t", due_at: null, error_code: null },
      waits_for: states("waiting", "waiting", "waiting"),
    });
    expect(await jobOf(later)).toMatchObject({ state: "held", due_at: expect.any(Date) });
    expect(await backlog()).toEqual([{ topic: "t", state: "held", messages: 2, is_complete: true }]);
    const [, b, c] = (await worker.take()) as [Taken, Taken, Taken];
    // The end of this one has no consequence yet when the state is asked for.
    await worker.done(c);
    expect((await jobOf(sum))["waits_for"]).toHaveLength(3);
    const dead = await worker.giveUp(b);
    await bring();
    expect((await jobOf(sum))["waits_for"]).toEqual([
      { id: parts[1], state: "dead" },
      { id: parts[0], state: "waiting" },
    ]);
    expect(await backlog()).toEqual([
      { topic: "t", state: "blocked", messages: 1, is_complete: true },
      { topic: "t", state: "held", messages: 1, is_complete: true },
    ]);
    const { rows } = await client.query(
      "SELECT kind, held_for, waits_for -> 0 AS first FROM hawser.later_messages WHERE id = $1",
      [sum],
    );
    expect(rows).toEqual([{ kind: "held", held_for: 2, first: { id: parts[1], state: "dead" } }]);
    // Retried, it is waited for again, also if it dies again.
    await client.query("SELECT FROM hawser.retry_dead_letters($1)", [[dead]]);
    expect((await jobOf(sum))["waits_for"]).toEqual(states("waiting", "waiting"));
    expect(await backlog()).toMatchObject([{ state: "held", messages: 2 }]);
    const again = (await worker.take({ looksBehind: true })).find((each) => textOf(each) === "b")!;
    const deadAgain = await worker.giveUp(again);
    await bring();
    expect(await backlog()).toMatchObject([{ state: "blocked" }, { state: "held" }]);
    await client.query("SELECT FROM hawser.discard_dead_letters($1)", [[deadAgain]]);
    expect((await jobOf(sum))["waits_for"]).toMatchObject([{ id: parts[1], state: "gone" }, {}]);
    await cancel(sum);
    await cancel(later);
    await bring();
    expect(await backlog()).toEqual([]);
    expect(await left()).toEqual(nothing);
  });

  it("is blocked by one that was cancelled, and says why it is cancelled itself", async () => {
    const first = await put("first");
    const held = await behind([first], "held");
    const id = await behind([first], "cancelled", ", cancels => true");
    await client.query("SELECT hawser.keep_result($1, 60000)", [id]);
    await cancel(first);
    await bring();
    expect(await jobOf(held)).toMatchObject({ state: "held", waits_for: [{ id: first, state: "gone" }] });
    expect(await backlog()).toMatchObject([{ state: "blocked", messages: 1 }]);
    expect(await jobOf(id)).toMatchObject({
      ...{ state: "cancelled", error_code: "not_waiting" },
      error_message: `The message ${first}, which it comes after, has become a dead letter or was cancelled.`,
    });
  });

  const cancelFlow = async (id: string, on = client) =>
    (await on.query("SELECT id, state FROM hawser.cancel_flow($1)", [id])).rows.map(({ id, state }) => [id, state]);

  it("is cancelled with all of its flow, from any of its messages, also one that has ended", async () => {
    const worker = await TestWorker.open(work);
    for (const from of ["first", "middle", "last", "ended", "dead"] as const) {
      const first = await put("first");
      const running = await put("running");
      const later = await put("later", ", deliver_at => now() + interval '1 hour', priority => 3");
      const [ended, dead] = [await put("ended"), await put("dead")];
      const middle = await behind([first, running, later, ended, dead], "middle");
      const last = await behind([middle], "last", ", cancels => true");
      const beside = await behind([first], "beside");
      const [free] = [await put("free"), await behind([await put("others")], "other")];
      const taken = await worker.take({ looksBehind: true });
      const of = (text: string) => taken.find((each) => textOf(each) === text)!;
      await worker.giveBack(...taken.filter((each) => ["first", "free", "others"].includes(textOf(each))));
      await worker.done(of("ended"));
      await worker.giveUp(of("dead"));
      // Before the consequences are drawn, or after.
      if (from !== "ended") await bring();
      const ids = { first, middle, last, ended, dead };
      const cancelled = [first, later, middle, last, beside].map((id) => [id, "cancelled"]);
      const order = (a: string[], b: string[]) => Number(BigInt(a[0]!) - BigInt(b[0]!));
      expect(await cancelFlow(ids[from]), from).toEqual([...cancelled, [running, "cancelling"]].toSorted(order));
      await worker.endCancelled();
      await bring();
      const { rows } = await client.query(
        "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.queue WHERE later IS NULL ORDER BY id",
      );
      expect(rows.map(({ text }) => text)).toEqual(["free", "others"]);
      expect(await left()).toEqual({ held: 1, edges: 1, ends: 0 });
      expect((await jobOf(free))["state"]).toBe("waiting");
      await client.query("SELECT FROM hawser.cancel_messages('peer', 't', NULL, NULL, $1, 1000)", [-(2n ** 62n)]);
      await bring();
      expect(await left()).toEqual(nothing);
    }
    expect(await cancelFlow("4711")).toEqual([]);
  });

  it("is cancelled with its flow by members of its role alone, and not with a flow beyond the limit", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    await other.query(`SET SESSION AUTHORIZATION ${ann.role}`);
    const first = await put("first", "", other);
    const second = await behind([first], "second", "", other);
    await other.query(`RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION ${mal.role}`);
    for (const id of [first, second]) expect(await cancelFlow(id, other)).toEqual([]);
    await other.query("RESET SESSION AUTHORIZATION");
    await client.query("INSERT INTO hawser_data.flow_edges SELECT $1, -n, false FROM generate_series(1, 10000) AS n", [
      second,
    ]);
    await other.query(`SET SESSION AUTHORIZATION ${mal.role}`);
    for (const id of [first, second]) expect(await cancelFlow(id, other)).toEqual([]);
    await other.query("RESET SESSION AUTHORIZATION");
    await expect(cancelFlow(first)).rejects.toMatchObject({
      ...{ code: "22023", message: `the flow of the message ${first} has more than 10000 messages` },
    });
    await client.query("DELETE FROM hawser_data.flow_edges WHERE after_id < -1");
    expect((await cancelFlow(first)).length).toBe(2);
  });

  it("cannot name a message of another role, which is as if it were not there", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const ids: string[] = [];
    await other.query(`SET SESSION AUTHORIZATION ${ann.role}`);
    ids.push(await put("now", "", other), await put("later", ", deliver_at => now() + interval '1 hour'", other));
    ids.push(await behind([ids[0]!], "held", "", other));
    await other.query(`RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION ${mal.role}`);
    for (const id of [...ids, "0"]) await expect(behind([id], "x", "", other)).rejects.toMatchObject(refused);
    for (const table of ["flow_edges", "flow_ends"])
      await expect(other.query(`SELECT FROM hawser_data.${table}`)).rejects.toMatchObject({ code: "42501" });
    for (const sql of ["hawser.end_flows('r')", "hawser.end_marked('[]', true)"])
      await expect(other.query(`SELECT ${sql}`)).rejects.toMatchObject({ code: "42501" });
    await other.query("RESET SESSION AUTHORIZATION");
    // Nor by a superuser, whose own they are not.
    await expect(behind([ids[0]!], "x")).rejects.toMatchObject(refused);
  });

  it("is released by the last of two that end at once, in whatever order", async () => {
    for (const order of [
      [other, client],
      [client, other],
    ]) {
      const ids = [await put("a"), await put("b")];
      await behind(ids, "sum");
      const worker = await TestWorker.open(work);
      const both = await worker.take();
      const done = "SELECT hawser.done($1, $2, $3, $4, false)";
      for (const [nth, each] of [client, other].entries()) {
        const { topic, recipient, role, rank } = both[nth]!;
        await each.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
        await each.query(done, [topic, recipient, role, rank]);
      }
      for (const each of order) {
        await bring(work);
        expect(await worker.take()).toEqual([]);
        await each.query("COMMIT");
      }
      await bring(work);
      expect((await worker.take()).map(textOf)).toEqual(["sum"]);
      expect(await left()).toEqual(nothing);
      await worker.close();
      await client.query("TRUNCATE hawser_data.queue");
    }
  });

  it("is left to the next look if a transaction locks it, and holds up no other message", async () => {
    const ids = [await put("a"), await put("b")];
    const first = await behind([ids[0]!], "after a");
    await behind([ids[1]!], "after b");
    const worker = await TestWorker.open(work);
    await worker.doneBatch(...(await worker.take()));
    await client.query("BEGIN");
    await behind([first], "x");
    await work.query("SELECT due_in_ms FROM hawser.bring_due(NULL, NULL)");
    const { rows } = await work.query("SELECT due_in_ms::int FROM hawser.bring_due(NULL, NULL)");
    expect(rows).toEqual([{ due_in_ms: 500 }]);
    expect((await worker.take()).map(textOf)).toEqual(["after b"]);
    await client.query("COMMIT");
    expect((await take(worker)).map(textOf)).toEqual(["after a"]);
    expect(await left()).toEqual({ held: 1, edges: 1, ends: 0 });
  });

  it("may come after 10,000", async () => {
    const { rows } = await client.query("SELECT hawser.enqueue_batch('t', array_fill('x'::text, ARRAY[10000])) AS ids");
    await behind(rows[0].ids, "sum");
    const doneSql = `SELECT hawser.done_batch(array_agg(topic), array_agg(recipient), array_agg(role), array_agg(rank), false)
      FROM (SELECT * FROM hawser_data.queue ORDER BY id LIMIT $1) AS q`;
    await client.query(doneSql, [9_999]);
    await bring();
    expect(await left()).toEqual({ held: 1, edges: 1, ends: 0 });
    await client.query(doneSql, [1]);
    expect((await take(await TestWorker.open(work))).map(textOf)).toEqual(["sum"]);
    expect(await left()).toEqual(nothing);
  });

  it("is handled once, after all before it, however many sessions enqueue, handle, fail and look at once", async () => {
    const random = new Random(7);
    const clients = await Promise.all(Array.from({ length: 7 }, () => w.connect()));
    await client.query(
      "CREATE TABLE handled (id text, xid xid8 DEFAULT pg_current_xact_id(), snapshot pg_snapshot DEFAULT pg_current_snapshot())",
    );
    await client.query("CREATE TABLE asked (id text, before text)");
    let writers = 3;
    const write = async (each: pg.Client, nth: number): Promise<void> => {
      for (let round = 0; round < 8; round += 1) {
        await each.query("BEGIN");
        const ids = new Map<string, string>();
        for (let node = 0; node < 8; node += 1) {
          const name = `${nth}-${round}-${node}`;
          const before = [...ids.keys()].filter(() => random.chance(0.4));
          const rest = random.chance(0.2)
            ? ", deliver_at => now() + interval '2 ms'"
            : random.chance(0.2)
              ? ", key => 'k'"
              : "";
          ids.set(
            name,
            await behind(
              before.map((one) => ids.get(one)!),
              name,
              rest,
              each,
            ),
          );
          await each.query(
            "INSERT INTO asked SELECT $1, b FROM unnest(coalesce(nullif($2::text[], '{}'), '{NULL}')) AS b",
            [name, before],
          );
        }
        await each.query(random.chance(0.2) ? "ROLLBACK" : "COMMIT");
        // What waits may be named later, too, and is refused at once if it does not.
        const [name, id] = [...ids].at(-1)!;
        const added = `${nth}-${round}-added`;
        await each.query("BEGIN");
        try {
          await behind([id], added, "", each);
          await each.query("INSERT INTO asked VALUES ($1, $2)", [added, name]);
          await each.query("COMMIT");
        } catch (error) {
          expect(error).toMatchObject(refused);
          await each.query("ROLLBACK");
        }
      }
      writers -= 1;
    };
    const open = async () =>
      (
        await client.query(
          "SELECT (SELECT count(*) FROM hawser_data.queue) + (SELECT count(*) FROM hawser_data.dead_letters) AS n",
        )
      ).rows[0].n !== "0";
    const handle = async (each: pg.Client): Promise<void> => {
      const worker = await TestWorker.open(each);
      while (writers > 0 || (await open())) {
        await each.query("SELECT FROM hawser.bring_due(NULL, NULL)");
        for (const message of await worker.take({ looksBehind: true, most: 1 })) {
          const fate = random.next();
          if (fate < 0.1) await worker.retry(message, 1);
          else if (fate < 0.2) {
            const dead = await worker.giveUp(message);
            await each.query("SELECT FROM hawser.retry_dead_letters($1)", [[dead]]);
          } else {
            await each.query("BEGIN");
            await each.query("INSERT INTO handled (id) VALUES ($1)", [textOf(message)]);
            await worker.done(message);
            await each.query(fate < 0.3 ? "ROLLBACK" : "COMMIT");
            if (fate < 0.3) await worker.giveBack(message);
          }
        }
      }
    };
    await Promise.all([...clients.slice(0, 3).map(write), ...clients.slice(3).map(handle)]);
    const { rows: twice } = await client.query("SELECT id FROM handled GROUP BY 1 HAVING count(*) <> 1");
    const { rows: lost } = await client.query("SELECT DISTINCT id FROM asked EXCEPT SELECT id FROM handled");
    const { rows: early } = await client.query(
      `SELECT a.id FROM asked AS a JOIN handled AS h ON h.id = a.id JOIN handled AS b ON b.id = a.before
        WHERE NOT pg_visible_in_snapshot(b.xid, h.snapshot)`,
    );
    expect([twice, lost, early]).toEqual([[], [], []]);
    expect((await client.query("SELECT count(*)::int AS n FROM handled")).rows[0].n).toBeGreaterThan(100);
    expect(await left()).toEqual(nothing);
  });
});
