/** A message for unit tests of handlers is what a worker hands over. */
import { expect, it } from "vitest";
import { type TestMessageOptions, testMessage } from "../../src/development/testing/index.js";
import { enqueue, type TransactionalMessage } from "../../src/jobs-and-peers/peer/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";

const world = sharedPeerWorld();

const seen = (message: TransactionalMessage) => ({
  class: message.constructor,
  texts: [message.topic, message.text(), message.key, message.attempt, message.delivery, message.correlationId],
  from: [message.sender, message.senderTopic],
  headers: [...message.headers].sort(([a], [b]) => a.localeCompare(b, "en")),
  id: message.id?.replace(/^\d+$/, "…"),
  isAborted: message.signal.aborted,
});

it.each<[string, string | Uint8Array | object, TestMessageOptions]>([
  ["text", "x", {}],
  ["JSON", { a: 1 }, { key: "k", headers: { "x-a": ["1", "2"] } }],
  ["bytes", new Uint8Array([120]), { messageId: "order-17" }],
])("has the properties of an enqueued message with a payload of %s", async (_, payload, options) => {
  const b = world.worker("b-1");
  const messages: TransactionalMessage[] = [];
  await b.handle("b", { transactional: true }, (message) => {
    messages.push(message);
    return seen(message) && undefined;
  });
  await b.start();
  await enqueue(world, "b", payload as string, options as object);
  await expect.poll(() => messages.length).toBe(1);
  const real = seen(messages[0]!);
  const made = seen(testMessage(payload as string, { ...options, topic: "b" }));
  // The order of an object in Postgres is not that of the sender.
  const withoutOrigin = real.headers.filter(([name]) => name !== "message-origin");
  expect(made).toEqual({ ...real, headers: withoutOrigin });
});

it("has the id that is given, as enqueue returns it or its digits", () => {
  expect([testMessage("x", { id: 17n }).id, testMessage("x", { id: "17" }).id, testMessage("x").id]).toEqual([
    "17",
    "17",
    "1",
  ]);
  expect(() => testMessage("x", { id: "order-17" })).toThrow(expect.objectContaining({ code: "invalid_argument" }));
});

it("has the client, signal and sender of the test, and tells of progress and replies", async () => {
  const told: unknown[] = [];
  const stop = new AbortController();
  const client = { query: async () => ({ rows: [{ n: 17 }] }) };
  const message = testMessage<{ a: number }>(
    { a: 1 },
    {
      ...{ client, signal: stop.signal, sender: { name: "s-1", topic: "s" }, attempt: 3 },
      ...{ onProgress: (value: unknown) => told.push(value), onReply: (payload: unknown) => told.push(payload) },
    },
  );
  expect(message.json().a).toBe(1);
  expect((await message.client.query("SELECT 17 AS n")).rows).toEqual([{ n: 17 }]);
  message.progress(50);
  expect(await message.reply("thanks")).toEqual({ outcome: "delivered", peer: "s-1" });
  expect(told).toEqual([50, "thanks"]);
  expect([message.sender, message.senderTopic, message.attempt]).toEqual(["s-1", "s", 3]);
  const { signal } = message;
  stop.abort(new Error("time is over"));
  expect(signal).toMatchObject({ aborted: true, reason: { message: "time is over" } });
  expect(testMessage("x", { signal: stop.signal }).signal.aborted).toBe(true);
});

it("tells the handler when a stop begins, as the peer does", () => {
  const begin = new AbortController();
  const message = testMessage("x", { stopping: begin.signal });
  const { stopping, signal } = message;
  expect(stopping.aborted).toBe(false);
  begin.abort(new Error("a deploy"));
  expect(stopping).toMatchObject({ aborted: true, reason: { message: "a deploy" } });
  expect(signal.aborted).toBe(false);
  expect(testMessage("x", { stopping: begin.signal }).stopping.aborted).toBe(true);
  expect(testMessage("x").stopping.aborted).toBe(false);
});

it("refuses a progress that a peer refuses", () => {
  const told: unknown[] = [];
  const message = testMessage("x", { onProgress: (value) => told.push(value) });
  const longest = "x".repeat(1_022);
  message.progress(longest);
  for (const value of [`${longest}x`, 1n, "ä".repeat(200)])
    expect(() => message.progress(value)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  expect(told).toEqual([longest]);
});

it("says which option of testMessage is missing, and refuses what no message can have", async () => {
  const message = testMessage("x");
  expect(() => message.client).toThrow("the test message has no client; give one to testMessage");
  await expect(message.reply("x")).rejects.toMatchObject({ code: "no_listener" });
  expect(() => testMessage("x").json()).toThrow(expect.objectContaining({ code: "invalid_message" }));
  for (const options of [{ attempt: 0 }, { key: "" }, { topic: "a:b" }, { headers: { "": "x" } }, { atempt: 2 }])
    expect(() => testMessage("x", options as TestMessageOptions)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
});
