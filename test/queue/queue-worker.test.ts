/**
 * What is enqueued is for whoever has room: all workers that handle its topic share it.
 */

import pg from "pg";
import { afterEach, expect, it, onTestFinished, vi } from "vitest";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { enqueueBatch, RetryAfter } from "../../src/jobs-and-peers/peer/index.js";
import { Queue } from "../../src/jobs-and-peers/store/index.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import type { Handler, RecordingWorker, TestWorkerOptions } from "../peer/support/world.js";
import { type Proxy as DatabaseProxy, startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { TestWorker } from "./support/test-worker.js";

const world = sharedPeerWorld();
const proxies: DatabaseProxy[] = [];
afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy[Symbol.asyncDispose]();
});

const slowly = (name: string, options: TestWorkerOptions = {}, handler?: Handler): Promise<RecordingWorker> =>
  world.working(name, { concurrency: 1, ...options }, handler);

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);
const numerically = (one: string, other: string): number => Number(one) - Number(other);
const textOf = ({ payload }: { readonly payload: Uint8Array }): string => Buffer.from(payload).toString();

async function enqueue(texts: readonly string[], key: string | null = null): Promise<void> {
  await world.query("SELECT hawser.enqueue_batch('b', $1::text[], key => $2)", [texts, key]);
}

const nothingIsLeft = () => eventually("nothing is left", async () => (await world.storedMessages()) === 0);

/** Makes a table for effects, and returns a handler that has them. */
async function ledger(): Promise<Handler> {
  await world.query("CREATE TABLE ledger (id bigserial, what text)");
  return async ({ client, payload }) => {
    await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
  };
}

