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
  const [row] = await world.query<{ number: number }>("SELECT max(number) AS number FROM hawser_peer_data.cursors");
  return row?.number ?? 0;
}

it("finishes a message when the next one is asked for", async () => {
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 60_000 } });
  const b = world.peer("b-1");
  const messages = b.messages("b");
  await b.start();
  const first = messages.next();
  const [one, two] = [a.send("b", "1"), a.send("b", "2")];
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
  const messages = b.messages("b");
  await b.start();
  const loop = (async () => {
    for await (const message of messages) {
      got.push(text(message));
      await message.reply(`re ${text(message)}`);
    }
  })();
  for (let n = 0; n < 5; n++) await a.send("b", `${n}`);
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
  const messages = b.messages("b");
  await b.start();
  const starting = (async () => {
    for await (const message of messages) {
      if (text(message) === "2") break;
    }
  })();
  const sent = ["1", "2", "3"].map((each) => a.send("b", each));
  await starting;
  // The message in hand is given up, not waited for.
  noTimersAbove(peerSettingsDefaults.stopTimeoutMs / 2);
  await b.stop();
  await Promise.all(sent);
  expect(await world.storedMessages()).toBe(2);
  await b.record();
  await b.received.length(2);
  expect(b.texts).toEqual(["2", "3"]);
  expect(await world.query("SELECT * FROM hawser_data.dead_letters")).toEqual([]);
});

it("stops at once after the loop was left, also with one attempt and messages of several senders waiting", async () => {
  const senders = await Promise.all([1, 2, 3].map((n) => world.started(`a-${n}`)));
  const b = world.peer("b-1", { defaults: { retry: { attempts: 1 } } });
  const messages = b.messages("b");
  await b.start();
  const left = (async () => {
    for await (const _ of messages) break;
  })();
  // The loop is left with the first message: who has not met the listener by then would find nobody.
  await Promise.all(senders.map((sender) => sender.listenersOf("b", { refresh: true })));
  const sent = senders.map((sender) => sender.send("b", sender.name));
  await left;
  noTimersAbove(peerSettingsDefaults.stopTimeoutMs / 2);
  await b.stop();
  await Promise.all(sent);
  await b.record();
  await b.received.length(3);
  expect([...b.texts].sort()).toEqual(["a-1", "a-2", "a-3"]);
  expect(await world.query("SELECT * FROM hawser_data.dead_letters")).toEqual([]);
});

it("stops at once while messages of several senders wait for the loop", async () => {
  const senders = await Promise.all([1, 2, 3].map((n) => world.started(`a-${n}`, { tuning: { ackTimeoutMs: 500 } })));
  const b = world.peer("b-1");
  const got: string[] = [];
  const messages = b.messages("b");
  await b.start();
  const first = messages.next();
  const sent = senders.map((sender) => sender.send("b", sender.name));
  got.push(text((await first).value));
  // Stored meanwhile, or at the latest by the stop: one is in hand here, and two wait.
  await Promise.all(sent);
  noTimersAbove(peerSettingsDefaults.stopTimeoutMs / 2);
  const stopping = b.stop();
  expect(await messages.next()).toEqual({ done: true, value: undefined });
  await stopping;
  expect(got).toHaveLength(1);
  await b.record();
  await b.received.length(2);
  expect([...got, ...b.texts].sort()).toEqual(["a-1", "a-2", "a-3"]);
});

it("is one handler of its topic: a later one takes its place, and the loop ends", async () => {
  const b = world.peer("b-1");
  const messages = b.messages("b");
  await b.start();
  const next = messages.next();
  await b.recordTopic("b");
  expect(await next).toEqual({ done: true, value: undefined });
  const a = await world.started("a-1");
  await a.send("b", "x");
  expect(b.texts).toEqual(["x"]);
});

it("ends with the run of its peer; the next run has a handler or a loop of its own", async () => {
  const b = world.peer("b-1");
  const messages = b.messages("b");
  await b.start();
  const next = messages.next();
  await b.stop();
  expect((await next).done).toBe(true);
  await b.start();
  const a = await world.started("a-1");
  await failure("no_listener", a.send("b", "nobody handles it"));
  const again = b.messages("b");
  const following = again.next();
  await eventually("the topic is served again", async () => (await a.listenersOf("b", { refresh: true })).length > 0);
  void a.send("b", "x");
  expect(text((await following).value)).toBe("x");
  await again.return?.();
});

it("has the client of a transaction for each message if it is transactional", async () => {
  await world.query("CREATE TABLE noted (v text)");
  const b = world.peer("b-1");
  const messages = b.messages("b", { transactional: true });
  await b.start();
  const a = await world.started("a-1");
  const sent = ["1", "2"].map((each) => a.send("b", each));
  for await (const message of messages) {
    await message.client.query("INSERT INTO noted VALUES ($1)", [message.text()]);
    if (message.text() === "2") break;
  }
  await b.stop();
  await Promise.all(sent);
  expect(await world.query("SELECT v FROM noted")).toEqual([{ v: "1" }]);
});

it("answers every step when several are asked for at once", async () => {
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 500 } });
  const b = world.peer("b-1");
  const messages = b.messages("b");
  await b.start();
  const steps = [messages.next(), messages.next(), messages.next()];
  await Promise.all(["1", "2", "3"].map((each) => a.send("b", each)));
  expect((await Promise.all(steps)).map(({ value }) => text(value))).toEqual(["1", "2", "3"]);
  await messages.return?.();
});
