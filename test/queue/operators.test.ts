/** What operators and those who enqueue do with messages of the queue: cancel, hand over, forget, retry, discard. */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { forgetPeer, withCommandDatabase } from "../../src/operate/index.js";
import type { Lease } from "../../src/store/index.js";
import { type Login, login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, TestWorker, textsOf } from "./support/test-worker.js";

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
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.dead_letters, hawser_data.listeners, hawser_data.outbox_later",
  );
});

async function rows<Row extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<Row[]> {
  return (await client.query<Row>(sql, values)).rows;
}

const waiting = async (): Promise<string[]> =>
  (
    await rows<{ text: string }>(
      "SELECT topic || ' ' || recipient || ' ' || convert_from(payload, 'UTF8') AS text FROM hawser_data.queue ORDER BY id",
    )
  ).map(({ text }) => text);

describe("hawser.cancel", () => {
  const cancel = async (id: bigint | string, on: pg.Client = client): Promise<boolean> =>
    (await on.query("SELECT hawser.cancel($1) AS is", [String(id)])).rows[0].is;

  it("deletes a message that waits, wherever it is, and no other", async () => {
    const ids = [
      ...(await enqueue(client, "a", ["1", "2"])),
      ...(await enqueue(client, "a", ["3"], { recipient: "@w", role: "other" })),
      ...(await enqueue(client, "z", ["4"], { recipient: "#g", key: "k" })),
      ...(await enqueue(client, "z", ["5"], { toAll: true })),
    ];
    await client.query("BEGIN");
    for (const id of ids) expect(await cancel(id)).toBe(true);
    await client.query("ROLLBACK");
    for (const index of [1, 2, 3]) expect(await cancel(ids[index]!)).toBe(true);
    expect(await waiting()).toEqual(["a  1", "z  5"]);
    expect(await cancel(ids[1]!)).toBe(false);
    expect(await cancel(9_000_000n)).toBe(false);
  });

  it("leaves what a worker has, until it is free again: given back, put off, or of a worker that is gone", async () => {
    const worker = await TestWorker.open(client);
    const [a, b, c] = (await enqueue(client, "t", ["a", "b", "c"])) as [bigint, bigint, bigint];
    const [first, second] = await worker.take();
    for (const id of [a, b, c]) expect(await cancel(id)).toBe(false);
    await worker.giveBack(first!);
    await worker.retry(second!, 1_000_000);
    expect([await cancel(a), await cancel(b), await cancel(c)]).toEqual([true, true, false]);
    await client.query("UPDATE hawser_data.workers SET gone_at = now()");
    expect(await cancel(c)).toBe(true);
    expect(await waiting()).toEqual([]);
  });

  it("does not wait for a worker that is just taking the message, or has handled it and not committed", async () => {
    const [id] = (await enqueue(client, "t", ["a"])) as [bigint];
    const worker = await TestWorker.open(other);
    await client.query("SET lock_timeout = '10s'");
    await other.query("BEGIN");
    const [message] = await worker.take();
    expect(await cancel(id)).toBe(false);
    await other.query("COMMIT");
    await client.query("UPDATE hawser_data.workers SET gone_at = now()");
    await other.query("BEGIN");
    await worker.done(message!);
    expect(await cancel(id)).toBe(false);
    await other.query("ROLLBACK");
    expect(await cancel(id)).toBe(true);
  });

  it("keeps a worker from taking the message, and wakes those that have left what is behind it", async () => {
    const worker = await TestWorker.open(other);
    const [id] = (await enqueue(client, "t", ["a"], { key: "k" })) as [bigint];
    await enqueue(client, "t", ["b"], { key: "k" });
    const heard: (string | undefined)[] = [];
    other.on("notification", ({ payload }) => void heard.push(payload));
    await other.query("LISTEN hawser_queue");
    await other.query("SELECT hawser.wait_for('{t}')");
    await client.query("BEGIN");
    expect(await cancel(id)).toBe(true);
    expect(await worker.take()).toEqual([]);
    await client.query("COMMIT");
    await other.query("SELECT hawser.stop_waiting('{t}'); UNLISTEN *");
    expect(heard).toEqual(["t"]);
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["b"]);
  });

  it("is for members of the role that enqueued the message", async () => {
    await using ann = await login(w.url, "IN ROLE hawser_peer");
    await using mal = await login(w.url, "IN ROLE hawser_peer");
    const as = async (one: Login, id: bigint): Promise<boolean> => {
      await client.query(`SET SESSION AUTHORIZATION ${one.role}`);
      const is = await cancel(id);
      await client.query("RESET SESSION AUTHORIZATION");
      return is;
    };
    const [id] = (await enqueue(client, "t", ["a"], { role: ann.role })) as [bigint];
    expect([await as(mal, id), await as(ann, id)]).toEqual([false, true]);
    await enqueue(client, "t", ["b"], { role: mal.role });
    expect(await waiting()).toEqual(["t  b"]);
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
    const headers = [["a", "b"]] as const;
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
      ...{ origin: "queue", role: "shop", source: "@w", listener: "w", enqueuedBy: "s-1", topic: "t", attempts: 1 },
      ...{ errorCode: "handler_failed", errorMessage: "no", stack: "at a", retried: false },
      failures: [{ attempt: 1, at: "2030-01-31T12:00:00Z", code: "c", message: "m" }],
      headers: [
        ["message-origin", "s-1:s:shop"],
        ["message-key", "k"],
        ["a", "b"],
      ],
    });
    const ofAll = await givenUp();
    expect(await w.store.deadLetters.get(ofAll)).toMatchObject({ source: "", listener: null });
  });

  it.each(["", "@w", "#g"])(
    "is retried for %o without its place in the order, under the same id",
    async (recipient) => {
      const id = await givenUp(recipient, "shop", "k");
      const [before] = await rows<{ place: string; payload: Buffer }>(
        "SELECT '__#outbox/' || epoch || '/' || number AS place FROM hawser_data.dead_letters",
      );
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
          ["message-id", before!.place],
        ],
      });
      // Once more: it keeps the first id.
      const again = await worker.giveUp(message!);
      await w.store.deadLetters.retry({ ids: [Number(again)] });
      const [last] = await worker.take({ looksBehind: true });
      expect(last!.headers).toEqual(message!.headers);
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