async function effects(): Promise<string[]> {
  return (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY id")).map(({ what }) => what);
}

/** A way to the database that can be cut. A worker that takes it has sessions of its own. */
async function proxied(): Promise<DatabaseProxy> {
  const proxy = await startProxy(world.url);
  proxies.push(proxy);
  return proxy;
}

it("a slow worker holds the message in its handler and the next one, and the others have the rest", async () => {
  const held = gate();
  const slow = await slowly("b-1", {}, () => held.opened);
  await enqueue(["0"]);
  await slow.received.length(1);
  const fast = await slowly("b-2", { defaults: { group: true } });
  await enqueue(numbers(1, 399));
  await eventually("the fast one has nearly all", () => fast.texts.length >= 398);
  held.open();
  await eventually("all are handled", () => fast.texts.length + slow.texts.length === 400);
  expect(slow.texts.length).toBeLessThanOrEqual(2);
  expect(new Set([...fast.texts, ...slow.texts]).size).toBe(400);
});

it("messages with a great priority have ids of their own", async () => {
  const ids: string[] = [];
  await world.working("b-1", {}, ({ id }) => void ids.push(id!));
  const enqueued = await enqueueBatch(world, "b", numbers(1, 5), { priority: -32_768 });
  await eventually("all are handled", () => ids.length === 5);
  expect(ids.map((id) => id.split("/").at(-1)).toSorted()).toEqual(enqueued.map(String).toSorted());
});

it("nobody handles what is behind a message of its key that waits to be tried again, and all else goes on", async () => {
  const options: TestWorkerOptions = { concurrency: 4, defaults: { retry: { delayMs: 3_600_000, attempts: 2 } } };
  const handled: string[] = [];
  let fails = true;
  const handler: Handler = (message) => {
    handled.push(message.text());
    if (fails && message.text() === "first") throw new Error("later");
  };
  for (const name of ["b-1", "b-2"]) await world.working(name, options, handler);
  await enqueue(["first", "second"], "k");
  const due = "SELECT FROM hawser_data.queue WHERE due_at > now()";
  await eventually("it waits", async () => (await world.query(due)).length > 0);
  await enqueue(["third"], "k");
  await enqueue(["free"]);
  await enqueue(["other"], "l");
  await eventually("the others are handled", () => handled.length === 3);
  expect(handled.toSorted()).toEqual(["first", "free", "other"]);
  fails = false;
  await world.query("UPDATE hawser_data.queue SET due_at = now() WHERE due_at IS NOT NULL");
  await enqueue(["wakes"]);
  await nothingIsLeft();
  expect(handled.slice(3).filter((text) => text !== "wakes")).toEqual(["first", "second", "third"]);
});

it("what waits to be tried again holds up what its role has enqueued with its key, and nothing of other roles", async () => {
  const options: TestWorkerOptions = { concurrency: 1, defaults: { retry: { delayMs: 3_600_000, attempts: 2 } } };
  const other = `other ${process.pid}`;
  await world.query(`CREATE ROLE "${other}" IN ROLE hawser_peer`);
  try {
    await enqueue(["fails", "behind it"], "k");
    await world.query(`SET ROLE "${other}"`);
    await enqueue(["1", "2"], "k");
    await world.query("RESET ROLE");
    const b = await world.working("b-1", options, ({ payload }) => {
      if (textOf({ payload }) === "fails") throw new Error("later");
    });
    await b.received.length(3);
    expect(b.texts.filter((text) => text !== "fails")).toEqual(["1", "2"]);
    await eventually("the rest waits", async () => (await world.storedMessages()) === 2);
    expect(await world.query("SELECT FROM hawser_data.queue WHERE worker IS NOT NULL")).toEqual([]);
  } finally {
    await world.query(`RESET ROLE; DROP ROLE "${other}"`);
  }
});

it("what a take brings that was under way at a give-back is given back, too, so that its key stays in order", async () => {
  const proxy = await proxied();
  const held = gate();
  const b = await slowly("b-1", { databaseUrl: proxy.url }, () => held.opened);
  const leased = "SELECT FROM hawser_data.queue WHERE worker IS NOT NULL";
  await enqueue(["0", "1"], "k");
  await b.received.length(1);
  await eventually("it has both", async () => (await world.query(leased)).length === 2);
  const taking = proxy.holdAt("hawser.take");
  await enqueue(["2", "3"], "k");
  const release = await taking;
  b.pause("b");
  b.resume("b");
  release();
  held.open();
  await nothingIsLeft();
  expect(b.texts).toEqual(["0", "1", "2", "3"]);
});

it("each key is in order, with one worker at a time, and messages without a key are for whoever is free", async () => {
  const running = new Map<string, string>();
  const seen: string[] = [];
  const handler: Handler = async ({ key, payload }) => {
    const text = Buffer.from(payload).toString();
    if (key !== undefined) {
      expect(running.get(key)).toBeUndefined();
      running.set(key, text);
    }
    await new Promise((resolve) => setImmediate(resolve));
    if (key !== undefined) running.delete(key);
    seen.push(`${key} ${text}`);
  };
  await Promise.all(["b-1", "b-2", "b-3"].map((name) => world.working(name, { concurrency: 4 }, handler)));
  for (let n = 0; n < 20; n++) {
    await enqueue([`${3 * n}`, `${3 * n + 1}`, `${3 * n + 2}`], `key ${n % 5}`);
    await enqueue(["any"]);
  }
  await eventually("all are handled", () => seen.length === 80);
  for (let key = 0; key < 5; key++) {
    const ofKey = seen.filter((text) => text.startsWith(`key ${key} `)).map((text) => Number(text.split(" ")[2]));
    expect(ofKey).toEqual(ofKey.toSorted((one, other) => one - other));
  }
});

it("what a worker has when it is gone is taken over, with the order of its keys and each effect once", async () => {
  const write = await ledger();
  const held = gate();
  const options: TestWorkerOptions = { transactional: true, concurrency: 2, defaults: { takeoverMs: 1_000 } };
  const gone = await world.working("b-1", options, async (message) => {
    await write(message);
    await held.opened;
  });
  await enqueue(numbers(1, 6), "x");
  await enqueue(["y"]);
  await gone.received.length(2);
  await gone.stop({ timeoutMs: 0 });
  const heir = await world.working("b-2", options, write);
  await enqueue(numbers(7, 9), "x");
  await eventually("all have their effects", async () => (await effects()).length === 10);
  held.open();
  expect((await effects()).filter((text) => text !== "y")).toEqual(numbers(1, 9));
  expect(heir.texts.length).toBe(10);
});

it("of what a worker had that is gone, all is handled at once, and only what may have been running was tried", async () => {
  const gone = new pg.Client({ connectionString: world.url });
  await gone.connect();
  try {
    await enqueue(numbers(1, 30));
    const open = "SELECT worker FROM hawser.open_worker('elsewhere', '{b}', NULL, 1000, 10, NULL)";
    const { rows } = await gone.query<{ worker: string }>(open);
    const take = "SELECT FROM hawser.take($1, 30, 1000000, NULL, '{}') WHERE payload IS NOT NULL";
    expect((await gone.query(take, [rows[0]!.worker])).rows).toHaveLength(30);
    const all = gate();
    let running = 0;
    const heir = await world.working("b-1", { concurrency: 30, defaults: { takeoverMs: 1_000 } }, () => {
      running += 1;
      if (running === 30) all.open();
      // Fewer at a time would wait for ever.
      return all.opened;
    });
    await nothingIsLeft();
    const attempts = heir.received.all.map(({ text, attempt }) => [Number(text), attempt]);
    expect(attempts.sort(([one], [other]) => one! - other!)).toEqual(
      numbers(1, 30).map((text, index) => [Number(text), index < 10 ? 2 : 1]),
    );
  } finally {
    await gone.end();
  }
});

it("a peer that starts again under its name has at once what it did not end, and does not wait until that is taken over", async () => {
  const held = gate();
  const gone = world.peer("b-1", { concurrency: 2, defaults: { takeoverMs: 600_000 } });
  await gone.record(() => held.opened);
  await enqueue(numbers(1, 4));
  await gone.received.length(2);
  await gone.stop({ timeoutMs: 0 });
  const again = await world.started("b-1", { defaults: { takeoverMs: 600_000 } });
  await again.received.length(4);
  const attempts = again.received.all.map(({ text, attempt }) => `${text} ${attempt}`);
  expect(attempts.sort()).toEqual(["1 1", "2 1", "3 1", "4 1"]);
  held.open();
});

it("a worker that stops gives back at once what it has not begun, while its handlers end", async () => {
  const held = gate();
  const stopping = await world.working("b-1", { concurrency: 20 }, () => held.opened);
  await enqueue(numbers(1, 100));
  await stopping.received.length(20);
  const stopped = stopping.stop();
  // Nothing is taken over within the test.
  const heir = await world.working("b-2", { concurrency: 20, defaults: { takeoverMs: 600_000 } });
  await eventually("the other one has the rest", () => heir.texts.length === 80);
  await eventually("they are done", async () => (await world.storedMessages()) === 20);
  await enqueue(["101"]);
  await heir.received.find(({ text }) => text === "101");
  held.open();
  await stopped;
  expect(await world.storedMessages()).toBe(0);
  expect([...stopping.texts, ...heir.texts].sort(numerically)).toEqual(numbers(1, 101));
  expect(heir.received.all.every(({ attempt }) => attempt === 1)).toBe(true);
  expect(await world.query("SELECT name FROM hawser_data.workers")).toEqual([{ name: `b-2:${process.pid}` }]);
});

it("a worker that stops while a message waits to be tried again handles nothing again that it has finished", async () => {
  const handled: string[] = [];
  let isUnlucky = true;
  const b = world.worker("b-1", { concurrency: 4 });
  const retry = { attempts: 5, delayMs: 3_600_000 };
  await b.handle("b", { retry }, (message) => {
    handled.push(message.text());
    if (message.text() === "0" && isUnlucky) throw new Error("not yet");
  });
  await b.start();
  await enqueue(numbers(0, 100));
  await eventually("all have begun", () => new Set(handled).size === 101);
  await b.stop();
  expect(await world.storedMessages()).toBe(1);
  await world.query("UPDATE hawser_data.queue SET due_at = now()");
  isUnlucky = false;
  handled.length = 0;
  await b.start();
  await enqueue(["last"]);
  await eventually("nothing is left", async () => handled.includes("last") && (await world.storedMessages()) === 0);
  expect(handled.sort()).toEqual(["0", "last"]);
});

it("messages of a topic that a worker does not handle any more are for the others, and no dead letters", async () => {
  const held = gate();
  const b = await slowly("b-1", { concurrency: 4 }, () => held.opened);
  await b.recordTopic("c");
  await enqueue(numbers(1, 10));
  await b.received.length(4);
  await b.leave("b");
  held.open();
  await eventually("what runs ends", async () => (await world.storedMessages()) === 6);
  await world.query("SELECT hawser.enqueue('c', 'goes on'::text)");
  await b.received.find(({ text }) => text === "goes on");
  const other = world.worker("other-1");
  await other.recordTopic("b");
  await other.start();
  await other.received.length(6);
  expect([...b.texts.slice(0, 4), ...other.texts].sort(numerically)).toEqual(numbers(1, 10));
  expect(await world.deadLetters(0)).toEqual([]);
});

it("a message that waits for a connection when its handler ends is for the others, too", async () => {
  const held = gate();
  const b = await world.working("b-1", { transactional: true, concurrency: 2, poolSize: 2 }, () => held.opened);
  await b.recordTopic("c");
  await enqueue(["begun", "waits"]);
  await b.received.length(1);
  await b.leave("b");
  held.open();
  await eventually("what runs ends", async () => (await world.storedMessages()) === 1);
  const other = world.worker("other-1");
  await other.recordTopic("b");
  await other.start();
  await other.received.length(1);
  expect([...b.texts, ...other.texts].toSorted()).toEqual(["begun", "waits"]);
  expect(await world.deadLetters(0)).toEqual([]);
});

it("transactional handlers of batches have each effect once", async () => {
  await world.query("CREATE TABLE ledger (id bigserial, what text)");
  const workers = ["b-1", "b-2"].map((name) => world.worker(name, { concurrency: 2 }));
  for (const each of workers) {
    await each.handleBatch("b", { transactional: true, maxMessages: 10 }, async (messages, { client }) => {
      const texts = messages.map(({ payload }) => Buffer.from(payload).toString());
      if (texts.includes("13") && texts.length > 1) throw new Error("not with others");
      await client.query("INSERT INTO ledger (what) SELECT unnest($1::text[])", [texts]);
    });
  }
  await enqueue(numbers(1, 100));
  for (const each of workers) await each.start();
  await eventually("all have their effects", async () => (await effects()).length >= 100);
  await nothingIsLeft();
  expect((await effects()).sort(numerically)).toEqual(numbers(1, 100));
});

it("messages that were enqueued while no worker ran are shared by those that come", async () => {
  await enqueue(numbers(1, 20));
  const held = gate();
  const slow = await slowly("b-2", {}, () => held.opened);
  await slow.received.length(1);
  const fast = await slowly("b-3");
  await eventually("the other one has nearly all", () => fast.texts.length >= 18);
  held.open();
  await nothingIsLeft();
});

it("messages of two roles and for two groups come without a poll, however many there are of one", async () => {
  noTimersAbove(1_000);
  await world.query(`CREATE ROLE "shop ${process.pid}" IN ROLE hawser_peer`);
  try {
    const b = await world.working("b-1", { concurrency: 3, defaults: { group: "red" } });
    const rest = numbers(1, 200);
    await enqueue(["0"]);
    await enqueueBatch(world, "b", ["copy"], { all: true });
    await world.query(`SET ROLE "shop ${process.pid}"`);
    await enqueue(["other"]);
    await world.query("RESET ROLE");
    await b.received.length(3);
    await enqueue(rest);
    await b.received.length(203);
    expect(b.texts.slice(3).sort(numerically)).toEqual(rest);
  } finally {
    await world.query(`RESET ROLE; DROP ROLE "shop ${process.pid}"`);
  }
});

it("a message of another topic does not wait for the end of a backlog", async () => {
  const total = 2_000;
  const other = gate();
  let [begun, ended, endedBefore] = [0, 0, total];
  const worker = world.worker("b-1", { concurrency: 2 });
  await worker.handle("other", async () => {
    endedBefore = ended;
    other.open();
  });
  await worker.handle("b", async () => {
    begun += 1;
    // The other handler goes on with the backlog meanwhile.
    if (begun === 50) {
      await world.query("SELECT hawser.enqueue('other', 'x')");
      await other.opened;
    }
    ended += 1;
  });
  await enqueue(numbers(1, total));
  await worker.start();
  await eventually("all have ended", () => ended === total);
  expect(endedBefore).toBeLessThan(total - 1);
  await nothingIsLeft();
});

it("a message that is committed behind one with a greater number comes with the notification for both", async () => {
  noTimersAbove(1_000);
  const held = gate();
  const b = await slowly("b-1", {}, (message) => (message.text() === "holds" ? held.opened : undefined));
  const late = new pg.Client({ connectionString: world.url });
  await late.connect();
  try {
    await enqueue(["first"]);
    await b.received.length(1);
    await late.query("BEGIN");
    await late.query("SELECT hawser.enqueue('b', 'late'::text)");
    await enqueue(["holds"]);
    await b.received.length(2);
    await enqueue(["next", "another"]);
    // The worker hears of both before it has room.
    await late.query("COMMIT");
    await enqueue(["last"]);
    held.open();
    await b.received.length(6);
    expect(b.texts.slice(2).sort()).toEqual(["another", "last", "late", "next"]);
  } finally {
    await late.end();
  }
});

it.each(["cut", "ended by Postgres"])(
  "handlers that run when the session of the queue is %s go on, are started nowhere again, and what they did counts",
  async (how) => {
    await world.query("SELECT hawser.limit_topic('b', running => 4)");
    const proxy = await proxied();
    const held = gate();
    const b = await world.working("b-1", { concurrency: 4, databaseUrl: proxy.url }, () => held.opened);
    await enqueue(numbers(1, 6), "k");
    await enqueue(numbers(7, 9));
    await b.received.length(4);
    const name = `b-1:${process.pid}`;
    const workers = () => world.query<{ id: number }>("SELECT id FROM hawser_data.workers WHERE name = $1", [name]);
    const before = await workers();
    const heir = await world.working("b-2", { concurrency: 10 }, () => held.opened);
    const sessions = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser: queue'";
    if (how === "cut") proxy.cut();
    else await world.query(`SELECT pg_terminate_backend(pid, 10000) ${sessions}`);
    await eventually("it goes on under another id", async () => {
      const now = await workers();
      return now.length === 1 && now[0]!.id !== before[0]!.id;
    });
    // Whoever looks now finds what is free.
    const client = new pg.Client({ connectionString: world.url });
    await client.connect();
    const other = await TestWorker.open(client, { topics: ["b"] });
    expect((await other.take()).map(textOf)).toEqual([]);
    await other.close();
    await client.end();
    const [{ count }] = (await world.query(
      "SELECT count(*)::int FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker WHERE w.name = $1",
      [name],
    )) as [{ count: number }];
    expect(count).toBe(4);
    expect(heir.texts).toEqual([]);
    held.open();
    await nothingIsLeft();
    expect([...b.texts, ...heir.texts].sort(numerically)).toEqual(numbers(1, 9));
    expect([...b.received.all, ...heir.received.all].every(({ attempt }) => attempt === 1)).toBe(true);
  },
);

it("what was handled while the session of the queue was lost is not handled again", async () => {
  const proxy = await proxied();
  const held = gate();
  const b = await world.working("b-1", { concurrency: 4, databaseUrl: proxy.url }, () => held.opened);
  await enqueue(numbers(1, 8));
  await b.received.length(4);
  proxy.leadTo("postgres://127.0.0.1:1/nowhere");
  proxy.cut();
  held.open();
  await eventually("they have ended", () => b.health().ready === false);
  proxy.leadTo(world.url);
  await nothingIsLeft();
  expect(b.texts.sort(numerically)).toEqual(numbers(1, 8));
});

it.each(["before", "sent", "answered"] as const)(
  "a take, or the end of messages, whose connection is cut %s Postgres has carried it out, loses none and has each effect once",
  async (stage) => {
    const proxy = await proxied();
    const write = await ledger();
    const options: TestWorkerOptions = { transactional: true, concurrency: 3, databaseUrl: proxy.url };
    const b = await world.working("b-1", options, write);
    const all = numbers(1, 60);
    for (const statement of ["hawser.take", "hawser.done", "hawser.wait_for"]) {
      void proxy.cutAt(statement, stage);
      await enqueue(all.splice(0, 10));
      await enqueue(all.splice(0, 10), "k");
      await nothingIsLeft();
    }
    expect((await effects()).sort(numerically)).toEqual(numbers(1, 60));
    const ofKey = (await effects()).filter((text) => ((Number(text) - 1) / 10) % 2 >= 1);
    expect(ofKey).toEqual(ofKey.toSorted(numerically));
    expect(b.texts.length).toBeGreaterThanOrEqual(60);
  },
);

it("a message whose handler's session ends is handled again, and has its effects once", async () => {
  const write = await ledger();
  const retry = { attempts: 4, delayMs: 1 };
  const b = await world.working("b-1", { transactional: true, defaults: { retry } }, async (message) => {
    await write(message);
    if (textOf(message) === "dies" && message.attempt < 3)
      await message.client.query("SELECT pg_terminate_backend(pg_backend_pid())").catch(() => undefined);
  });
  await enqueue(["dies", "behind"], "k");
  await enqueue(["free"]);
  await nothingIsLeft();
  expect((await effects()).sort()).toEqual(["behind", "dies", "free"]);
  const starts = b.received.all.map(({ text, attempt }) => `${text} ${attempt}`);
  expect(starts.filter((text) => text !== "free 1")).toEqual(["dies 1", "dies 2", "dies 3", "behind 1"]);
});

it("an error of a handler is kept as far as it can be, whatever it says, with the time of each attempt", async () => {
  const texts = [`\0 \ud800 postgres://me:secret@host/x ${"\u0001".repeat(600)} ä`, "x".repeat(100_000)];
  const retry = { attempts: 2, delayMs: 1 };
  const b = await world.working("b-1", { defaults: { retry } }, (message) => {
    throw new Error(texts[Number(message.text())]);
  });
  await enqueue(["0", "1"]);
  const letters = await world.deadLetters(2);
  expect(b.received.all).toHaveLength(4);
  for (const { failures, attempts, error_message, stack } of letters) {
    expect(attempts).toBe(2);
    expect(failures).toMatchObject([
      { attempt: 1, code: "handler_failed", at: expect.stringMatching(/^20.*Z$/) },
      { attempt: 2, code: "handler_failed", at: expect.stringMatching(/^20.*Z$/) },
    ]);
    expect(`${error_message} ${stack} ${JSON.stringify(failures)}`).not.toContain("secret");
  }
});

it("messages that are put off start at their times, also when the session was lost meanwhile", async () => {
  // No beat.
  noTimersAbove(1_000);
  const tried = new Set<string>();
  const b = await world.working("b-1", {}, (message) => {
    const text = textOf(message);
    if (tried.has(text)) return;
    tried.add(text);
    throw new RetryAfter(Number(text));
  });
  const delays = ["400", "600", "800"];
  await enqueue(delays);
  await eventually("all are put off", async () => {
    const [row] = await world.query<{ count: number }>(
      "SELECT count(*)::int FROM hawser_data.queue WHERE due_at IS NOT NULL AND worker IS NULL",
    );
    return row!.count === 3 || b.received.all.length > 3;
  });
  await world.query(
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser: queue'",
  );
  await nothingIsLeft();
  expect(b.texts.slice(3).toSorted()).toEqual(delays);
});

it("a worker that has taken something since its last beat does not say that it rests", async () => {
  const calls: string[] = [];
  for (const name of ["take", "rest", "extend"] as const) {
    const real = Queue.prototype[name] as (...given: unknown[]) => Promise<never>;
    const spy = vi.spyOn(Queue.prototype, name).mockImplementation(function (this: Queue, ...given: unknown[]) {
      calls.push(name);
      return real.apply(this, given);
    });
    onTestFinished(() => spy.mockRestore());
  }
  const every = { everyMs: polls.everyMs };
  onTestFinished(() => void Object.assign(polls, every));
  Object.assign(polls, { everyMs: 50 });
  const b = await world.working("b-1");
  for (const text of numbers(1, 20)) {
    await enqueue([text]);
    await b.received.length(Number(text));
  }
  await eventually("it rests", () => calls.slice(calls.lastIndexOf("take")).includes("rest"));
  for (const beat of calls.join(" ").split("extend")) expect(beat).not.toMatch(/take.*rest/);
});

it("what is free behind many messages of a key that another worker has comes without a poll", async () => {
  noTimersAbove(1_000);
  const held = gate();
  const holder = await slowly("b-1", {}, () => held.opened);
  await enqueue(numbers(1, 200), "hot");
  await holder.received.length(1);
  const other = await slowly("b-2");
  await enqueue(numbers(201, 220));
  await other.received.length(19);
  expect(other.texts.every((text) => Number(text) > 200)).toBe(true);
  held.open();
  await nothingIsLeft();
  const hot = [...holder.texts, ...other.texts.slice(0)].filter((text) => Number(text) <= 200);
  expect(hot.toSorted(numerically)).toEqual(numbers(1, 200));
});

it("a key with many messages holds up no other one, nor messages without a key", async () => {
  const held = gate();
  await enqueue(numbers(1, 1_200), "hot");
  await enqueue(["cold"], "cold");
  await enqueue(["free"]);
  const b = await world.working("b-1", { concurrency: 4 }, (message) =>
    textOf(message) === "1" ? held.opened : undefined,
  );
  await b.received.length(3);
  expect(b.texts.toSorted()).toEqual(["1", "cold", "free"]);
  await world.query("DELETE FROM hawser_data.queue WHERE key = 'hot' AND worker IS NULL");
  held.open();
  await nothingIsLeft();
});

it("messages in front of one that is due again come without a poll", async () => {
  noTimersAbove(1_000);
  await enqueue(numbers(1, 50));
  await world.query("UPDATE hawser_data.queue SET due_at = now() WHERE convert_from(payload, 'UTF8') = '50'");
  const b = await slowly("b-1");
  await b.received.length(50);
  expect(b.texts.toSorted(numerically)).toEqual(numbers(1, 50));
});

it("messages that may have ended their process start one after another for the last time, each once, and leave no place too many", async () => {
  await enqueue(numbers(1, 6));
  const open = "SELECT worker FROM hawser.open_worker('elsewhere', '{b}', NULL, 1000, 10, NULL)";
  const [opened] = await world.query<{ worker: string }>(open);
  await world.query("SELECT FROM hawser.take($1, 10, 1000000, NULL, '{}')", [opened!.worker]);
  await world.query("UPDATE hawser_data.workers SET gone_at = now(); UPDATE hawser_data.queue SET attempts = 3");
  let [running, most] = [0, 0];
  const options: TestWorkerOptions = { concurrency: 4, defaults: { retry: { attempts: 5, delayMs: 1 } } };
  const b = await world.working("b-1", options, async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
  });
  await nothingIsLeft();
  expect(b.received.all.map(({ text, attempt }) => `${text} ${attempt}`).toSorted()).toEqual(
    numbers(1, 6).map((text) => `${text} 5`),
  );
  expect(most).toBe(1);
  await enqueue(numbers(7, 60));
  await nothingIsLeft();
  expect(most).toBe(4);
  expect(b.statuses.all).toEqual([]);
});

