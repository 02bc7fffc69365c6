/** Cancelled messages: what waits or was read ahead does not begin, and what runs is told, rolled back and not tried again. */
import { expect, it } from "vitest";
import { cancel, enqueue, enqueueBatch, monitor } from "../../src/peer/index.js";
import { parsePrometheus } from "../monitor/prometheus-text.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, TestPeer } from "./support/world.js";

const world = sharedPeerWorld();
const nothingIsLeft = () =>
  eventually("nothing is left", async () => {
    const asked = await world.query("SELECT FROM hawser_data.cancellations");
    return asked.length + (await world.storedMessages()) === 0;
  });
const metricsOf = async (peer: TestPeer) => parsePrometheus(await (await monitor(peer)({ url: "/metrics" })).text());
/** Messages by the outcome of their handling. */
const handledOf = async (peer: TestPeer): Promise<Record<string, number>> => {
  const families = await metricsOf(peer);
  const { samples = [] } = families.get("hawser_peer_messages_handled_total") ?? {};
  const own = samples.filter(({ labels }) => labels["topic"] === peer.topic);
  return Object.fromEntries(own.map(({ labels, value }) => [labels["outcome"]!, value]));
};
const untilAborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

it("aborts the signal of a handler that runs, with the reason, and neither reports a failure nor tries it again", async () => {
  await world.query("CREATE TABLE effects (what text)");
  const reasons: unknown[] = [];
  const b = await world.started("b-1", { transactional: true }, async ({ client, signal, payload }) => {
    await client.query("INSERT INTO effects VALUES ($1)", [payload]);
    await untilAborted(signal).catch((reason) => {
      reasons.push(reason);
      throw reason;
    });
  });
  const id = await enqueue(world, "b", "x");
  await b.received.length(1);
  expect(await cancel(world, id)).toBe("cancelling");
  await nothingIsLeft();
  await eventually("the handler has ended", () => reasons.length === 1);
  expect(reasons[0]).toMatchObject({ code: "aborted", message: "the message was cancelled" });
  expect(await world.query("SELECT FROM effects")).toEqual([]);
  await eventually("it counts", async () => (await handledOf(b))["cancelled"] === 1);
  expect(b.received.all).toHaveLength(1);
  expect(b.statuses.all.filter(({ kind }) => kind === "attempt_failed" || kind === "listener_store_error")).toEqual([]);
  expect(await world.deadLetters(0)).toEqual([]);
});

it("rolls back a handler that takes no notice, and does not count one without a transaction as failed", async () => {
  await world.query("CREATE TABLE effects (what text)");
  const held = gate();
  const handler: Handler = async (message) => {
    await world.query("INSERT INTO effects VALUES ('outside of the transaction')");
    await held.opened;
    if (message.topic === "b") await message.client.query("INSERT INTO effects VALUES ('within')");
  };
  const b = await world.started("b-1", { transactional: true }, handler);
  const c = await world.started("c-1", {}, handler);
  const ids = [await enqueue(world, "b", "x"), await enqueue(world, "c", "x")];
  await Promise.all([b.received.length(1), c.received.length(1)]);
  for (const id of ids) expect(await cancel(world, id)).toBe("cancelling");
  await nothingIsLeft();
  held.open();
  for (const peer of [b, c]) await eventually("it counts", async () => (await handledOf(peer))["cancelled"] === 1);
  expect(await world.query("SELECT what FROM effects WHERE what = 'within'")).toEqual([]);
  // The worker goes on.
  await enqueue(world, "c", "next");
  await c.received.length(2);
  expect(await world.query("SELECT FROM hawser_data.workers")).toHaveLength(2);
});

it("what was read ahead does not begin, and what is behind it with its key does", async () => {
  const held = gate();
  const b = await world.started("b-1", { concurrency: 1 }, () => held.opened);
  const [first] = await enqueueBatch(world, "b", ["1", "2"], { key: "k" });
  const [second] = await enqueueBatch(world, "b", ["3", "4"], { key: "k" });
  await b.received.length(1);
  const queued = async () => (await metricsOf(b)).get("hawser_peer_queued_messages")!.samples[0]!.value;
  await eventually("it has read ahead", async () => (await queued()) === 3);
  expect(await cancel(world, second!)).toBe("cancelling");
  await eventually("it is gone", async () => (await queued()) === 2);
  held.open();
  await nothingIsLeft();
  expect(b.texts).toEqual(["1", "2", "4"]);
  expect(await cancel(world, first!)).toBe("not_waiting");
});

it("of a batch in a transaction the others are handled again without it", async () => {
  const batches: string[][] = [];
  const b = world.peer("b-1");
  await b.handleBatch("b", { transactional: true, maxMessages: 3, waitMs: 60_000 }, async (messages, { signal }) => {
    const texts = messages.map((message) => message.text());
    batches.push(texts);
    if (texts.includes("2")) await untilAborted(signal);
  });
  await b.start();
  const ids = await enqueueBatch(world, "b", ["1", "2", "3"]);
  await eventually("they run", () => batches.length === 1);
  expect(await cancel(world, ids[1]!)).toBe("cancelling");
  await nothingIsLeft();
  expect(batches.slice(1).flat().toSorted()).toEqual(["1", "3"]);
});

it("is not believed to a notification of any login", async () => {
  const held = gate();
  const signals: AbortSignal[] = [];
  const b = await world.started("b-1", {}, ({ signal }) => {
    signals.push(signal);
    return held.opened;
  });
  const id = await enqueue(world, "b", "1");
  const other = await enqueue(world, "b", "2");
  await b.received.length(2);
  for (const named of [String(id), "", "x", "9".repeat(40)])
    await world.query("SELECT pg_notify('hawser_queue', $1)", [`:${named}`]);
  await cancel(world, other);
  await eventually("one is aborted", () => signals[1]!.aborted);
  expect(signals[0]!.aborted).toBe(false);
  held.open();
  await nothingIsLeft();
  await eventually("both count", async () => {
    const { done, cancelled } = await handledOf(b);
    return done === 1 && cancelled === 1;
  });
});
