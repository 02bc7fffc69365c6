/** Cancelled messages: what waits or was read ahead does not begin, and what runs is told, rolled back and not tried again. */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { cancel, enqueue, enqueueBatch, monitor } from "../../src/jobs-and-peers/peer/index.js";
import { parsePrometheus } from "../monitor/prometheus-text.js";
import { TestWorker } from "../queue/support/test-worker.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, RecordingWorker } from "./support/world.js";

const world = sharedPeerWorld();
const nothingIsLeft = () =>
  eventually("nothing is left", async () => {
    const asked = await world.query("SELECT FROM hawser_data.cancellations");
    return asked.length + (await world.storedMessages()) === 0;
  });
const metricsOf = async (peer: RecordingWorker) =>
  parsePrometheus(await (await monitor(peer)({ url: "/metrics" })).text());
/** Messages by the outcome of their handling. */
const handledOf = async (peer: RecordingWorker): Promise<Record<string, number>> => {
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
  const b = await world.working("b-1", { transactional: true }, async ({ client, signal, payload }) => {
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
  const signals: AbortSignal[] = [];
  const handler: Handler = async (message) => {
    signals.push(message.signal);
    await held.opened;
    if (message.topic === "b") await message.client.query("INSERT INTO effects VALUES ('within')");
  };
  const b = await world.working("b-1", { transactional: true }, handler);
  const c = await world.working("c-1", {}, handler);
  const ids = [await enqueue(world, "b", "x"), await enqueue(world, "c", "x")];
  await Promise.all([b.received.length(1), c.received.length(1)]);
  for (const id of ids) expect(await cancel(world, id)).toBe("cancelling");
  await eventually("both are told", () => signals.every(({ aborted }) => aborted));
  held.open();
  await nothingIsLeft();
  for (const peer of [b, c]) await eventually("it counts", async () => (await handledOf(peer))["cancelled"] === 1);
  expect(await world.query("SELECT what FROM effects")).toEqual([]);
  // The worker goes on.
  await enqueue(world, "c", "next");
  await c.received.length(2);
  expect(await world.query("SELECT FROM hawser_data.workers")).toHaveLength(2);
});

describe("a handler that takes no notice, without a transaction, keeps until its end", () => {
  const held = new Map<string, ReturnType<typeof gate>>();
  let running: Map<string, AbortSignal>;
  const handler: Handler = async (message) => {
    const text = message.text();
    running.set(text, message.signal);
    await held.get(text)?.opened;
    running.delete(text);
  };
  /** Two processes, so that another one would begin what is free. */
  const workers = async (): Promise<[RecordingWorker, RecordingWorker]> => {
    running = new Map();
    held.clear();
    const one = (name: string) => world.working(name, { concurrency: 1 }, handler);
    return [await one("b-1"), await one("b-2")];
  };
  const isCancelled = async (id: bigint, text: string): Promise<void> => {
    await eventually("it runs", () => running.has(text));
    expect(await cancel(world, id)).toBe("cancelling");
    await eventually("it is told", () => running.get(text)!.aborted);
    expect(await world.query("SELECT FROM hawser_data.queue WHERE id = $1 AND worker IS NOT NULL", [id])).toHaveLength(
      1,
    );
  };
  it("its key", async () => {
    const peers = await workers();
    held.set("first", gate());
    const id = await enqueue(world, "b", "first", { key: "k" });
    await isCancelled(id, "first");
    await enqueue(world, "b", "second", { key: "k" });
    const client = new pg.Client({ connectionString: world.url });
    await client.connect();
    const other = await TestWorker.open(client, { topics: ["b"] });
    expect(await other.take()).toEqual([]);
    await other.close();
    await client.end();
    expect(peers.flatMap(({ texts }) => texts)).not.toContain("second");
    held.get("first")!.open();
    await eventually("the next one is handled", () => peers.some(({ texts }) => texts.includes("second")));
    await nothingIsLeft();
  });

  it("its unique key", async () => {
    const peers = await workers();
    held.set("first", gate());
    const options = { uniqueKey: { key: "u", while: "running" } } as const;
    const id = await enqueue(world, "b", "first", options);
    await isCancelled(id, "first");
    expect(await enqueue(world, "b", "second", options)).toBe(id);
    held.get("first")!.open();
    await nothingIsLeft();
    expect(await enqueue(world, "b", "third", options)).not.toBe(id);
    await eventually("another one is handled", () => peers.some(({ texts }) => texts.includes("third")));
    await nothingIsLeft();
    expect(await world.query("SELECT FROM hawser_data.unique_keys")).toEqual([]);
  });

  it("its place under the limits of its topic", async () => {
    await world.query("SELECT hawser.limit_topic('b', running => 1)");
    const peers = await workers();
    held.set("first", gate());
    const id = await enqueue(world, "b", "first");
    await isCancelled(id, "first");
    await enqueue(world, "b", "second");
    expect(peers.flatMap(({ texts }) => texts)).toEqual(["first"]);
    held.get("first")!.open();
    await eventually("the next one is handled", () => peers.some(({ texts }) => texts.includes("second")));
    await nothingIsLeft();
  });
});

it("is told with the next beat if no notification told of it", async () => {
  // As with max_prepared_transactions, and while the session of the queue is lost.
  const told: unknown[] = [];
  const b = await world.working("b-1", { defaults: { takeoverMs: 1_000 } }, ({ signal }) =>
    untilAborted(signal).catch((reason) => told.push(reason)),
  );
  const id = await enqueue(world, "b", "x");
  await b.received.length(1);
  await world.query(
    "INSERT INTO hawser_data.cancellations (topic, recipient, role, rank) SELECT topic, recipient, role, rank FROM hawser_data.queue WHERE id = $1",
    [id],
  );
  await nothingIsLeft();
  expect(told).toHaveLength(1);
});

it("what was read ahead does not begin, and what is behind it with its key does", async () => {
  const held = gate();
  const b = await world.working("b-1", { concurrency: 1 }, () => held.opened);
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
  const b = world.worker("b-1");
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
  const b = await world.working("b-1", {}, ({ signal }) => {
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