/** Lives of a worker that takes all there is, tells that it begins the messages with these texts, and ends uncleanly. */
async function diesWith(texts: readonly string[], lives: number): Promise<void> {
  const open = "SELECT worker FROM hawser.open_worker('elsewhere', '{b}', NULL, 1000, 10, NULL)";
  for (let life = 0; life < lives; life++) {
    const [opened] = await world.query<{ worker: string }>(open);
    await world.query(
      `SELECT hawser.begin($1, array_agg(topic), array_agg(recipient), array_agg(role), array_agg(rank))
         FROM hawser.take($1, 100, 1000000, NULL, '{}') WHERE convert_from(payload, 'UTF8') = ANY ($2)
       HAVING count(*) > 0`,
      [opened!.worker, texts],
    );
    await world.query("UPDATE hawser_data.workers SET gone_at = now()");
  }
}

it("a message that ends its process each time is dead after its attempts, and what was only taken with it is not", async () => {
  await enqueue([...numbers(1, 20), "bad"]);
  await diesWith(["bad"], 5);
  const b = await world.working("b-1", { defaults: { retry: { attempts: 5, delayMs: 1 } } });
  expect(await world.deadLetters(1)).toMatchObject([{ error_code: "handler_crashed", attempts: 5 }]);
  await nothingIsLeft();
  expect(b.texts.toSorted(numerically)).toEqual(numbers(1, 20));
});

