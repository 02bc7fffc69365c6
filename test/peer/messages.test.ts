/**
 * Messages as an async iterator: asking for the next one finishes the one before.
 */
import { expect, it } from "vitest";
import { peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const text = ({ payload }: { readonly payload: Uint8Array }): string => Buffer.from(payload).toString();

async function cursor(): Promise<number> {
  const [row] = await world.query<{ v: number }>("SELECT max(v) AS v FROM hawser.conn_mess_number");
  return row?.v ?? 0;
}

it("starts the peer on the first step, and finishes a message when the next one is asked for", async () => {
  const a = await world.started("a-1", { ackTimeoutMs: 60_000 });
  const b = world.peer("b-1");
  const messages = b.messages();
  expect(b.boundListenAddress).toBe("");
  const first = messages.next();
  await eventually("it runs", () => b.publishedAddress !== "");
  const [one, two] = [a.sendTo("b", "1"), a.sendTo("b", "2")];
  const got = await first;
  expect(got.done).toBe(false);
  expect(text(got.value)).toBe("1");
  expect(await cursor()).toBe(0);
  const second = await messages.next();
  expect(text(second.value)).toBe("2");
  await eventually("the first is committed", async () => (await cursor()) === 1);
  expect((await one).outcome).toMatch(/delivered|stored/);
  const third = messages.next();
  await eventually("the second is committed", async () => (await cursor()) === 2);
  await two;
  await b.stop();
  expect(await third).toEqual({ done: true, value: undefined });
});

it("is a loop that ends when the peer stops, having finished what its body handled", async () => {
  const a = await world.started("a-1");
  const b = world.peer("b-1");
  const got: string[] = [];
  const loop = (async () => {
    for await (const message of b.messages()) {
      got.push(text(message));
      await message.reply(`re ${text(message)}`);
    }
  })();
  await eventually("it runs", () => b.publishedAddress !== "");
  for (let n = 0; n < 5; n++) await a.sendTo("b", `${n}`);
  await a.received.length(5);
  await b.stop();
  await loop;
  expect(got).toEqual(["0", "1", "2", "3", "4"]);
  expect(await cursor()).toBe(5);
  expect(await world.storedMessages()).toBe(0);
});

it("gives a message that was not finished again at the next start, and what came behind it", async () => {
  const a = await world.started("a-1");
  const b = world.peer("b-1");
  const starting = (async () => {
    for await (const message of b.messages()) {
      if (text(message) === "2") break;
    }
  })();
  await eventually("it runs", () => b.publishedAddress !== "");
  const sent = ["1", "2", "3"].map((each) => a.sendTo("b", each));
  await starting;
  // The message in hand is given up, not waited for.
  noTimersAbove(peerSettingsDefaults.stopDeadlineMs / 2);
  await b.stop();
  await Promise.all(sent);
  expect(await cursor()).toBe(1);
  await b.record();
  await b.received.length(2);
  expect(b.texts).toEqual(["2", "3"]);
  expect(await world.query("SELECT * FROM hawser.dead_letters")).toEqual([]);
});

it("stops at once after the loop was left, also with maxAttempts 1 and messages of several senders waiting", async () => {
  const senders = await Promise.all([1, 2, 3].map((n) => world.started(`a-${n}`)));
  const b = world.peer("b-1", { maxAttempts: 1 });
  const left = (async () => {
    for await (const _ of b.messages()) break;
  })();
  await eventually("it runs", () => b.publishedAddress !== "");
  // The loop is left with the first message: who has not met the listener by then would find nobody.
  await Promise.all(senders.map((sender) => sender.refreshAddressTopic("b")));
  const sent = senders.map((sender) => sender.sendTo("b", sender.name));
  await left;
  noTimersAbove(peerSettingsDefaults.stopDeadlineMs / 2);
  await b.stop();
  await Promise.all(sent);
  await b.record();
  await b.received.length(3);
  expect([...b.texts].sort()).toEqual(["a-1", "a-2", "a-3"]);
  expect(await world.query("SELECT * FROM hawser.dead_letters")).toEqual([]);
});

it("stops at once while messages of several senders wait for the loop", async () => {
  const senders = await Promise.all([1, 2, 3].map((n) => world.started(`a-${n}`, { ackTimeoutMs: 500 })));
  const b = world.peer("b-1");
  const got: string[] = [];
  const messages = b.messages();
  const first = messages.next();
  await eventually("it runs", () => b.publishedAddress !== "");
  const sent = senders.map((sender) => sender.sendTo("b", sender.name));
  got.push(text((await first).value));
  // Stored meanwhile, or at the latest by the stop: one is in hand here, and two wait.
  await Promise.all(sent);
  noTimersAbove(peerSettingsDefaults.stopDeadlineMs / 2);
  const stopping = b.stop();
  expect(await messages.next()).toEqual({ done: true, value: undefined });
  await stopping;
  expect(got).toHaveLength(1);
  await b.record();
  await b.received.length(2);
  expect([...got, ...b.texts].sort()).toEqual(["a-1", "a-2", "a-3"]);
});

it("takes the place of a handler: it cannot be had while the peer runs, nor twice", async () => {
  const b = await world.started("b-1");
  await failure("already_running", () => b.messages());
  await b.stop();
  const messages = b.messages();
  await failure("already_running", () => b.messages());
  const next = messages.next();
  await eventually("it runs", () => b.publishedAddress !== "");
  await b.stop();
  expect((await next).done).toBe(true);
  // After the stop there may be another, or a handler.
  const again = b.messages();
  const following = again.next();
  await eventually("it runs again", () => b.publishedAddress !== "");
  const a = await world.started("a-1");
  void a.sendTo("b", "x");
  expect(text((await following).value)).toBe("x");
  await again.return?.();
});

it("fails as the start does, and may be tried again", async () => {
  const holder = await world.started("b-1");
  const b = world.peer("b-1", { nameWaitMs: 0 });
  await failure("name_in_use", b.messages().next());
  await holder.stop();
  const messages = b.messages();
  const next = messages.next();
  await eventually("it runs", () => b.publishedAddress !== "");
  const a = await world.started("a-1");
  void a.sendTo("b", "x");
  expect(text((await next).value)).toBe("x");
  await messages.return?.();
});

it("answers every step when several are asked for at once", async () => {
  const a = await world.started("a-1", { ackTimeoutMs: 500 });
  const b = world.peer("b-1");
  const messages = b.messages();
  const steps = [messages.next(), messages.next(), messages.next()];
  await eventually("it runs", () => b.publishedAddress !== "");
  await Promise.all(["1", "2", "3"].map((each) => a.sendTo("b", each)));
  expect((await Promise.all(steps)).map(({ value }) => text(value))).toEqual(["1", "2", "3"]);
  await messages.return?.();
});
