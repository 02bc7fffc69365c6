/** Totals that the beats of a worker report. */
import { expect, it } from "vitest";
import { sampleConstants } from "../../generated/ts/settings/queue.js";
import { HandledCounts, otherTopic } from "../../src/jobs-and-peers/handlers/handled-counts.js";
import { HandledTotals } from "../../src/jobs-and-peers/queue/worker/handled-totals.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";

const world = sharedPeerWorld();

interface Handlers {
  readonly counts: Map<string, HandledCounts>;
  readonly otherCounts: HandledCounts;
}

function handlersOf(...topics: string[]): Handlers {
  const otherCounts = new HandledCounts();
  const counts = topics.map((topic) => [topic, new HandledCounts()] as const);
  return { counts: new Map([...counts, [otherTopic, otherCounts]]), otherCounts };
}
const reported = (totals: HandledTotals, usedBytes = 0): Record<string, number[]> | undefined => {
  const text = totals.report(usedBytes);
  return text === undefined ? undefined : JSON.parse(text);
};

it("tells of each topic what was handled, what failed, and how long handlers took", () => {
  const handlers = handlersOf("a", "b");
  const totals = new HandledTotals(handlers);
  expect(totals.report(0)).toBeUndefined();
  const a = handlers.counts.get("a")!;
  Object.assign(a.handled, { done: 7, retried: 1, dead_letter: 2, dropped: 4, cancelled: 8, deferred: 16 });
  for (const seconds of [0.0001, 0.0005, 0.002, 0.007, 0.2, 40]) a.durations.observe(seconds);
  handlers.otherCounts.handled.done = 9;
  expect(reported(totals)).toEqual({ a: [7, 7, 40_210, 2, 2, 0, 0, 1, 0, 0, 0, 0, 1] });
});

it("begins at 0 with each worker, and goes on when a topic gets a handler again", () => {
  const handlers = handlersOf("a");
  const totals = new HandledTotals(handlers);
  handlers.counts.get("a")!.handled.done = 5;
  totals.report(0);
  totals.beginWorker();
  expect(totals.report(0)).toBeUndefined();
  handlers.counts.get("a")!.handled.done = 6;
  expect(reported(totals)).toEqual({ a: [1, 0, 0] });
  handlers.counts.delete("a");
  expect(reported(totals)).toEqual({ a: [1, 0, 0] });
  handlers.counts.set("a", new HandledCounts());
  expect(reported(totals)).toEqual({ a: [1, 0, 0] });
  handlers.counts.get("a")!.handled.done = 2;
  expect(reported(totals)).toEqual({ a: [3, 0, 0] });
});

it("tells of as many topics as there is room for, always the same", () => {
  const handlers = handlersOf(
    ...Array.from({ length: sampleConstants.reportedTopics + 1 }, (_, nth) => `topic ${nth}`),
  );
  const totals = new HandledTotals(handlers);
  for (const [topic, counts] of handlers.counts) if (topic !== "topic 0") counts.handled.done = 1;
  totals.report(0);
  handlers.counts.get("topic 0")!.handled.done = 1;
  const topics = Object.keys(reported(totals)!);
  expect(topics).toHaveLength(sampleConstants.reportedTopics);
  expect(topics).not.toContain("topic 0");
});

it("leaves out durations before topics, and stays within the limit of a report", () => {
  const handlers = handlersOf(...Array.from({ length: 400 }, (_, nth) => `${nth}".${"ä".repeat(30)}`));
  const totals = new HandledTotals(handlers);
  for (const counts of handlers.counts.values()) {
    counts.handled.done = 1e15;
    for (let nth = 0; nth < 12; nth += 1) counts.durations.buckets[nth] = 1e14;
    counts.durations.sum = 1e15;
  }
  const used = 10_000;
  const text = totals.report(used)!;
  expect(Buffer.byteLength(text)).toBeLessThan(60_000 - used);
  const lengths = Object.values(JSON.parse(text) as Record<string, number[]>).map((numbers) => numbers.length);
  expect(lengths[0]).toBe(13);
  expect(lengths.at(-1)).toBe(3);
});

it("a worker reports with its beats, and at its end what it has handled since the last one", async () => {
  await world.query("SELECT hawser.take_sample()");
  await world.query("SELECT hawser.enqueue('b', 'x'::text) FROM generate_series(1, 10)");
  const worker = await world.working("b-1");
  await worker.received.length(10);
  await eventually("all have ended", async () => (await world.query("SELECT FROM hawser_data.queue")).length === 0);
  // It beats at once.
  await world.query("SELECT hawser.limit_topic('b', running => 100)");
  await eventually("its beat tells of them", async () => {
    const [row] = await world.query<{ handled: string }>(
      "SELECT running -> 'totals' -> 'b' ->> 0 AS handled FROM hawser_data.workers",
    );
    return row?.handled === "10";
  });
  await world.query("SELECT hawser.enqueue('b', 'x'::text) FROM generate_series(1, 3)");
  await worker.received.length(13);
  await worker.stop();
  const ended = await world.query("SELECT running -> 'totals' -> 'b' ->> 0 AS handled FROM hawser_data.ended_workers");
  expect(ended).toEqual([{ handled: "13" }]);
});
