/** Pauses of topics, in one process and in all: what runs ends, what waits waits, and senders notice nothing. */
import { describe, expect, it } from "vitest";
import { enqueueBatch, pauseTopic, resumeTopic } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { withEnoughTime } from "../support/timers.js";
import { type Gate, gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { RecordingWorker, TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const texts = (count: number): string[] => Array.from({ length: count }, (_, number) => `${number}`);
const leased = async (): Promise<number> =>
  (await world.query("SELECT FROM hawser_data.queue WHERE worker IS NOT NULL")).length;
const nothingIsLeft = () => eventually("nothing is left", async () => (await world.storedMessages()) === 0);

/** A pause of the topic "b", and its end. */
interface Pause {
  begin(listener: RecordingWorker | TestPeer): Promise<void>;
  end(listener: RecordingWorker | TestPeer): Promise<void>;
}

const pauses: Readonly<Record<string, Pause>> = {
  "in all processes": {
    begin: async () => void (await pauseTopic(world, "b")),
    end: async () => void (await resumeTopic(world, "b")),
  },
  "in one process": {
    begin: async (listener) => listener.pause("b"),
    end: async (listener) => listener.resume("b"),
  },
};

/** A worker, or a peer, that has begun one message of "b" and read others ahead. */
async function busy(held: Gate): Promise<RecordingWorker>;
async function busy(held: Gate, kind: "peer"): Promise<TestPeer>;
async function busy(held: Gate, kind = "worker"): Promise<RecordingWorker | TestPeer> {
  const of = ["b-1", { concurrency: 1 }, () => held.opened] as const;
  const listener = await (kind === "peer" ? world.started(...of) : world.working(...of));
  await enqueueBatch(world, "b", texts(20));
  await listener.received.length(1);
  await eventually("more is read ahead", async () => (await leased()) > 1);
  return listener;
}

describe.each(Object.entries(pauses))("a topic that is paused %s", (_, { begin, end }) => {
  it("lets what runs end, and gives back what was read ahead, which begins with the end of the pause", async () => {
    const held = gate();
    const listener = await busy(held);
    await begin(listener);
    await eventually("the rest is given back", async () => (await leased()) === 1);
    held.open();
    await eventually("the one that ran is done", async () => (await world.storedMessages()) === 19);
    await enqueueBatch(world, "b", ["20"]);
    await listener.recordTopic("c");
    await enqueueBatch(world, "c", ["other"]);
    await listener.received.length(2);
    expect(listener.texts).toEqual(["0", "other"]);
    await end(listener);
    await nothingIsLeft();
    expect(listener.texts.toSorted()).toEqual([...texts(21), "other"].toSorted());
  });

  it("lets messages wait that peers have sent, and requests be answered", async () => {
    const held = gate();
    const listener = await busy(held, "peer");
    const sender = await world.started("a-1", { tuning: { ackTimeoutMs: 200 } });
    await begin(listener);
    await eventually("it is known", async () => (await leased()) === 1);
    held.open();
    await sender.request("b", "question");
    expect(await sender.send("b", "sent")).toMatchObject({ outcome: "stored" });
    expect(await sender.send("b", "transient", { delivery: "at-most-once" })).toMatchObject({ outcome: "sent" });
    expect(listener.texts).toEqual(["0", "question"]);
    await end(listener);
    await listener.received.length(23);
    expect(listener.texts.toSorted()).toEqual([...texts(20), "question", "sent", "transient"].toSorted());
    await nothingIsLeft();
  });

  it("is paused for a process that starts later, too, and lets a batch wait that was not full", async () => {
    // The pause must come before the batch begins.
    await withEnoughTime(300, async (waitMs) => {
      const batches: string[][] = [];
      const listener = world.worker(`b-${waitMs}`);
      await listener.handleBatch("b", { maxMessages: 10, waitMs }, (messages) => {
        batches.push(messages.map((message) => message.text()));
      });
      await listener.start();
      await enqueueBatch(world, "b", ["1", "2"]);
      await eventually("they wait in a batch", async () => batches.length > 0 || (await leased()) === 2);
      await begin(listener);
      await eventually("they are given back", async () => (await leased()) === 0);
      await listener.stop();
      if (batches.length > 0) return await end(listener);
      await listener.start();
      await listener.handle("c", () => void batches.push(["c"]));
      await enqueueBatch(world, "c", ["other"]);
      await eventually("another topic goes on", () => batches.length > 0);
      expect(batches).toEqual([["c"]]);
      await end(listener);
      await nothingIsLeft();
      expect(batches.flat().toSorted()).toEqual(["1", "2", "c"]);
      return true;
    });
  });
});

it("a pause in one process leaves the messages to others", async () => {
  const [one, two] = [await world.working("b-1"), await world.working("b-2")];
  one.pause("b");
  await enqueueBatch(world, "b", texts(20));
  await two.received.length(20);
  expect(one.texts).toEqual([]);
});

it("a pause in one process ends apart from one in all", async () => {
  const held = gate();
  const listener = await busy(held);
  await pauseTopic(world, "b");
  await eventually("it is known", async () => (await leased()) === 1);
  listener.pause("b");
  listener.resume("b");
  held.open();
  await listener.recordTopic("c");
  await enqueueBatch(world, "c", ["other"]);
  await listener.received.length(2);
  expect(listener.texts).toEqual(["0", "other"]);
  await resumeTopic(world, "b");
  await nothingIsLeft();
});

it("a pause of which no notification tells is known with the next beat", async () => {
  const held = gate();
  await busy(held);
  await world.query("INSERT INTO hawser_data.topic_settings (topic, paused_at, paused_by) VALUES ('b', now(), 'x')");
  await eventually("it is known", async () => (await leased()) === 1);
  held.open();
  await world.query("DELETE FROM hawser_data.topic_settings");
  await nothingIsLeft();
});
