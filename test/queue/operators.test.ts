/** What operators and those who enqueue do with messages of the queue: cancel, hand over, forget, retry, discard. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { cancelMessages, forgetPeer, withCommandDatabase } from "../../src/operating/operate/index.js";
import { type Login, login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, type Taken, TestWorker, textsOf } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks, hawser_data.unique_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.dead_letters, hawser_peer_data.listeners",
  );
});

async function rows<Row extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<Row[]> {
  return (await client.query<Row>(sql, values)).rows;
}

const waiting = async (): Promise<string[]> =>
  (
    await rows<{ text: string }>(
      "SELECT topic || ' ' || recipient || ' ' || convert_from(payload, 'UTF8') AS text FROM hawser_data.queue ORDER BY rank",
    )
  ).map(({ text }) => text);

describe("hawser.cancel", () => {
  const cancel = async (id: bigint | string, on: pg.Client = client): Promise<string> =>
    (await on.query("SELECT hawser.cancel($1) AS state", [String(id)])).rows[0].state;
  const cancellations = () => rows("SELECT rank::int FROM hawser_data.cancellations ORDER BY rank");
  /** Ends what a worker has and is to be cancelled, when the handler has ended. */
  const ended = async (worker: TestWorker | null, ...messages: Taken[]): Promise<string[]> => {
    const ranks = messages.map(({ rank }) => String(rank));
    const [answer] = await rows<{ ranks: string[] }>(
      "SELECT ranks FROM hawser.end_cancelled($1, $2)",
      worker && String(worker.id),
      ranks,
    );
    return answer!.ranks;
  };
  const told = async (worker: TestWorker): Promise<string[]> => {
    const [answer] = await rows<{ cancelled: string[] }>(
      "SELECT cancelled FROM hawser.extend($1, false)",
      String(worker.id),
    );
    return answer!.cancelled;
  };

  it("deletes a message that waits, wherever it is, and no other", async () => {
    const ids = [
      ...(await enqueue(client, "a", ["1", "2"])),
      ...(await enqueue(client, "a", ["3"], { recipient: "@w", role: "other" })),
      ...(await enqueue(client, "z", ["4"], { recipient: "#g", key: "k" })),
      ...(await enqueue(client, "z", ["5"], { toAll: true })),
      ...(await enqueue(client, "z", ["6"], { priority: 7 })),
    ];
    await client.query("BEGIN");
    for (const id of ids) expect(await cancel(id)).toBe("cancelled");
    await client.query("ROLLBACK");
    for (const index of [1, 2, 3, 5]) expect(await cancel(ids[index]!)).toBe("cancelled");
    expect(await waiting()).toEqual(["a  1", "z  5"]);
    expect(await cancel(ids[1]!)).toBe("not_waiting");
    expect(await cancel(9_000_000n)).toBe("not_waiting");
    expect(await cancellations()).toEqual([]);
  });

  it("deletes what was due later by its first number, before and after it is due", async () => {
    const due =
      "SELECT hawser.enqueue('t', $1, key => $2, priority => $3, deliver_at => now() + interval '1 day') AS id";
    const given: [string, string | null, number][] = [
      ["a", null, 0],
      ["b", "k", 0],
      ["c", null, 5],
      ["d", null, 0],
    ];
    const ids: string[] = [];
    for (const values of given) ids.push((await rows<{ id: string }>(due, ...values))[0]!.id);
    expect(await cancel(ids[0]!)).toBe("cancelled");
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("SELECT hawser.bring_due(NULL, NULL)");
    expect((await waiting()).toSorted()).toEqual(["t  b", "t  d", "t ! c"]);
    const found = await rows("SELECT id::text FROM hawser.queue_find($1, NULL, 10)", ids[1]);
    expect(found).toEqual([{ id: ids[1] }]);
    const worker = await TestWorker.open(other);
    const message = (await worker.take()).find(({ payload }) => payload.toString() === "d")!;
    expect(await Promise.all(ids.map((id) => cancel(id)))).toEqual([
      "not_waiting",
      "cancelling",
      "cancelling",
      "cancelling",
    ]);
    expect(await told(worker)).toHaveLength(3);
    expect(await ended(worker, message)).toEqual([String(message.rank)]);
    expect(await told(worker)).toHaveLength(2);
    await worker.close();
    await (await TestWorker.open(client)).extend();
    expect(await waiting()).toEqual([]);
  });

  it("of what a worker has, tells it, which ends it when the handler has ended, and locks nothing before", async () => {
    const worker = await TestWorker.open(other);
    const [a, b, c, d] = (await enqueue(client, "t", ["a", "b", "c", "d"])) as [bigint, bigint, bigint, bigint];
    const [first, second, third] = (await worker.take({ most: 4 })) as [Taken, Taken, Taken];
    await client.query("BEGIN");
    for (const id of [a, b, c, a]) expect(await cancel(id)).toBe("cancelling");
    // The worker goes on, however long that transaction is open. Others have locks for a moment, as at each commit that notifies.
    await other.query("SET lock_timeout = '10s'");
    await worker.extend();
    await worker.retry(second, 1_000_000);
    await worker.giveBack(third);
    await client.query("COMMIT");
    expect(await waiting()).toHaveLength(4);
    // What the worker does not have any more is ended by any one; what it has, by itself.
    const another = await TestWorker.open(client, { name: "another" });
    expect(await another.take({ looksBehind: true })).toEqual([]);
    expect(await waiting()).toEqual(["t  a", "t  d"]);
    expect(await told(another)).toEqual([]);
    expect(await ended(another, first)).toEqual([]);
    expect(await told(worker)).toEqual([String(a)]);
    expect([await cancel(a), await cancel(d)]).toEqual(["cancelling", "cancelling"]);
    expect(await rows("SELECT FROM hawser_data.cancellations WHERE rank = $1", String(a))).toHaveLength(1);
    expect(await ended(worker, first)).toEqual([String(a)]);
    expect(await told(worker)).toEqual([String(d)]);
    await expect(worker.done(first)).rejects.toThrow("not in the queue");
    expect(await cancel(a)).toBe("not_waiting");
  });

  it("of what a worker has, keeps its key, unique key, place under the limits and lease until the worker ends it", async () => {
    await client.query("SELECT hawser.limit_topic('t', running => 1)");
    const worker = await TestWorker.open(other);
    const another = await TestWorker.open(client, { name: "another" });
    const put = async (text: string, more: string): Promise<string> =>
      (await rows<{ id: string }>(`SELECT hawser.enqueue${more} AS id`, text))[0]!.id;
    const unique = "_unique('t', $1::text, unique_key => 'u', while_running => true)";
    const id = await put("first", unique);
    const [first] = (await worker.take()) as [Taken];
    expect(await cancel(id)).toBe("cancelling");
    await another.extend();
    expect(await put("second", unique)).toBe(id);
    await put("free", "('t', $1::text)");
    expect(await another.take({ looksBehind: true })).toEqual([]);
    expect(await ended(worker, first)).toEqual([id]);
    expect((await another.take({ looksBehind: true })).map(({ payload }) => payload.toString())).toEqual(["free"]);
    await client.query("SELECT hawser.limit_topic('t')");
    expect(await put("third", unique)).not.toBe(id);
    expect(await another.take({ looksBehind: true })).toHaveLength(1);

    const keyed = await put("of a key", "('t', $1::text, key => 'k')");
    await put("behind it", "('t', $1::text, key => 'k')");
    const had = (await worker.take({ most: 1, looksBehind: true })) as [Taken];
    expect(had.map(({ id: one }) => String(one))).toEqual([keyed]);
    await cancel(keyed);
    await another.extend();
    expect(await another.take({ looksBehind: true })).toEqual([]);
    // Or until its lease is over.
    await client.query("UPDATE hawser_data.workers SET beat_at = now() - interval '1 hour' WHERE id = $1", [
      String(worker.id),
    ]);
    await another.extend();
    const behind = await another.take({ looksBehind: true });
    expect(behind.map(({ payload }) => payload.toString())).toEqual(["behind it"]);
  });

  it("leaves what is rolled back, and tells nobody of it", async () => {
    const worker = await TestWorker.open(other);
    const [id] = (await enqueue(client, "t", ["a"])) as [bigint];
    const [message] = (await worker.take()) as [Taken];
    await client.query("BEGIN");
    expect(await cancel(id)).toBe("cancelling");
    await client.query("ROLLBACK");
    expect(await told(worker)).toEqual([]);
    expect(await ended(worker, message)).toEqual([]);
    await worker.done(message);
  });

  it("deletes what a killed worker had before another one takes it, and what was put off, or is of a worker that is gone, at once", async () => {
    const killed = await TestWorker.open(other);
    const [a, b, c] = (await enqueue(client, "t", ["a", "b", "c"])) as [bigint, bigint, bigint];
    const [, second] = (await killed.take()) as [Taken, Taken];
    await killed.retry(second, 1_000_000);
    expect([await cancel(a), await cancel(b)]).toEqual(["cancelling", "cancelled"]);
    await client.query("UPDATE hawser_data.workers SET gone_at = now()");
    expect(await cancel(c)).toBe("cancelled");
    expect(await (await TestWorker.open(client)).take()).toEqual([]);
    expect(await waiting()).toEqual([]);
  });

  it("deletes what nobody has, whatever number of its own rows another role holds in an open transaction", async () => {
    const asked = (role: string, from: number, upto: number) =>
      client.query(
        `WITH ids AS (SELECT n FROM generate_series($2::int, $3::int) AS n), messages AS (
           INSERT INTO hawser_data.queue (topic, role, rank, id, payload) SELECT 't', $1, n, n, 'x' FROM ids
         )
         INSERT INTO hawser_data.cancellations (topic, recipient, role, rank) SELECT 't', '', $1, n FROM ids`,
        [role, from, upto],
      );
    await asked("a role before", 1, 1_500);
    await asked("mine", 2_001, 2_010);
    await other.query("BEGIN; SELECT FROM hawser_data.queue WHERE role = 'a role before' FOR UPDATE");
    const worker = await TestWorker.open(client);
    await worker.extend();
    const left = () => rows("SELECT role, count(*)::int FROM hawser_data.queue GROUP BY role");
    expect(await left()).toEqual([{ role: "a role before", count: 1_500 }]);
    await other.query("ROLLBACK");
    for (let beat = 0; beat < 2; beat++) await worker.extend();
    expect(await left()).toEqual([]);
  });

  it("does not wait for a worker that is just taking the message, or has handled it and not committed", async () => {
    const [id] = (await enqueue(client, "t", ["a"])) as [bigint];
    const worker = await TestWorker.open(other);
    await client.query("SET lock_timeout = '10s'");
    await other.query("BEGIN");
    const [message] = (await worker.take()) as [Taken];
    await client.query("BEGIN");
    expect(await cancel(id)).toBe("cancelling");
    await client.query("ROLLBACK");
    await other.query("COMMIT");
    await other.query("BEGIN");
    await worker.done(message);
    expect(await cancel(id)).toBe("cancelling");
    // It is looked at again.
    expect(await ended(worker, message)).toEqual([]);
    expect(await cancellations()).toEqual([{ rank: Number(id) }]);
    await other.query("ROLLBACK");
    expect(await told(worker)).toEqual([String(id)]);
    expect(await ended(worker, message)).toEqual([String(message.id)]);
    expect(await cancellations()).toEqual([]);
  });

  it("keeps a worker from taking the message, and wakes those that have left what is behind it", async () => {
    const worker = await TestWorker.open(other);
    const [id] = (await enqueue(client, "t", ["a"], { key: "k" })) as [bigint];
    await enqueue(client, "t", ["b"], { key: "k" });
    const heard: (string | undefined)[] = [];
    const hear = ({ payload }: pg.Notification): void => void heard.push(payload);
    other.on("notification", hear);
    await other.query("LISTEN hawser_queue");
    await other.query("SELECT hawser.wait_for('{t}')");
    await client.query("BEGIN");
    expect(await cancel(id)).toBe("cancelled");
    expect(await worker.take()).toEqual([]);
    await client.query("COMMIT");
    await other.query("SELECT hawser.stop_waiting('{t}')");
    expect(heard).toEqual(["t"]);
    const [message] = await worker.take({ looksBehind: true });
    expect(message?.payload.toString()).toBe("b");
    await client.query("SELECT hawser.cancel($1), hawser.cancel($1)", [String(message!.id)]);
    await other.query("UNLISTEN *");
    other.off("notification", hear);
    expect(heard).toEqual(["t", `:${message!.id}`]);
  });

  it("is for members of the role that enqueued the message, one by one and all of a topic", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const as = async <Result>(one: Login, call: () => Promise<Result>): Promise<Result> => {
      await client.query(`SET SESSION AUTHORIZATION ${one.role}`);
      const result = await call();
      await client.query("RESET SESSION AUTHORIZATION");
      return result;
    };
    const all = async (): Promise<string[]> =>
      (
        await rows<{ state: string }>("SELECT state FROM hawser.cancel_messages('peer', 't', NULL, NULL, -100, 10)")
      ).map(({ state }) => state);
    const [id] = (await enqueue(client, "t", ["a"], { role: ann.role })) as [bigint];
    const worker = await TestWorker.open(other);
    await enqueue(client, "t", ["b"], { role: mal.role });
    await as(ann, () => rows("SELECT hawser.enqueue('t', 'later', deliver_at => now() + interval '1 hour')"));
    expect(await as(mal, () => cancel(id))).toBe("not_waiting");
    expect(await as(mal, all)).toEqual(["cancelled"]);
    expect(await waiting()).toEqual(["t  a", "t ~ later"]);
    await worker.take();
    expect(await as(mal, () => cancel(id))).toBe("not_waiting");
    expect(await as(mal, all)).toEqual([]);
    expect(await cancellations()).toEqual([]);
    expect((await as(ann, all)).toSorted()).toEqual(["cancelled", "cancelling"]);
  });

  it("chooses the messages of a topic by key and age, page by page", async () => {
    await enqueue(client, "t", ["1", "2"], { key: "k" });
    await enqueue(client, "t", ["3"], { recipient: "@w" });
    await enqueue(client, "t", ["4"], { priority: 3 });
    await enqueue(client, "u", ["5"]);
    await client.query("UPDATE hawser_data.queue SET enqueued_at = now() - interval '1 day' WHERE recipient = '@w'");
    const chosen = (destination: string, key: string | undefined, before: Date | undefined) =>
      withCommandDatabase(w.url, async (database) => {
        const outcomes = [];
        for await (const page of cancelMessages(database, { kind: "peer", destination, key, before }))
          outcomes.push(...page);
        return outcomes.map(({ outcome }) => outcome);
      });
    expect(await chosen("t", undefined, new Date(Date.now() - 3_600_000))).toEqual(["cancelled"]);
    expect(await waiting()).toEqual(["t ! 4", "t  1", "t  2", "u  5"]);
    expect(await chosen("t", "k", undefined)).toEqual(["cancelled", "cancelled"]);
    expect(await waiting()).toEqual(["t ! 4", "u  5"]);
    await client.query("SELECT hawser.enqueue_batch('many', array_agg(n::text)) FROM generate_series(1, 2500) AS n");
    expect(await chosen("many", undefined, undefined)).toHaveLength(2_500);
    expect(await waiting()).toEqual(["t ! 4", "u  5"]);
  });

  it("ends no page early because of a message of it that a worker ends meanwhile", async () => {
    await enqueue(client, "t", ["handled", "waits"]);
    await client.query("SELECT hawser.enqueue('t', 'later', deliver_at => now() + interval '1 hour')");
    // It goes behind the choice of the page, and before the cancellation of what is in the queue.
    const [fn] = await rows<{ text: string }>("SELECT pg_get_functiondef('hawser.cancel_queued'::regproc) AS text");
    await client.query(
      fn!.text.replace("BEGIN\n", "BEGIN\n  DELETE FROM hawser_data.queue WHERE payload = 'handled';\n"),
    );
    onTestFinished(async () => {
      await client.query(fn!.text);
    });
    const page = await rows<{ state: string }>(
      "SELECT state FROM hawser.cancel_messages('peer', 't', NULL, NULL, 0, 3)",
    );
    expect(page.map(({ state }) => state)).toEqual(["not_waiting", "cancelled", "cancelled"]);
    await enqueue(client, "t", ["handled"]);
    await client.query("SELECT hawser.enqueue('t', 'later', deliver_at => now() + interval '1 hour')");
    const pages = await withCommandDatabase(w.url, async (database) => {
      const found = [];
      for await (const page of cancelMessages(database, { kind: "peer", destination: "t" })) found.push(page);
      return found;
    });
    expect(pages.flat().map(({ outcome }) => outcome)).toEqual(["cancelled"]);
  });
});

