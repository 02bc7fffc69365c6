/**
 * Fan-out: what is enqueued for all listeners of a topic comes once to each of them, and once to each group.
 */
import { expect, it, onTestFinished } from "vitest";
import { enqueueBatch, type PeerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { RecordingWorker, TestPeer, TestWorkerOptions } from "./support/world.js";

const world = sharedPeerWorld();

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

const toAll = async (texts: readonly string[], key?: string): Promise<void> => {
  await enqueueBatch(world, "b", texts, { all: true, key });
};

const started = (names: readonly string[], options: Partial<PeerOptions>): Promise<TestPeer[]> =>
  Promise.all(names.map((name) => world.started(name, { poolSize: 1, ...options })));

async function working(name: string, options: TestWorkerOptions): Promise<RecordingWorker> {
  const worker = await world.working(name, { poolSize: 1, ...options });
  await known(name);
  return worker;
}

/** Waits until the database knows a worker: only then does it have a copy. */
async function known(name: string): Promise<void> {
  await eventually(`${name} is known`, async () => {
    const sql = "SELECT FROM hawser_data.workers WHERE name = $1 || ':' || $2 AND gone_at IS NULL";
    return (await world.query(sql, [name, String(process.pid)])).length > 0;
  });
}

type Recording = Pick<TestPeer, "texts">;

const textsOf = (peers: readonly Recording[]): string[] => peers.flatMap(({ texts }) => texts).sort(numerically);

const numerically = (one: string, other: string): number => Number(one) - Number(other);

/** Each of these has each of the messages once. */
async function haveEachOnce(groups: readonly (readonly Recording[])[], texts: readonly string[]): Promise<void> {
  await eventually("all have them", () => groups.every((peers) => textsOf(peers).length >= texts.length));
  await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
  for (const peers of groups) expect(textsOf(peers)).toEqual(texts);
}

slowIt(
  "of five durable listeners and two groups, of which one is away and one comes and goes, each has one copy",
  async () => {
    const listeners = await started(
      numbers(1, 5).map((number) => `b-${number}`),
      { defaults: { durable: true } },
    );
    const red = await started(["b-red-1", "b-red-2"], { defaults: { group: "red" } });
    const blue = await started(["b-blue-1", "b-blue-2"], { defaults: { group: "blue" } });
    const [away, coming] = listeners as [TestPeer, TestPeer];
    await away.stop();
    const texts = numbers(1, 24);
    let isOver = false;
    const comeAndGo = async (peer: TestPeer): Promise<void> => {
      while (!isOver) {
        await peer.stop();
        await peer.record();
      }
    };
    const over = comeAndGo(coming);
    for (const text of texts) await toAll([text], Number(text) % 2 === 0 ? "even" : undefined);
    isOver = true;
    await over;
    expect(away.texts).toEqual([]);
    await away.record();
    await haveEachOnce([...listeners.map((peer) => [peer]), red, blue], texts);
    const even = texts.filter((text) => Number(text) % 2 === 0);
    for (const { texts } of listeners) expect(texts.filter((text) => Number(text) % 2 === 0)).toEqual(even);
  },
);

it("a listener that is not durable has a copy as long as it runs", async () => {
  const [durable, plain] = (await Promise.all([
    world.started("b-1", { defaults: { durable: true } }),
    world.started("b-2"),
  ])) as [TestPeer, TestPeer];
  await toAll(["1"]);
  await haveEachOnce([[durable], [plain]], ["1"]);
  await plain.stop();
  await toAll(["2"]);
  await haveEachOnce([[durable]], ["1", "2"]);
  await plain.record();
  await toAll(["3"]);
  await haveEachOnce([[durable]], ["1", "2", "3"]);
  expect(plain.texts).toEqual(["1", "3"]);
});

it("a message that finds nobody waits for the first listener", async () => {
  const elsewhere = await world.started("c-1");
  await toAll(["1"], "k");
  await eventually("it waits", async () => (await world.storedMessages()) === 1);
  const first = await world.started("b-1", { defaults: { durable: true } });
  await first.received.length(1);
  const second = await world.started("b-2", { defaults: { durable: true } });
  await toAll(["2"], "k");
  await haveEachOnce([[first]], ["1", "2"]);
  expect(second.texts).toEqual(["2"]);
  expect(elsewhere.texts).toEqual([]);
});

/** A worker whose handlers never end, and what ends it as a crash does: what it has stays with it until its time has passed. */
async function crashing(name: string, options: TestWorkerOptions) {
  const proxy = await startProxy(world.url);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const worker = world.worker(name, { ...options, databaseUrl: proxy.url });
  await worker.record(() => new Promise(() => undefined));
  await known(name);
  const crash = async (): Promise<void> => {
    await worker.stop({ timeoutMs: 500 });
    proxy.cut();
  };
  return { worker, cutOff: () => proxy.freeze(), crash };
}

const others = [
  ["a member of another group", "blue"],
  ["a worker outside of groups", undefined],
] as const;
const takeover = (of: string | undefined): TestWorkerOptions => ({
  concurrency: 1,
  defaults: { takeoverMs: 1_000, group: of },
});

it.each(others)("%s has none of the copies that a member of a group has left in a crash", async (_, group) => {
  const gone = await crashing("b-red-1", takeover("red"));
  await toAll(["1", "2"]);
  await gone.worker.received.length(1);
  const other = await working("b-other-1", takeover(group));
  gone.cutOff();
  await toAll(["3"]);
  await other.received.length(1);
  await gone.crash();
  // The other one could have taken them for as long, and has none by the time that a member of the group has.
  const red = await working("b-red-2", takeover("red"));
  await eventually("its own group has it", () => textsOf([red]).length === 3);
  // The group counts as running until the time of its member has passed, which did not end in good order.
  expect(textsOf([red])).toEqual(["1", "2", "3"]);
  expect(other.texts).toEqual(["3"]);
});

it.each(others)("%s has none of the copies that a member of a group has given back as it stopped", async (_, group) => {
  const stopped = world.worker("b-red-1", takeover("red"));
  await stopped.record(() => new Promise(() => undefined));
  await known("b-red-1");
  await toAll(["1", "2"]);
  await stopped.received.length(1);
  const other = await working("b-other-1", takeover(group));
  await stopped.stop({ timeoutMs: 500 });
  // The group has no member any more, and so no copy.
  await toAll(["3"]);
  await other.received.length(1);
  const red = await working("b-red-2", takeover("red"));
  await toAll(["4"]);
  await haveEachOnce([[red]], ["1", "2", "4"]);
  expect(other.texts).toEqual(["3", "4"]);
});

it("a copy of a group that is retried as a dead letter stays in the group", async () => {
  const gone = world.worker("b-red-1", { defaults: { group: "red", takeoverMs: 1_000, retry: { attempts: 1 } } });
  await gone.record(() => {
    throw new Error("refused");
  });
  await known("b-red-1");
  const other = await working("b-other-1", takeover(undefined));
  await toAll(["1"]);
  await other.received.length(1);
  const letters = (): Promise<{ id: number }[]> => world.query("SELECT id::integer FROM hawser_data.dead_letters");
  await eventually("it is a dead letter", async () => (await letters()).length === 1);
  await gone.stop();
  await world.query("SELECT * FROM hawser.retry_dead_letters($1)", [(await letters()).map(({ id }) => id)]);
  // The other one has watched for longer, and has taken nothing over by the time that a member of the group has.
  const red = await working("b-red-2", takeover("red"));
  await red.received.length(1);
  expect(red.texts).toEqual(["1"]);
  expect(other.texts).toEqual(["1"]);
});

slowIt(
  "a listener outside of a group takes over no copies of it: neither waiting ones nor those of a member that is gone",
  async () => {
    const single = await world.started("b-1", { defaults: { durable: true, takeoverMs: 1_000 } });
    const away = await world.started("b-2", { defaults: { durable: true } });
    const gone = await crashing("b-0", takeover("red"));
    await toAll(["1", "2", "3"]);
    await gone.worker.received.length(1);
    for (const { received } of [single, away]) await received.length(3);
    gone.cutOff();
    await gone.crash();
    await away.stop();
    await toAll(["4"]);
    // The listener that is away was the last one to leave, and its name is the last one: all others were looked at before.
    await single.received.length(5);
    expect(single.texts).toEqual(["1", "2", "3", "4", "4"]);
    const red = await working("b-3", takeover("red"));
    // Whether the group has a copy of the last message depends on how long its member counts as running.
    const ofGroup = () => textsOf([red]).filter((text) => text !== "4");
    await eventually("the group has its copies", () => ofGroup().length === 3);
    expect(ofGroup()).toEqual(["1", "2", "3"]);
    expect(single.texts).toHaveLength(5);
  },
);

slowIt(
  "what a member of a group has left goes to any listener of the topic, unless it is a copy of the group",
  async () => {
    const ended = world.peer("b-1", { concurrency: 1, defaults: { group: true }, tuning: { ackTimeoutMs: 1_000 } });
    await ended.record(() => new Promise(() => undefined));
    const sender = await world.started("a-1", { tuning: { ackTimeoutMs: 1_000 } });
    expect(await sender.send("b", "1")).toMatchObject({ outcome: "stored" });
    await enqueueBatch(world, "b", ["2", "3"]);
    const taken = "SELECT FROM hawser_data.queue WHERE worker IS NOT NULL";
    await eventually("a message is taken", async () => (await world.query(taken)).length > 0);
    await ended.stop({ timeoutMs: 500 });
    expect(await sender.send("b", "4")).toMatchObject({ outcome: "stored" });
    const single = await world.started("b-2", { defaults: { takeoverMs: 1_000 } });
    await haveEachOnce([[single]], ["1", "2", "3", "4"]);
  },
);
