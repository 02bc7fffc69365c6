/**
 * `concurrency` of a handler: how many of its calls run at a time, for all senders together.
 */

import pg from "pg";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { silentLogger, systemClock } from "../../src/foundation/runtime/index.js";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { enqueue, enqueueBatch, type Message, Peer } from "../../src/jobs-and-peers/peer/index.js";
import { acquireDatabase, poolGrowth } from "../../src/jobs-and-peers/peer-store/shared-database.js";
import { queueApplicationName } from "../../src/jobs-and-peers/store/index.js";
import { login } from "../installation/support/logins.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import { type Handler, peerWorld } from "./support/world.js";

const world = sharedPeerWorld();

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`);
const nothing = (): void => undefined;

/** No poll starts what was to be started when a limit was free. */
beforeEach(() => noTimersAbove(polls.everyMs / 2));

/** A handler that counts how many of its calls run at a time, each of which takes some turns of the event loop. */
function counted(act: (message: Message) => unknown = nothing) {
  const ended = new Log<string>();
  const count = { running: 0, most: 0, ended };
  const handler = async (message: Message): Promise<void> => {
    count.running += 1;
    count.most = Math.max(count.most, count.running);
    for (let n = 0; n < 3; n++) await new Promise((resolve) => setImmediate(resolve));
    await act(message);
    count.running -= 1;
    ended.push(`${message.sender} ${message.text()}`);
  };
  return { count, handler };
}

describe("concurrency of handle", () => {
  it("limits the calls for all senders together, and keeps the order of each sender", async () => {
    const b = world.peer("b-1");
    const { count, handler } = counted();
    await b.handle("jobs", { concurrency: 1 }, handler);
    await b.start();
    const senders = await world.running("a-1", "a-2", "a-3");
    await Promise.all(senders.flatMap((sender) => numbers(20).map((text) => sender.send("jobs", text))));
    await count.ended.length(60);
    expect(count.most).toBe(1);
    for (const { name } of senders) {
      const ofSender = count.ended.all.filter((entry) => entry.startsWith(`${name} `));
      expect(ofSender).toEqual(numbers(20).map((text) => `${name} ${text}`));
    }
  });

  it.each([false, true])(
    "counts messages that come at once from the store: transactional %s",
    async (transactional) => {
      await world.query("CREATE TABLE ledger (what text)");
      const b = world.worker("b-1", { poolSize: 10 });
      const { count, handler } = counted();
      const write: Handler = async (message) => {
        if (transactional) await message.client.query("INSERT INTO ledger VALUES ($1)", [message.text()]);
        await handler(message);
      };
      const options = { concurrency: 2, transactional, retry: { delayMs: 1 } };
      await b.handle("jobs", options, (message) => write(message as Parameters<Handler>[0]));
      for (const text of numbers(30)) await world.query("SELECT hawser.enqueue('jobs', $1::text)", [text]);
      await b.start();
      await count.ended.length(30);
      expect(count.most).toBeLessThanOrEqual(2);
      await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
      expect(await world.query("SELECT FROM ledger")).toHaveLength(transactional ? 30 : 0);
    },
  );

  it("holds up neither other topics nor other keys of a sender", async () => {
    const b = world.peer("b-1", { concurrency: 2, tuning: { busyAfterMs: 10 } });
    const held = gate();
    const [jobs, mails] = [counted(() => held.opened), counted()];
    await b.handle("jobs", { concurrency: 1 }, jobs.handler);
    await b.handle("mails", mails.handler);
    await b.start();
    const a = await world.started("a-1");
    const waiting = numbers(3).map((key) => a.send("jobs", key, { key }));
    await eventually("one runs", () => jobs.count.running === 1);
    for (const key of ["x", "y", "z"]) await a.send("mails", "m", { key });
    await mails.count.ended.length(3);
    expect(jobs.count.running).toBe(1);
    held.open();
    await Promise.all(waiting);
    await jobs.count.ended.length(3);
    expect(jobs.count.most).toBe(1);
  });

  it("counts no message that waits for its retry", async () => {
    const b = world.peer("b-1");
    const seen = new Log<string>();
    await b.handle("jobs", { concurrency: 1, retry: { attempts: 2, delayMs: 3_600_000 } }, async (message) => {
      seen.push(message.text());
      if (message.text() === "bad") throw new Error("later");
    });
    await b.start();
    const a = await world.started("a-1");
    void a.send("jobs", "bad", { key: "bad" }).catch(nothing);
    await a.send("jobs", "good", { key: "good" });
    await seen.length(2);
    expect(seen.all).toEqual(["bad", "good"]);
  });

  it("is that of the handler that replaces another, whose calls no message waits for", async () => {
    const b = world.peer("b-1");
    const [held, heldToo] = [gate(), gate()];
    const [before, after] = [counted(() => held.opened), counted(() => heldToo.opened)];
    await b.handle("jobs", { concurrency: 1 }, before.handler);
    await b.start();
    const a = await world.started("a-1");
    const sent = numbers(4).map((key) => a.send("jobs", key, { key }));
    await eventually("one runs", () => before.count.running === 1);
    await b.handle("jobs", { concurrency: 2 }, after.handler);
    await eventually("two more run", () => after.count.running === 2);
    held.open();
    await before.count.ended.length(1);
    expect(after.count.running).toBe(2);
    heldToo.open();
    await Promise.all(sent);
    await after.count.ended.length(3);
    expect([before.count.ended.all.length, after.count.most]).toEqual([1, 2]);
  });

  it("lets the peer stop while messages wait, which come again after the next start", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await b.handle("jobs", { concurrency: 1, durable: true }, handler);
    await b.start();
    const senders = await world.running("a-1", "a-2");
    const sent = senders.flatMap((sender) => numbers(3).map((key) => sender.send("jobs", key, { key })));
    await eventually("one runs", () => count.running === 1);
    const stopping = b.stop();
    held.open();
    await stopping;
    await Promise.all(sent);
    expect(count.ended.all).toHaveLength(1);
    await b.start();
    await count.ended.length(6);
    expect(count.most).toBe(1);
  });

  it("counts no call that a stop has given up", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await b.handle("jobs", { concurrency: 1, durable: true }, handler);
    await b.start();
    const a = await world.started("a-1");
    void a.send("jobs", "0").catch(nothing);
    await eventually("it runs", () => count.running === 1);
    await b.stop({ timeoutMs: 0 });
    await b.start();
    await eventually("it runs again", () => count.running === 2);
    held.open();
    await count.ended.length(2);
  });

  it("may come from defaults", async () => {
    const b = world.peer("b-1", { defaults: { concurrency: 1 } });
    const held = gate();
    const [jobs, mails] = [counted(() => held.opened), counted(() => held.opened)];
    await b.handle("jobs", jobs.handler);
    await b.handle("mails", { concurrency: 3 }, mails.handler);
    await b.start();
    const a = await world.started("a-1");
    const sent = numbers(5).flatMap((text) =>
      ["jobs", "mails"].map((to) => a.send(to, text, { key: `${to} ${text}` })),
    );
    await eventually("as many run as may", () => jobs.count.running === 1 && mails.count.running === 3);
    held.open();
    await Promise.all(sent);
    await Promise.all([jobs, mails].map(({ count }) => count.ended.length(5)));
    expect([jobs.count.most, mails.count.most]).toEqual([1, 3]);
  });

  it("leaves other workers what a worker has no place for", async () => {
    const held = gate();
    const working = async (name: string, handler: Handler) => {
      const made = world.worker(name);
      await made.handle("jobs", { concurrency: 1 }, (message) => handler(message as Parameters<Handler>[0]));
      await made.start();
    };
    const slow = counted(() => held.opened);
    await working("b-1", slow.handler);
    await world.query("SELECT hawser.enqueue('jobs', '0')");
    await eventually("it runs", () => slow.count.running === 1);
    const fast = counted();
    await working("b-2", fast.handler);
    await world.query("SELECT hawser.enqueue_batch('jobs', $1::text[])", [numbers(50)]);
    await eventually("the other one has nearly all", () => fast.count.ended.all.length >= 49);
    held.open();
    await eventually("all are handled", () => slow.count.ended.all.length + fast.count.ended.all.length === 51);
    expect(Math.max(slow.count.most, fast.count.most)).toBe(1);
  });
});

describe("concurrency of respond", () => {
  it("limits the calls for all callers together, and holds up no requests to others", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const prices = counted(() => held.opened);
    await b.respond("prices", { concurrency: 2 }, prices.handler);
    await b.respond("stock", () => "7");
    await b.start();
    const callers = await world.running("a-1", "a-2");
    const asked = callers.flatMap((caller) => numbers(4).map((text) => caller.request("prices", text)));
    await eventually("two run", () => prices.count.running === 2);
    for (const caller of callers) expect((await caller.request("stock", "rope")).text()).toBe("7");
    expect(prices.count.running).toBe(2);
    held.open();
    await Promise.all(asked);
    expect(prices.count).toMatchObject({ running: 0, most: 2 });
  });

  it("starts the requests of one caller one after another", async () => {
    const b = world.peer("b-1");
    const { count, handler } = counted();
    await b.respond("prices", { concurrency: 1 }, handler);
    await b.start();
    const a = await world.started("a-1");
    await Promise.all(numbers(10).map((text) => a.request("prices", text)));
    expect(count.ended.all).toEqual(numbers(10).map((text) => `a-1 ${text}`));
    expect(count.most).toBe(1);
  });

  it("ends requests that wait with the time of their callers, and with a stop", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await b.respond("prices", { concurrency: 1 }, handler);
    await b.respond("stock", () => "7");
    await b.start();
    const a = await world.started("a-1");
    const first = a.request("prices", "0");
    await eventually("one runs", () => count.running === 1);
    await failure("request_timeout", a.request("prices", "1", { timeoutMs: 50 }));
    const late = failure("not_running", a.request("prices", "2"));
    // Requests of a connection arrive in their order.
    await a.request("stock", "rope");
    const stopping = b.stop();
    held.open();
    await Promise.all([stopping, first, late]);
    expect(count.ended.all).toEqual(["a-1 0"]);
  });

  it("is that of the handler that replaces another", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const before = counted(() => held.opened);
    await b.respond("prices", { concurrency: 1 }, before.handler);
    await b.start();
    const a = await world.started("a-1");
    const asked = numbers(3).map((text) => a.request("prices", text));
    await eventually("one runs", () => before.count.running === 1);
    await b.respond("prices", { concurrency: 1 }, (request) => `new ${request.text()}`);
    expect((await asked[1])?.text()).toBe("new 1");
    expect((await asked[2])?.text()).toBe("new 2");
    held.open();
    await asked[0];
  });
});

describe("concurrency of handleBatch", () => {
  it("is the number of batches at a time, one without it", async () => {
    const b = world.peer("b-1");
    const held = gate();
    const started = { two: new Log<string>(), one: new Log<string>() };
    const handler = (log: Log<string>) => async (messages: readonly Message[]) => {
      log.push(messages.map((message) => message.text()).join(" "));
      await held.opened;
    };
    await b.handleBatch("two", { concurrency: 2, maxMessages: 2 }, handler(started.two));
    await b.handleBatch("one", { maxMessages: 2 }, handler(started.one));
    const others = new Log<string>();
    await b.handle("b", (message) => others.push(message.text()));
    await b.start();
    const a = await world.started("a-1");
    const sent = numbers(8).flatMap((text) => ["one", "two"].map((to) => a.send(to, text, { key: `${to} ${text}` })));
    await started.two.length(2);
    await started.one.length(1);
    void a.send("b", "behind them");
    await others.length(1);
    expect([started.two.all.length, started.one.all.length]).toEqual([2, 1]);
    held.open();
    await Promise.all(sent);
    for (const log of [started.one, started.two]) {
      await log.until("all are handled", (all) => all.join(" ").split(" ").length === 8);
      expect(log.all.join(" ").split(" ").toSorted()).toEqual(numbers(8));
    }
  });
});

/** Lines of a log from "warn" on. */
function linesOf() {
  const lines: string[] = [];
  const line = (_: unknown, text: string): void => void lines.push(text);
  return { lines, logger: { debug: nothing, info: nothing, warn: line, error: line } };
}

/** Pools ask for connections at such intervals, and again when they got none, until the test has ended. */
function askEvery(ms: number): void {
  const before = { ...poolGrowth };
  Object.assign(poolGrowth, { everyMs: ms, againMs: ms });
  onTestFinished(() => void Object.assign(poolGrowth, before));
}

/** A client that is connected. */
async function connected(url: string): Promise<AsyncDisposable> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return { [Symbol.asyncDispose]: () => client.end() };
}

describe("the pool of transactional handlers", () => {
  beforeEach(() => askEvery(20));

  it("grows with the concurrency of all in the process, unless poolSize is given", async () => {
    await using own = await peerWorld({ nats: false });
    const held = gate();
    let running = 0;
    for (const topic of ["b", "c"]) {
      for (const text of numbers(4)) await enqueue(own, topic, text);
      const peer = own.peer(`${topic}-1`);
      await peer.handle(topic, { concurrency: 3, transactional: true }, async () => {
        running += 1;
        await held.opened;
      });
      await peer.start();
    }
    await eventually("six run", () => running === 6);
    held.open();
    await eventually("all are handled", async () => (await own.storedMessages()) === 0);
  });

  it.each([
    [4, 3, undefined],
    [4, 4, 'allows 4 calls at a time, and poolSize 4 of "b-1" only 3: set poolSize to 5, or'],
    [undefined, 10, undefined],
  ])("of poolSize %s warns of a concurrency of %i: %s", async (poolSize, concurrency, text) => {
    await using own = await peerWorld({ nats: false });
    const warnings: Error[] = [];
    const hear = (warning: Error): void => void warnings.push(warning);
    process.on("warning", hear);
    const b = own.peer("b-1", poolSize === undefined ? {} : { poolSize });
    await b.handle("jobs", { concurrency, transactional: true }, nothing);
    await b.start();
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", hear);
    const ours = warnings.filter((warning) => "code" in warning && warning.code === "HAWSER_POOL_TOO_SMALL");
    expect(ours.map(({ message }) => message)).toEqual(text === undefined ? [] : [expect.stringContaining(text)]);
  });

  it.each([
    ["the peer's", { concurrency: 16 }, {}, 16],
    ["that of the defaults", { concurrency: 16, defaults: { concurrency: 5 } }, {}, 5],
    ["its own", { concurrency: 16 }, { concurrency: 6 }, 6],
    ["the peer's, if its own is higher", { concurrency: 4 }, { concurrency: 16 }, 4],
  ])("has a connection for as many calls of a handler as %s concurrency says", async (_, ofPeer, ofHandler, most) => {
    await using own = await peerWorld({ nats: false });
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await enqueueBatch(own, "b", numbers(20));
    const peer = own.peer("b-1", ofPeer);
    await peer.handle("b", { transactional: true, ...ofHandler }, handler);
    await peer.start();
    await eventually("as many run", () => count.running >= most);
    held.open();
    await count.ended.length(20);
    expect(count.most).toBe(most);
  });

  it("grows until as many calls run as the peer's concurrency says, by default, too", async () => {
    await using own = await peerWorld({ nats: false });
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await enqueueBatch(own, "b", numbers(80));
    const peer = own.peer("b-1");
    await peer.handle("b", { transactional: true }, handler);
    await peer.start();
    await eventually("64 run", () => count.running === 64);
    held.open();
    await count.ended.length(80);
    expect(count.most).toBe(64);

    // Others may take what it has closed.
    const shared = await acquireDatabase(
      { databaseUrl: own.url },
      { clock: systemClock, logger: silentLogger, poolSize: 4 },
    );
    expect(shared.database.pool.poolSize).toBe(65);
    await own.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser'",
    );
    await eventually("it gives up its connections", () => shared.database.pool.poolSize < 10);
    await shared.release();
  });

  it("does not grow if poolSize is given, while another one of the process does", async () => {
    await using own = await peerWorld({ nats: false });
    const held = gate();
    const [set, growing] = [counted(() => held.opened), counted(() => held.opened)];
    for (const [topic, { handler }, options] of [
      ["set", set, { poolSize: 4, databaseUrl: `${own.url}?application_name=set` }],
      ["growing", growing, {}],
    ] as const) {
      await enqueueBatch(own, topic, numbers(20));
      const peer = own.peer(`${topic}-1`, options);
      await peer.handle(topic, { transactional: true }, handler);
      await peer.start();
    }
    await eventually("those that may run do", () => growing.count.running === 20 && set.count.running === 3);
    held.open();
    await set.count.ended.length(20);
    expect(set.count.most).toBe(3);
  });

  it("makes do with the connections that Postgres has left, says so once, and grows when there are more", async () => {
    await using own = await peerWorld({ nats: false });
    const [{ name }] = (await own.query("SELECT current_database() AS name")) as [{ name: string }];
    await own.query(`ALTER DATABASE "${name}" CONNECTION LIMIT 30`);
    await using ours = await login(own.url, "IN ROLE hawser_peer");
    await using another = await login(own.url);
    const others = Array.from({ length: 20 }, () => new pg.Client({ connectionString: another.url }));
    await Promise.all(others.map((client) => client.connect()));
    const log = linesOf();
    const held = gate();
    const { count, handler } = counted(() => held.opened);
    await enqueueBatch(own, "b", numbers(20));
    await using peer = new Peer({ name: "b-1", databaseUrl: ours.url, logger: log.logger });
    await peer.handle("b", { transactional: true }, handler);
    await peer.start();
    const said =
      /^transactional handlers may run 64 at a time, and the pool has 4 connections, as Postgres has only \d left, which stay for other programs: 3 run, and others wait$/;
    await eventually("it says so", () => log.lines.some((line) => said.test(line)));
    const questions = new Set<string>();
    await eventually("it has asked again", async () => {
      const sql = `SELECT query_start::text AS at FROM pg_stat_activity WHERE usename = '${ours.role}' AND query ~ 'rolconnlimit'`;
      for (const { at } of await own.query<{ at: string }>(sql)) questions.add(at);
      return questions.size > 2;
    });
    expect(count.running).toBe(3);
    await Promise.all(others.map((client) => client.end()));
    await eventually("more run", () => count.running > 6);
    held.open();
    await count.ended.length(20);
    expect(log.lines.filter((line) => /others wait|gives no more/.test(line))).toHaveLength(1);
  });

  it("leaves some connections to others, however many pools grow at once", async () => {
    await using own = await peerWorld({ nats: false });
    await using ours = await login(own.url, "CONNECTION LIMIT 80 IN ROLE hawser_peer");
    const held = gate();
    const logs = numbers(4).map(linesOf);
    const peers: Peer[] = [];
    const counts = numbers(4).map(() => counted(() => held.opened));
    for (const [nth, { handler }] of counts.entries()) {
      // The pools of a process have different addresses.
      const databaseUrl = `${ours.url}?application_name=pool-${nth}`;
      const peer = own.peer(`b-${nth}`, { databaseUrl, logger: logs[nth]!.logger });
      peers.push(peer);
      await peer.handle(`b-${nth}`, { transactional: true }, handler);
      await peer.start();
    }
    const countsSql = `SELECT count(*)::integer AS count, count(*) FILTER (WHERE application_name = '${queueApplicationName}')::integer AS takers
                         FROM pg_stat_activity WHERE usename = '${ours.role}'`;
    const sessions = async () => (await own.query<{ count: number; takers: number }>(countsSql))[0]!;
    await eventually("all take, and see each other", async () => (await sessions()).takers === 4);
    for (const nth of counts.keys()) await enqueueBatch(own, `b-${nth}`, numbers(70));
    await eventually("all are full", async () => {
      // Each has an eighth of 40 at most that the others do not see, and one that it leaves unopened.
      expect((await sessions()).count).toBeLessThanOrEqual(60 + 3 * 5 + 4);
      return logs.every(({ lines }) => lines.some((line) => /others wait/.test(line)));
    });
    expect(counts.reduce((sum, { count }) => sum + count.running, 0)).toBeGreaterThan(4 * 3);
    await using _other = await connected(ours.url);
    held.open();
    await Promise.all(counts.map(({ count }) => count.ended.length(70)));
    expect(logs.flatMap(({ lines }) => lines.filter((line) => /gives no more/.test(line)))).toEqual([]);
    await Promise.all(peers.map((peer) => peer.stop()));
  });

  it("is shared by halves by two topics of a process, one of which has a backlog", async () => {
    await using own = await peerWorld({ nats: false });
    const ended = new Log<string>();
    const peer = own.peer("b-1");
    const isReady = gate();
    for (const topic of ["busy", "other"])
      await peer.handle(topic, { transactional: true }, async (message) => {
        await isReady.opened;
        await message.client.query("SELECT pg_catalog.pg_sleep(0.002)");
        ended.push(message.topic);
      });
    await enqueueBatch(own, "busy", numbers(1_000));
    await enqueueBatch(own, "other", numbers(300));
    await peer.start();
    isReady.open();
    await ended.until("one topic is done", (all) => all.filter((topic) => topic === "other").length === 300);
    // As long as both have more waiting than can run.
    const first = ended.all.slice(0, 400);
    expect(first.filter((topic) => topic === "other").length / first.length).toBeGreaterThan(0.45);
  });
});

it.each([
  [0, "concurrency 0: must be an integer, 1 to 100000."],
  [1.5, "concurrency 1.5: must be an integer"],
  ["2", 'concurrency "2": must be an integer'],
] as const)("concurrency %j is refused", async (given, text) => {
  const b = world.peer("b-1");
  const options = { concurrency: given as number };
  const calls = [
    () => b.handle("t", options, nothing),
    () => b.respond("t", options, nothing),
    () => b.handleBatch("t", options, nothing),
  ];
  for (const call of calls) expect((await failure("invalid_argument", call)).message).toContain(text);
  const ofDefaults = await failure("invalid_argument", () => world.peer("b-2", { defaults: options }));
  expect(ofDefaults.message).toContain(`defaults.${text}`);
});
