/**
 * Stopping: everything pending settles, what is unconfirmed is stored, and nothing is done twice.
 */
import { expect, it } from "vitest";
import { enqueue, job, type Receipt, RetryAfter } from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();

it("settles every pending send: delivered or stored, and each arrives once in order", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "begin");
  const sent = Array.from({ length: 2_000 }, (_, n) => a.send("b", `${n}`));
  await a.stop();
  const receipts = await Promise.all(sent);
  expect(receipts.every(({ outcome }) => outcome === "delivered" || outcome === "stored")).toBe(true);
  await b.received.length(2_001);
  const again = await world.started("a-1");
  await again.send("b", "end");
  await b.received.find(({ text }) => text === "end");
  expect(b.texts).toEqual(["begin", ...receipts.map((_, n) => `${n}`), "end"]);
});

it("settles sends that were begun in the same moment, before the topic was looked up", async () => {
  const [b, a] = await world.running("b-1", "a-1");
  const sent = Array.from({ length: 50 }, (_, n) => a.send("b", `${n}`));
  const stopping = a.stop();
  const outcomes = await Promise.allSettled(sent);
  await stopping;
  // Each was either confirmed, or refused before anything was sent.
  const confirmed: string[] = [];
  for (const [n, outcome] of outcomes.entries()) {
    if (outcome.status === "fulfilled") confirmed.push(`${n}`);
    else expect(outcome.reason).toMatchObject({ code: "not_running" });
  }
  await b.received.length(confirmed.length);
  const again = await world.started("a-1");
  await again.send("b", "end");
  await b.received.find(({ text }) => text === "end");
  expect(b.texts).toEqual([...confirmed, "end"]);
});

it("stores what waits for a handler that runs, without waiting for it", async () => {
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 60_000 } });
  const held = gate();
  const b = await world.started("b-1", {}, () => held.opened);
  const sent = [1, 2, 3].map((n) => a.send("b", `${n}`));
  await b.received.length(1);
  await a.stop();
  expect((await Promise.all(sent)).map(({ outcome }) => outcome)).toEqual(["stored", "stored", "stored"]);
  expect((await a.pending()).count).toBe(3);
  held.open();
  await b.received.length(3);
  expect(b.texts).toEqual(["1", "2", "3"]);
});

it("drops at-most-once messages that wait for a connection", async () => {
  const a = await world.started("a-1", { tuning: { connectWaitMs: 60_000 } });
  // It accepts connections, and never says a word.
  await using silent = await startProxy(world.url);
  silent.freeze();
  await world.list("mute", "mute-1", { addr: new URL(silent.url).host });
  const sent = a.send("mute", "x", { delivery: "at-most-once" });
  await eventually("it has looked the topic up", async () => (await a.pending()).listeners.length === 1);
  await a.stop();
  expect((await sent).outcome).toBe("dropped");
});

it("waits for a running handler, and its message does not come again", async () => {
  const a = await world.started("a-1");
  const held = gate();
  const b = await world.started("b-1", {}, () => held.opened);
  const sent = a.send("b", "x");
  await b.received.length(1);
  let stopped = false;
  const stopping = b.stop().then(() => {
    stopped = true;
  });
  // The stop refuses what is new while it waits.
  await failure("not_running", b.send("a", "y"));
  expect(stopped).toBe(false);
  held.open();
  await stopping;
  expect((await sent).outcome).toMatch(/delivered|stored/);
  await b.record();
  await a.send("b", "z");
  await b.received.length(2);
  expect(b.texts).toEqual(["x", "z"]);
});

it("gives up a handler that outlasts the deadline; its message comes again", async () => {
  const a = await world.started("a-1");
  const held = gate();
  const b = await world.started("b-1", {}, () => held.opened);
  const sent = a.send("b", "x");
  await b.received.length(1);
  await b.stop({ timeoutMs: 100 });
  expect((await sent).outcome).toBe("stored");
  // The message has not ended the process.
  expect(await world.query("SELECT clean FROM hawser_peer_data.peers WHERE name = 'b-1'")).toEqual([{ clean: true }]);
  // The old handler ends late, into nothing.
  held.open();
  await b.record();
  await b.received.length(2);
  expect(b.texts).toEqual(["x", "x"]);
});

it("ends by its deadline when Postgres does not answer, and every pending send is settled", async () => {
  await using proxy = await startProxy(world.url);
  const a = await world.started("a-1", { databaseUrl: proxy.url });
  const held = gate();
  const b = await world.started("b-1", {}, () => held.opened);
  const sent = [1, 2, 3].map((n) => a.send("b", `${n}`));
  await b.received.length(1);
  proxy.freeze();
  // Of themselves they would give up after 30 s.
  noTimersAbove(2_000);
  const stopping = a.stop({ timeoutMs: 500 });
  const outcomes = await Promise.allSettled(sent);
  for (const outcome of outcomes) {
    expect(outcome).toMatchObject({ status: "rejected", reason: { code: "store_failed", outcome: "unknown" } });
  }
  proxy.cut();
  await stopping;
  held.open();
});

it("keeps its deadline when Postgres hangs, with sends, a handler and a cursor under way", async () => {
  await using proxy = await startProxy(world.url);
  const deadlineMs = 500;
  const a = await world.started("a-1", { databaseUrl: proxy.url });
  const held = gate();
  const b = await world.started("b-1", { databaseUrl: proxy.url }, () => held.opened);
  const sent = a.send("b", "x");
  sent.catch(() => undefined);
  await b.received.length(1);
  proxy.freeze();
  held.open();
  noTimersAbove(deadlineMs);
  await Promise.all([a.stop({ timeoutMs: deadlineMs }), b.stop({ timeoutMs: deadlineMs })]);
  await Promise.allSettled([sent]);
});

