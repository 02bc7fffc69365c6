/** Limits of topics over all processes: what a peer takes of such a topic, and when. */
import { expect, it } from "vitest";
import { enqueueBatch, limitTopic } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { type Gate, gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler } from "./support/world.js";

const world = sharedPeerWorld();

const texts = (count: number): string[] => Array.from({ length: count }, (_, number) => `${number}`);
const leased = async (topic = "b"): Promise<number> =>
  (await world.query("SELECT FROM hawser_data.queue WHERE topic = $1 AND worker IS NOT NULL", [topic])).length;
const nothingIsLeft = () => eventually("nothing is left", async () => (await world.storedMessages()) === 0);

it("no more messages run than may, in all processes, and others go on as soon as one has ended", async () => {
  let [running, most] = [0, 0];
  const handler: Handler = async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 2));
    running -= 1;
  };
  await limitTopic(world, "b", { running: 3 });
  for (const name of ["b-1", "b-2", "b-3"]) await world.working(name, { transactional: true, concurrency: 4 }, handler);
  await enqueueBatch(world, "b", texts(100));
  await nothingIsLeft();
  expect(most).toBe(3);
});

it("a handler without a transaction frees its place before the next message is asked for", async () => {
  await limitTopic(world, "b", { running: 1 });
  const listener = await world.working("b-1");
  const begunAt = performance.now();
  await enqueueBatch(world, "b", texts(20));
  await nothingIsLeft();
  expect(listener.texts).toHaveLength(20);
  // Each would wait for a poll.
  expect(performance.now() - begunAt).toBeLessThan(19_000);
});

it("a limit that is set while messages run counts them, and gives back what was read ahead", async () => {
  const held = gate();
  const listener = await world.working("b-1", { concurrency: 2 }, () => held.opened);
  await enqueueBatch(world, "b", texts(20));
  await listener.received.length(2);
  await eventually("more is read ahead", async () => (await leased()) > 2);
  await limitTopic(world, "b", { running: 3 });
  await eventually("the rest is given back", async () => (await leased()) === 2);
  const other = await world.working("b-2", { concurrency: 4 }, () => held.opened);
  await other.received.length(1);
  expect(await leased()).toBe(3);
  await limitTopic(world, "b", {});
  await eventually("there is no limit", () => other.texts.length === 4);
  held.open();
  await nothingIsLeft();
});

it("a topic at its limit delays no other, and a slow rate is kept without polls", async () => {
  await limitTopic(world, "b", { rate: "1/h", burst: 2 });
  const listener = await world.working("b-1", { concurrency: 1 });
  await listener.recordTopic("c");
  await enqueueBatch(world, "b", texts(50));
  await listener.received.length(2);
  await enqueueBatch(world, "c", texts(200));
  await eventually("the other topic is done", () => listener.texts.length === 202);
  expect(await leased()).toBe(0);
  await limitTopic(world, "b", { rate: "1000/s", burst: 100 });
  await nothingIsLeft();
  expect(listener.texts).toHaveLength(250);
});

it("a topic with limits has its share of the handlers beside the backlog of another, and holds nothing that cannot start", async () => {
  const held = gate();
  await limitTopic(world, "b", { running: 10 });
  const running: Gate[] = [];
  let mayEnd = false;
  const handler: Handler = ({ topic }) => {
    if (topic === "b") return held.opened;
    const own = gate();
    if (mayEnd) own.open();
    running.push(own);
    return own.opened;
  };
  const listener = await world.working("b-1", { concurrency: 2 }, handler);
  await listener.recordTopic("c");
  await enqueueBatch(world, "c", texts(100));
  await listener.received.length(2);
  await enqueueBatch(world, "b", texts(5));
  // The backlog lasts: there is always some of it that could start at once.
  for (let ended = 0; !listener.received.all.some(({ topic }) => topic === "b"); ended++) {
    await enqueueBatch(world, "c", texts(1));
    await eventually("one is read ahead", async () => (await leased("c")) === 3);
    running.shift()!.open();
    await listener.received.length(ended + 3);
  }
  mayEnd = true;
  for (const each of running) each.open();
  await eventually("both handlers are its own", async () => (await leased()) === 2);
  expect(await leased()).toBe(2);
  held.open();
  await nothingIsLeft();
});

it("tenants have their places whatever others have enqueued before", async () => {
  const held = gate();
  await limitTopic(world, "b", { runningPerKey: 1, keyHeader: "tenant" });
  const listener = await world.working("b-1", { concurrency: 4 }, () => held.opened);
  for (const tenant of ["a", "b", "c"]) await enqueueBatch(world, "b", texts(30), { headers: { tenant } });
  await listener.received.length(3);
  expect(listener.received.all.map(({ headers }) => new Map(headers).get("tenant")).toSorted()).toEqual([
    "a",
    "b",
    "c",
  ]);
  expect(await leased()).toBe(3);
  held.open();
  await nothingIsLeft();
});

it("refuses what is no limit", async () => {
  await expect(limitTopic(world, "b", { rate: "fast" })).rejects.toThrow('the argument rate is "fast"');
  await expect(limitTopic(world, "b", { runing: 1 } as never)).rejects.toThrow("runing");
  await expect(limitTopic(world, "a:b", {})).rejects.toThrow("must not contain ':'");
});