it("a message that has one attempt, and was never begun, begins whatever ended those that had taken it", async () => {
  await enqueue(numbers(1, 5));
  await diesWith([], 3);
  const b = await world.working("b-1", { defaults: { retry: { attempts: 1 } } });
  await nothingIsLeft();
  expect(b.received.all.map(({ text, attempt }) => `${text} ${attempt}`).toSorted()).toEqual(
    numbers(1, 5).map((text) => `${text} 1`),
  );
  expect(await world.deadLetters(0)).toEqual([]);
});

it("while a message runs alone, what its process had read ahead is for others", async () => {
  await enqueue(["suspect"]);
  await diesWith(["suspect"], 4);
  await enqueue(numbers(1, 20));
  const held = gate();
  const options: TestWorkerOptions = { defaults: { takeoverMs: 600_000, retry: { attempts: 5, delayMs: 1 } } };
  const one = await world.working("b-1", options, () => held.opened);
  await one.received.length(1);
  const other = await world.working("b-2", options);
  await other.received.length(20);
  held.open();
  await nothingIsLeft();
  expect(one.texts).toEqual(["suspect"]);
});

it("a start that is told is one of the worker that has the message", async () => {
  const held = gate();
  const b = await world.working("b-1", { concurrency: 4, defaults: { retry: { attempts: 1 } } }, () => held.opened);
  await enqueue(numbers(1, 3));
  await b.received.length(3);
  const told = "SELECT count(*)::int AS told FROM hawser_data.queue WHERE begun_by = worker";
  expect(await world.query(told)).toEqual([{ told: 3 }]);
  held.open();
  await nothingIsLeft();
});

it("handlers that return at once are called from one turn, not from the end of each other", async () => {
  await enqueue(numbers(1, 500));
  const depths: number[] = [];
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = Number.POSITIVE_INFINITY;
  try {
    await world.working("b-1", { concurrency: 2 }, () => {
      depths.push(new Error("here").stack!.split("\n").length);
    });
    await nothingIsLeft();
  } finally {
    Error.stackTraceLimit = limit;
  }
  expect(Math.max(...depths)).toBeLessThan(Math.min(...depths) + 20);
});

it("a worker begins what another one has put off when it is due, also if that one has ended", async () => {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await enqueue(["again"]);
  const gone = await TestWorker.open(client, { topics: ["b"] });
  const [taken] = await gone.take();
  const worker = await world.working("b-1");
  await gone.retry(taken!, 700);
  await gone.close();
  // Its other beats come later.
  noTimersAbove(900);
  await client.query("NOTIFY hawser_topic_settings, 'b'");
  await worker.received.length(1);
  expect(worker.texts).toEqual(["again"]);
  await client.end();
});