it("keeps its deadline when the start that it ends hangs in Postgres", async () => {
  await using proxy = await startProxy(world.url);
  proxy.freeze();
  const a = world.peer("a-1", { databaseUrl: proxy.url });
  const starting = failure("aborted", a.start());
  noTimersAbove(500);
  await a.stop({ timeoutMs: 500 });
  proxy.cut();
  await starting;
});

it("says goodbye, so that senders know at once and dial again at the next start", async () => {
  const [a, b] = await world.left("1");
  expect((await a.saw("peer_disconnected")).message).toContain("goodbye");
  const receipts: Receipt[] = [];
  receipts.push(await a.send("b", "2"));
  const before = a.statuses.all.length;
  await b.record();
  await a.saw("peer_connected", ({ peer }) => peer === "b-1", before);
  await eventually("live again", async () => {
    receipts.push(await a.send("b", "ping"));
    return receipts.at(-1)?.outcome === "delivered";
  });
  expect(receipts[0]?.outcome).toBe("stored");
});

const aborted = (signal: AbortSignal): Promise<unknown> =>
  new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason), { once: true }));

it.each([{ transactional: false }, { transactional: true }])(
  "gives back what has not ended at the deadline, as no attempt and at once, after its transaction is rolled back: %o",
  async ({ transactional }) => {
    await world.query("CREATE TABLE effects (what text)");
    const held = gate();
    const lasting: TestPeerOptions = { transactional, concurrency: 4, defaults: { takeoverMs: 3_600_000 } };
    const ends: string[] = [];
    const b = await world.started("b-1", lasting, async (message) => {
      if (transactional) await message.client.query("INSERT INTO effects VALUES ($1)", [message.text()]);
      message.stopping.addEventListener("abort", () => ends.push(`told of ${message.signal.aborted}`));
      message.signal.addEventListener("abort", () => ends.push("cut off"));
      await held.opened;
    });
    await world.query("SELECT hawser.enqueue('b', 'long')");
    await b.received.length(1);
    const other = await world.started("b-2", lasting, async (message) => {
      if (transactional) await message.client.query("INSERT INTO effects VALUES ($1)", [message.text()]);
    });
    // It is taken over only in an hour.
    const stopped = b.stop({ timeoutMs: 0 });
    await other.received.length(1);
    await stopped;
    held.open();
    await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
    expect(other.received.all).toMatchObject([{ text: "long", attempt: 1 }]);
    expect(ends).toEqual(["told of false", "cut off"]);
    expect(await world.query("SELECT what FROM effects")).toEqual(transactional ? [{ what: "long" }] : []);
    expect(await world.query("SELECT name, clean FROM hawser_peer_data.peers ORDER BY name")).toMatchObject([
      { name: "b-1", clean: true },
      { name: "b-2" },
    ]);
    expect(b.statuses.all.filter(({ kind }) => kind === "attempt_failed" || kind === "listener_store_error")).toEqual(
      [],
    );
    expect(await world.query("SELECT name FROM hawser_data.workers")).toEqual([{ name: "b-2" }]);
  },
);

it("begins a job that six stops have cut off for the first time, and counts them", async () => {
  const id = await enqueue(world, "b", "long");
  for (let deploy = 0; deploy < 6; deploy++) {
    const b = await world.working("b-1", { defaults: { retry: { attempts: 2 } } }, () => new Promise(() => undefined));
    await b.received.length(1);
    expect(b.received.all).toMatchObject([{ attempt: 1 }]);
    await b.stop({ timeoutMs: 0 });
  }
  expect(await world.query("SELECT attempts, given_back, is_suspect FROM hawser_data.queue")).toEqual([
    { attempts: 0, given_back: 6, is_suspect: false },
  ]);
  expect(await job(world, id)).toMatchObject({ state: "waiting", attempts: 0, givenBack: 6 });
});

it.each([{}, { keepMs: 60_000 }])("says of a dead letter how often stops have cut it off: %o", async (options) => {
  const id = await enqueue(world, "b", "long", options);
  for (let deploy = 0; deploy < 2; deploy++) {
    const b = await world.working("b-1", {}, () => new Promise(() => undefined));
    await b.received.length(1);
    await b.stop({ timeoutMs: 0 });
  }
  await world.working("b-1", { defaults: { retry: { attempts: 1 } } }, () => {
    throw new Error("no");
  });
  await eventually("it is dead", async () => (await job(world, id)).state === "dead");
  expect(await job(world, id)).toMatchObject({ attempts: 1, givenBack: 2 });
  await using store = await openStore({ databaseUrl: world.url });
  expect(await store.deadLetters.list()).toMatchObject([{ attempts: 1, givenBack: 2 }]);
});

it("puts a job off whose handler wants it later when it is cut off, and gives back one that fails with its signal", async () => {
  await world.query("SELECT hawser.enqueue_batch('b', '{later,fails,told}'::text[])");
  const b = await world.working("b-1", { concurrency: 4, defaults: { retry: { attempts: 1 } } }, async (message) => {
    const text = message.text();
    const reason = await aborted(text === "told" ? message.stopping : message.signal);
    throw text === "fails" ? reason : new RetryAfter(3_600_000);
  });
  await b.received.length(3);
  await b.stop({ timeoutMs: 1_000 });
  const rows =
    "SELECT convert_from(payload, 'UTF8') AS text, attempts, due_at > now() AS is_later, given_back FROM hawser_data.queue ORDER BY 1";
  expect(await world.query(rows)).toEqual([
    { text: "fails", attempts: 0, is_later: null, given_back: 1 },
    { text: "later", attempts: 0, is_later: true, given_back: 0 },
    { text: "told", attempts: 0, is_later: true, given_back: 0 },
  ]);
  expect(await world.deadLetters(0)).toEqual([]);
});