describe("messages for a listener that does not come back", () => {
  let name: string;
  let heir: string;
  let lease: Lease;
  let round = 0;

  beforeEach(async () => {
    round += 1;
    [name, heir] = [`lost-${round}`, `heir-${round}`];
    lease = await w.take(name);
  });

  const forget = (one = name) => withCommandDatabase(w.url, (database) => forgetPeer(database, one));

  it("are handed over in the order of their ids, and are the heir's, also those that were taken", async () => {
    const before = await TestWorker.open(client, { name, topics: ["t", "u"] });
    await enqueue(client, "t", ["1", "2"], { recipient: `@${name}`, key: "k" });
    await enqueue(client, "u", ["3"], { recipient: `@${name}`, role: "other" });
    await enqueue(client, "t", ["4"]);
    await enqueue(client, "t", ["5"], { recipient: `#${name}` });
    const had = await before.take({ most: 2 });
    await lease.release({ clean: false });
    await w.store.reassign({ from: name, to: heir });
    expect(await w.store.enqueuedTopics(name)).toEqual(["t", "u"]);
    expect(await w.store.reassignEnqueued(name, heir)).toBe(3);
    expect(await w.store.reassignEnqueued(name, heir)).toBe(0);
    expect(await w.store.enqueuedTopics(name)).toEqual([]);
    expect(await waiting()).toEqual([`t @${heir} 1`, `t @${heir} 2`, `u @${heir} 3`, "t  4", `t #${name} 5`]);
    // What a handler of the old one commits now would be handled twice.
    const own = had.filter(({ recipient }) => recipient === `@${name}`);
    expect(own.length).toBeGreaterThan(0);
    for (const message of own) await expect(before.done(message)).rejects.toThrow("not in the queue");
    const after = await TestWorker.open(client, { name: heir, topics: ["t", "u"] });
    expect(textsOf(await after.take())).toEqual(["1", "2", "3", "4"]);
  });

  it("wake the heir", async () => {
    await enqueue(client, "u", ["2"], { recipient: `@${name}` });
    await other.query("LISTEN hawser_queue");
    const heard: (string | undefined)[] = [];
    other.on("notification", ({ payload }) => void heard.push(payload));
    await other.query("SELECT hawser.wait_for('{t,u}')");
    expect(await w.store.reassignEnqueued(name, heir)).toBe(1);
    await other.query("SELECT hawser.stop_waiting('{t,u}'); UNLISTEN *");
    expect(heard).toEqual(["u"]);
    expect(await waiting()).toEqual([`u @${heir} 2`]);
    await lease.release({ clean: false });
  });

  it("are found to be of a listener that is away, also of one that never ran", async () => {
    await enqueue(client, "t", ["1"], { recipient: `@${name}` });
    await enqueue(client, "t", ["2"], { recipient: `@never-${round}` });
    await enqueue(client, "t", ["3"], { recipient: `#group-${round}` });
    await enqueue(client, "u", ["4"], { recipient: `@other-${round}` });
    const away = async () => (await w.store.absentListeners(["t", "v"])).map((one) => one.name);
    expect(await away()).toEqual([`never-${round}`]);
    await lease.release({ clean: true });
    expect(await away()).toEqual([name, `never-${round}`]);
  });

  it("keep its name from being forgotten, as do its dead letters; a killed worker of the name gets no copies", async () => {
    const killed = await TestWorker.open(client, { name, topics: ["t"] });
    await enqueue(client, "t", ["1", "2"], { recipient: `@${name}` });
    await lease.release({ clean: true });
    await expect(forget()).rejects.toThrow("2 stored messages wait");
    const [one, two] = await killed.take();
    await killed.giveUp(one!);
    await killed.done(two!);
    await expect(forget()).rejects.toThrow("1 dead letters belong to its channels");
    await client.query("DELETE FROM hawser_data.dead_letters");
    await forget();
    const worker = await TestWorker.open(client, { name: heir, topics: ["t"] });
    await enqueue(client, "t", ["all"], { toAll: true });
    await worker.take();
    expect(await waiting()).toEqual([`t @${heir} all`]);
    await enqueue(client, "t", ["late"], { recipient: `@${name}` });
    await expect(forget()).rejects.toThrow("1 stored messages wait");
  });
});

