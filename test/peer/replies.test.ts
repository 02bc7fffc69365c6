/**
 * Replies: to the very peer that sent the message, whether it is there or not.
 */
import pg from "pg";
import { expect, it } from "vitest";
import type { ReplyReceipt } from "../../src/jobs-and-peers/handlers/message.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("goes to the very peer that sent the message, not to another of its topic", async () => {
  const [first, second] = [await world.started("a-1"), await world.started("a-2")];
  const receipts: ReplyReceipt[] = [];
  await world.started("b-1", {}, async (message) => {
    receipts.push(await message.reply(`to ${message.sender}`, { headers: { re: "1" } }));
  });
  for (let n = 0; n < 3; n++) await second.send("b", "x");
  await first.send("b", "y");
  await second.received.length(3);
  await first.received.length(1);
  expect(receipts.map(({ peer }) => peer)).toEqual(["a-2", "a-2", "a-2", "a-1"]);
  expect(first.received.all).toEqual([
    {
      topic: "a",
      senderTopic: "b",
      sender: "b-1",
      text: "to a-1",
      headers: [["re", "1"]],
      attempt: 1,
      delivery: "at-least-once",
    },
  ]);
});

it("takes both deliveries", async () => {
  const a = await world.started("a-1");
  const receipts: ReplyReceipt[] = [];
  await world.started("b-1", {}, async (message) => {
    receipts.push(await message.reply("once", { delivery: "at-most-once" }));
    receipts.push(await message.reply(new Uint8Array([1])));
  });
  await a.send("b", "x");
  await a.received.length(2);
  expect(receipts).toEqual([
    { outcome: "sent", peer: "a-1" },
    { outcome: "delivered", peer: "a-1" },
  ]);
  expect(a.received.all.map(({ delivery }) => delivery)).toEqual(["at-most-once", "at-least-once"]);
});

it("is stored for a sender that has left, which has it when it runs again; at-most-once it is dropped", async () => {
  const a = await world.started("a-1");
  const held = gate();
  const replied = gate();
  const receipts: ReplyReceipt[] = [];
  const b = await world.started("b-1", {}, async (message) => {
    await held.opened;
    receipts.push(await message.reply("lost", { delivery: "at-most-once" }));
    receipts.push(await message.reply("late"));
    replied.open();
  });
  await a.send("b", "x", { delivery: "at-most-once" });
  await b.received.length(1);
  await a.stop();
  held.open();
  await replied.opened;
  expect(receipts).toEqual([
    { outcome: "dropped", peer: "a-1" },
    { outcome: "stored", peer: "a-1" },
  ]);
  expect(await world.storedMessages()).toBe(1);
  await a.record();
  await a.received.length(1);
  expect(a.received.all).toMatchObject([{ topic: "a", senderTopic: "b", text: "late" }]);
});

it("is stored under the sender's topic also when the sender was known by another topic only", async () => {
  const a = world.peer("a-1");
  await a.recordTopic("news");
  await a.record();
  const held = gate();
  const replied = gate();
  const b = await world.started("b-1", {}, async (message) => {
    await held.opened;
    expect(await message.reply("late")).toEqual({ outcome: "stored", peer: "a-1" });
    replied.open();
  });
  // From here on b has a channel to a, and has never looked up the topic "a".
  await b.send("news", "1");
  await a.send("b", "x", { delivery: "at-most-once" });
  await b.received.length(1);
  await a.stop();
  held.open();
  await replied.opened;
  await a.record();
  await a.received.length(2);
  expect(a.received.all.map(({ topic, text }) => ({ topic, text }))).toEqual([
    { topic: "news", text: "1" },
    { topic: "a", text: "late" },
  ]);
});

it("is not_running after the replier has stopped", async () => {
  const a = await world.started("a-1");
  let reply: (() => Promise<ReplyReceipt>) | undefined;
  const b = await world.started("b-1", {}, (message) => {
    reply = () => message.reply("late");
  });
  await a.send("b", "x");
  await b.stop();
  await failure("not_running", () => reply?.());
});

it("is delivered or stored when the handler awaits it while its peer stops", async () => {
  const a = await world.started("a-1");
  const held = gate();
  let receipt: ReplyReceipt | undefined;
  const b = await world.started("b-1", {}, async (message) => {
    await held.opened;
    receipt = await message.reply("while stopping");
  });
  const sent = a.send("b", "x");
  await b.received.length(1);
  const stopping = b.stop();
  await failure("not_running", b.send("a", "new"));
  held.open();
  await stopping;
  expect(receipt?.outcome).toMatch(/delivered|stored/);
  expect((await sent).outcome).toMatch(/delivered|stored/);
  await a.received.length(1);
  await b.record();
  await b.send("a", "again");
  await a.received.length(2);
  expect(a.texts).toEqual(["while stopping", "again"]);
  expect(b.texts).toEqual(["x"]);
});

it("a reply to oneself makes the own topic no topic to send to", async () => {
  // The handler waits for its reply, which its own peer stores as soon as it is busy.
  const a = world.peer("a-1", { tuning: { busyAfterMs: 10 } });
  await a.recordTopic("q");
  await a.record(async (message) => {
    if (message.topic === "q") await message.reply("answer");
  });
  await a.send("q", "question");
  await a.received.find(({ text }) => text === "answer");
  await failure("self_topic", a.send("a", "self"));
});

it("leads back to the id of the message", async () => {
  const a = await world.started("a-1");
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await world.started("b-1", {}, async (message) => {
    await message.reply("ours");
    await message.reply("its own", { headers: { "Correlation-Id": "7" } });
  });
  const replies: (string | undefined)[][] = [];
  await a.handle("a", (message) => void replies.push([message.text(), message.correlationId]));
  await a.send("b", "x", { messageId: "order-17" });
  await a.send("b", "x");
  await eventually("the replies to what was sent", () => replies.length === 4);
  const id = await a.enqueue(client, "b", "x");
  const urgent = await a.enqueue(client, "b", "x", { priority: 32_767 });
  await a.enqueue(client, "b", "x", { messageId: "order-18" });
  await eventually("all replies", () => replies.length === 10);
  await client.end();
  const correlations = replies.filter(([text]) => text === "ours").map(([, correlationId]) => correlationId);
  expect(correlations.slice(0, 2)).toEqual(["order-17", undefined]);
  expect(correlations.slice(2).sort()).toEqual([`${id}`, `${urgent}`, "order-18"].sort());
  expect(replies.filter(([text]) => text === "its own").map(([, correlationId]) => correlationId)).toEqual(
    Array(5).fill("7"),
  );
});
