/** Settings of topics count from the commit that says them, for what has not begun. */
import { expect, it } from "vitest";
import { TopicHandlers } from "../../src/jobs-and-peers/handlers/topic-handlers.js";
import { enqueueBatch, job, keepResults, resumeTopic, waitFor } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("a pause counts for a handler that is set after the start, before its first message", async () => {
  const listener = await world.started("b-1");
  const sender = await world.started("a-1", { tuning: { ackTimeoutMs: 200 } });
  const topics = ["late-1", "late-2", "late-3"];
  for (const topic of topics) {
    // Its notification was long ago.
    await world.query("INSERT INTO hawser_data.topic_settings (topic, paused_at, paused_by) VALUES ($1, now(), 'x')", [
      topic,
    ]);
    await listener.recordTopic(topic);
    expect(await sender.send(topic, topic)).toMatchObject({ outcome: "stored" });
  }
  expect(listener.texts).toEqual([]);
  for (const topic of topics) await resumeTopic(world, topic);
  await listener.received.length(3);
  expect(listener.texts.toSorted()).toEqual(topics);
});

it("nothing of a topic begins until it is known whether it is paused, and the newest answer counts", () => {
  const handlers = new TopicHandlers({ name: "b-1" } as never, {} as never, (() => undefined) as never);
  const handler = { settings: [], settingsOf: () => undefined, handle: () => undefined, ended: () => undefined };
  handlers.awaitPause("b");
  handlers.set("b", "messages", handler);
  handlers.set("c", "messages", handler);
  expect([handlers.isPaused("b"), handlers.isPaused("c")]).toEqual([true, false]);
  // What was asked before the handler was set says nothing of it.
  handlers.pauseEverywhere(["c"], ["c"]);
  expect([handlers.isPaused("b"), handlers.isPaused("c")]).toEqual([true, true]);
  handlers.pauseEverywhere(["b"], ["b", "c"]);
  expect(handlers.firstPause("b", false)).toBe(false);
  expect([handlers.isPaused("b"), handlers.isPaused("c")]).toEqual([true, false]);
  handlers.awaitPause("d");
  handlers.set("d", "messages", handler);
  expect(handlers.firstPause("d", false)).toBe(true);
  expect([handlers.isPaused("b"), handlers.isPaused("d")]).toEqual([true, false]);
});

it("a job that was read ahead before its topic's results were kept leaves one", async () => {
  const held = gate();
  const listener = await world.working("b-1", { concurrency: 1 }, () => held.opened);
  const ids = await enqueueBatch(world, "b", ["1", "2"]);
  await eventually("both are taken", async () => {
    const rows = await world.query("SELECT FROM hawser_data.queue WHERE worker IS NOT NULL");
    return rows.length === 2 && listener.texts.length === 1;
  });
  await keepResults(world, "b", 60_000);
  await eventually("the second is taken anew", async () => {
    const rows = await world.query("SELECT FROM hawser_data.queue WHERE keep_ms IS NOT NULL OR worker IS NULL");
    return rows.length === 1;
  });
  held.open();
  const { state } = await waitFor(world.url, ids[1]!);
  expect([state, (await job(world, ids[0]!)).state]).toEqual(["done", "unknown"]);
});
