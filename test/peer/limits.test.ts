/**
 * Limits of the messages that wait at a sender, and of the length of a message.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("refuses a payload above the listener's limit at once, with both numbers", async () => {
  const a = await world.started("a-1");
  await world.started("b-1", { maxMessageBytes: 1_000 });
  const fits = Buffer.alloc(1_000, 1);
  const tooLong = Buffer.alloc(1_001, 1);
  for (const delivery of ["at-least-once", "at-most-once"] as const) {
    const error = await failure("invalid_argument", a.send("b", tooLong, { delivery }));
    expect(error.message).toMatch(/1001 bytes.*1000/);
    expect(error.outcome).toBeUndefined();
    expect((await a.send("b", fits, { delivery })).peer).toBe("b-1");
  }
  expect(await a.sendAll("b", tooLong)).toMatchObject([{ peer: "b-1", error: { code: "invalid_argument" } }]);
});

it("refuses a payload above the listener's limit while the listener is stopped, too", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1", { maxMessageBytes: 1_000 });
  await a.send("b", "hello");
  await b.stop();
  await failure("invalid_argument", a.send("b", Buffer.alloc(1_001)));
  await a.stop();
  // The limit is remembered with the route.
  await a.record();
  await failure("invalid_argument", a.send("b", Buffer.alloc(1_001)));
  expect(await world.storedMessages()).toBe(0);
});

it("refuses with busy what the queue does not hold, and takes more when it has room again", async () => {
  const a = await world.started("a-1", { tuning: { maxSendQueueMessages: 10 } });
  const b = await world.started("b-1");
  await a.send("b", "hello");
  const sent = Array.from({ length: 12 }, (_, n) => a.send("b", `${n}`));
  const settled = await Promise.allSettled(sent);
  expect(settled.map(({ status }) => status)).toEqual([...Array(10).fill("fulfilled"), "rejected", "rejected"]);
  const error = await failure("busy", sent[10] as Promise<unknown>);
  expect(error.retryable).toBe(true);
  expect(error.message).toMatch(/10 messages.*"b-1"/);
  expect(await a.saw("sender_busy")).toMatchObject({ topic: "b", peer: "b-1" });
  expect((await a.send("b", "later")).outcome).toBe("delivered");
  expect(b.texts).toEqual(["hello", ..."0123456789", "later"]);
});

it("counts payload bytes in the queue, and always takes one message", async () => {
  const a = await world.started("a-1", { tuning: { maxSendQueueBytes: 100 } });
  await world.started("b-1");
  expect((await a.send("b", Buffer.alloc(1_000))).outcome).toBe("delivered");
  const [first, second] = [a.send("b", Buffer.alloc(1_000)), a.send("b", Buffer.alloc(1))];
  await failure("busy", second);
  expect((await first).outcome).toBe("delivered");
});

it("is that of the uncompressed payload, sent and stored", async () => {
  const maxMessageBytes = 100_000;
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: 10 } });
  const b = await world.started("b-1", { maxMessageBytes });
  // It would travel as a few hundred bytes.
  const fits = Buffer.alloc(maxMessageBytes, "x");
  const tooLong = Buffer.alloc(maxMessageBytes + 1, "x");
  const error = await failure("invalid_argument", a.send("b", tooLong));
  expect(error.message).toMatch(/100001 bytes.*100000/);
  expect((await a.send("b", fits)).outcome).toMatch(/delivered|stored/);
  await b.received.length(1);
  await b.stop();
  await failure("invalid_argument", a.send("b", tooLong));
  expect((await a.send("b", fits)).outcome).toBe("stored");
  await b.record();
  await b.received.length(2);
  expect(b.texts.map((text) => text.length)).toEqual([maxMessageBytes, maxMessageBytes]);
});