describe("a dead letter of the queue", () => {
  /** Gives a message up. @returns the dead letter's id */
  async function givenUp(recipient = "", role = "shop", key?: string): Promise<number> {
    const worker = await TestWorker.open(client, { name: "w", group: "g" });
    const headers = [
      ["message-expires", "1"],
      ["a", "b"],
    ] as const;
    await enqueue(client, "t", ["x"], { recipient, role, headers, origin: "s-1:s", ...(key !== undefined && { key }) });
    const [message] = await worker.take();
    const id = await worker.giveUp(message!, { attempt: 1, at: "2030-01-31T12:00:00Z", code: "c", message: "m" });
    await worker.close();
    return Number(id);
  }

  it("is listed and shown with who enqueued it, for whom, and why it was given up", async () => {
    const id = await givenUp("@w", "shop", "k");
    expect(await w.store.deadLetters.list({ origin: "queue", source: "@w" })).toMatchObject([{ id }]);
    expect(await w.store.deadLetters.get(id)).toMatchObject({
      ...{
        origin: "queue",
        role: "shop",
        source: "@w",
        listener: "w",
        enqueuedBy: "s-1",
        topic: "t",
        attempts: 1,
        worker: "w",
      },
      jobId: expect.stringMatching(/^\d+$/),
      ...{ errorCode: "handler_failed", errorMessage: "no", stack: "at a", sentAs: null },
      failures: [{ attempt: 1, at: "2030-01-31T12:00:00Z", code: "c", message: "m" }],
      headers: [
        ["message-origin", "s-1:s:shop"],
        ["message-key", "k"],
        ["message-expires", "1"],
        ["a", "b"],
      ],
    });
    const ofAll = await givenUp();
    expect(await w.store.deadLetters.get(ofAll)).toMatchObject({ source: "", listener: null });
  });

  it.each(["", "@w", "#g"])(
    "is retried for %o without its place in the order and its time to live, under the same id",
    async (recipient) => {
      const id = await givenUp(recipient, "shop", "k");
      const [before] = await rows<{ id: string }>("SELECT job_id AS id FROM hawser_data.dead_letters");
      expect(await w.store.deadLetters.retry({ ids: [id] })).toEqual([{ id, outcome: "enqueued" }]);
      expect(await w.store.deadLetters.retry({ ids: [id] })).toEqual([{ id, outcome: "missing" }]);
      const worker = await TestWorker.open(client, { name: "w", group: "g" });
      const [message] = await worker.take();
      expect(message).toMatchObject({
        ...{ topic: "t", recipient, role: "shop", key: null, attempts: 0, isSuspect: false, origin: "s-1:s" },
        headers: [
          ["message-origin", "s-1:s:shop"],
          ["message-key", "k"],
          ["a", "b"],
        ],
        id: BigInt(before!.id),
      });
      // Once more: it keeps the first id.
      const again = await worker.giveUp(message!);
      await w.store.deadLetters.retry({ ids: [Number(again)] });
      const [last] = await worker.take({ looksBehind: true });
      expect([last!.headers, last!.id]).toEqual([message!.headers, message!.id]);
    },
  );

  it("goes to the heir of a listener that was replaced", async () => {
    const id = await givenUp("@w");
    await w.store.reassignEnqueued("w", "heir");
    await w.store.deadLetters.retry({ ids: [id] });
    expect(await waiting()).toEqual(["t @heir x"]);
  });

  it("is retried, discarded and expired by members of the role that enqueued it", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const as = async <Result>(one: Login, call: () => Promise<Result>): Promise<Result> => {
      await client.query(`SET SESSION AUTHORIZATION ${one.role}`);
      const result = await call();
      await client.query("RESET SESSION AUTHORIZATION");
      return result;
    };
    const ids: number[] = [];
    for (let nth = 0; nth < 3; nth++) ids.push(await givenUp("", ann.role));
    const retry = () => rows("SELECT id::int, refused, enqueued FROM hawser.retry_dead_letters($1)", [ids[0]]);
    const discard = () => rows("SELECT id::int, refused FROM hawser.discard_dead_letters($1)", [ids[1]]);
    const expire = () => rows("SELECT deleted FROM hawser.expire_dead_letters(10)");
    expect(await as(mal, retry)).toEqual([{ id: ids[0], refused: "owner", enqueued: null }]);
    expect(await as(ann, retry)).toEqual([{ id: ids[0], refused: null, enqueued: true }]);
    expect(await as(mal, discard)).toEqual([{ id: ids[1], refused: "owner" }]);
    expect(await as(ann, discard)).toEqual([{ id: ids[1], refused: null }]);
    await client.query("UPDATE hawser_data.dead_letters SET created_at = now() - interval '1 year'");
    expect(await as(mal, expire)).toEqual([{ deleted: 0 }]);
    expect(await as(ann, expire)).toEqual([{ deleted: 1 }]);
    expect(await rows("SELECT role FROM hawser_data.queue")).toEqual([{ role: ann.role }]);
  });

  it("is counted by its origin, and is not retried if its row breaks a rule", async () => {
    const id = await givenUp();
    expect(await rows("SELECT origin, topic, messages::int AS count FROM hawser.dead_letter_counts(10)")).toEqual([
      { origin: "queue", topic: "t", count: 1 },
    ]);
    for (const fault of ["topic = E'a\\nb'", "headers = '[[1]]'", `headers = '[["a b\\n", "c"]]'`]) {
      await client.query(`UPDATE hawser_data.dead_letters SET ${fault}`);
      expect(await w.store.deadLetters.retry({ ids: [id] })).toMatchObject([{ outcome: "refused" }]);
    }
    expect(await waiting()).toEqual([]);
  });
});
