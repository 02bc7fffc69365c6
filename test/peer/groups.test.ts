/**
 * Groups: members of a topic get messages as they have room.
 */
import { describe, expect, it } from "vitest";
import { Pace } from "../../src/jobs-and-peers/handlers/pace.js";
import type { Receipt } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, TestPeer, TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();

const member = (name: string, handler?: Handler, options: TestPeerOptions = {}): Promise<TestPeer> =>
  world.started(name, { ...options, defaults: { group: true, ...options?.defaults } }, handler);

/** Number of messages that each peer has had. */
const shares = (...peers: readonly TestPeer[]): number[] => peers.map(({ texts }) => texts.length);

/** The sender has a connection to each of the listeners. */
async function connected(sender: TestPeer, topic: string, ...names: readonly string[]): Promise<void> {
  const met = names.map((name) => sender.saw("peer_connected", ({ peer }) => peer === name));
  await sender.listenersOf(topic, { refresh: true });
  await Promise.all(met);
}

function count(receipts: readonly Receipt[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { outcome } of receipts) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

describe("a group", () => {
  it("gives a burst that is made at once to those that are fast", async () => {
    const fast = [await member("b-1"), await member("b-2")];
    const held = gate();
    const slow = await member("b-3", () => held.opened, { concurrency: 1, tuning: { busyAfterMs: 3_600_000 } });
    const a = await world.started("a-1");
    const sent = Array.from({ length: 1_000 }, (_, n) => a.send("b", `${n}`));
    const handled = (...peers: readonly TestPeer[]): number => new Set(peers.flatMap(({ texts }) => texts)).size;
    await eventually("the fast have nearly all", () => handled(...fast) > 950);
    held.open();
    await Promise.all(sent);
    await eventually("all are handled", () => handled(...fast, slow) === 1_000);
  });

  it("takes its members in turn while they have nothing to do", async () => {
    const members = [await member("b-1"), await member("b-2"), await member("b-3")];
    const a = await world.started("a-1");
    await connected(a, "b", "b-1", "b-2", "b-3");
    for (let n = 0; n < 9; n++) await a.send("b", `${n}`);
    expect(shares(...members)).toEqual([3, 3, 3]);
    for (let n = 0; n < 6; n++) await a.send("b", `${n}`, { delivery: "at-most-once" });
    await eventually("all have come", () => shares(...members).every((each) => each === 5));
  });

  it("has a message enqueued that no member has room for, and whoever has room first takes it", async () => {
    const held = gate();
    const b = await member(
      "b-1",
      ({ payload }) => (Buffer.from(payload).toString() === "0" ? held.opened : undefined),
      {
        concurrency: 1,
      },
    );
    const a = await world.started("a-1");
    await connected(a, "b", "b-1");
    const under = ["0", "1"].map((text) => a.send("b", text));
    // From then on it has no slot for what is in the queue.
    await b.received.length(1);
    const rest = Array.from({ length: 48 }, (_, n) => a.send("b", `${n + 2}`, { headers: { n: `${n + 2}` } }));
    expect(count(await Promise.all(rest))).toEqual({ stored: 48 });
    const other = await member("b-2");
    // The first one may have taken one ahead.
    await other.received.length(47);
    expect(b.texts).toEqual(["0"]);
    for (const { sender, senderTopic, delivery, headers, text } of other.received.all) {
      expect({ sender, senderTopic, delivery }).toEqual({ sender: "a-1", senderTopic: "a", delivery: "at-least-once" });
      expect(headers).toContainEqual(["n", text]);
    }
    held.open();
    await Promise.all(under);
    await eventually("all have come", () => b.texts.length + other.texts.length >= 50);
    expect(new Set([...b.texts, ...other.texts]).size).toBe(50);
  });

  it("refuses what is beyond the limits of the queue", async () => {
    const held = gate();
    await member("b-1", () => held.opened, { concurrency: 1 });
    const a = await world.started("a-1", { tuning: { maxSendQueueMessages: 5 } });
    await connected(a, "b", "b-1");
    const sent = Array.from({ length: 7 }, (_, n) => a.send("b", `${n}`));
    const error = await failure("busy", a.send("b", "one too many"));
    expect(error.message).toContain('no member of "b" has room, and 5 messages already wait for the queue');
    expect(count(await Promise.all(sent.slice(2)))).toEqual({ stored: 5 });
    held.open();
    expect(count(await Promise.all(sent.slice(0, 2)))).toEqual({ delivered: 2 });
  });

  it("stores at once what no member can be reached for", async () => {
    const b = await member("b-1");
    const a = await world.started("a-1");
    await a.send("b", "1");
    await b.stop();
    expect((await a.send("b", "2")).outcome).toBe("stored");
    const burst = await Promise.all(Array.from({ length: 20 }, (_, n) => a.send("b", `${n + 3}`)));
    expect(count(burst)).toEqual({ stored: 20 });
    await b.record();
    await b.received.length(22);
    expect(b.texts.map(Number).sort((one, other) => one - other)).toEqual(Array.from({ length: 22 }, (_, n) => n + 1));
  });

  it("loses nothing of what waits when the sender stops", async () => {
    const held = gate();
    const members = await Promise.all(["b-1", "b-2"].map((name) => member(name, () => held.opened)));
    const a = await world.started("a-1");
    await connected(a, "b", "b-1", "b-2");
    const sent = Array.from({ length: 100 }, (_, n) => a.send("b", `${n}`));
    await a.stop();
    expect(count(await Promise.all(sent))).toEqual({ stored: 100 });
    held.open();
    await eventually("all are handled", () => members.flatMap(({ texts }) => texts).length === 100);
  });

  it("keeps what is enqueued when the sender's name is lost", async () => {
    const held = gate();
    const b = await member("b-1", () => held.opened);
    const a = await world.started("a-1");
    await connected(a, "b", "b-1");
    const sent = Array.from({ length: 10 }, (_, n) => a.send("b", `${n}`));
    const under = sent.slice(0, 2).map((each) => failure("name_lost", each));
    expect(count(await Promise.all(sent.slice(2)))).toEqual({ stored: 8 });
    await world.query("SELECT FROM hawser.end_ownership('a-1', true)");
    // What tells the peer of it.
    await world.query("UPDATE hawser_peer_data.listeners SET registered_at = now() WHERE listener_name = 'a-1'");
    for (const error of await Promise.all(under)) expect(error.outcome).toBe("unknown");
    held.open();
    await eventually("all are handled", () => b.texts.length === 10);
  });

  it("ends the wait of a caller whose signal is aborted; the message stays", async () => {
    const held = gate();
    const b = await member("b-1", () => held.opened);
    const a = await world.started("a-1");
    await connected(a, "b", "b-1");
    const before = [a.send("b", "1"), a.send("b", "2")];
    const caller = new AbortController();
    const payload = Buffer.from("3");
    const left = a.send("b", payload, { signal: caller.signal });
    caller.abort();
    await failure("aborted", left);
    payload.fill("x");
    held.open();
    await Promise.all(before);
    await b.received.length(3);
    expect([...b.texts].sort()).toEqual(["1", "2", "3"]);
  });

  it("makes requests of the member with the least to do", async () => {
    const held = gate();
    const b = await member("b-1", (message) => (message.text() === "who?" ? "b-1" : held.opened));
    const a = await world.started("a-1");
    await connected(a, "b", "b-1");
    const kept = a.send("b", "kept");
    await b.received.length(1);
    await member("b-2", () => "b-2");
    await connected(a, "b", "b-2");
    for (let n = 0; n < 5; n++) expect((await a.request("b", "who?")).peer).toBe("b-2");
    held.open();
    await kept;
  });

  it("is none while a listener of the topic is no member: then all are taken in turn", async () => {
    const members = [await member("b-1"), await member("b-2")];
    const held = gate();
    const other = await world.started("b-3", { tuning: { busyAfterMs: 3_600_000 } }, () => held.opened);
    const a = await world.started("a-1");
    const sent = Array.from({ length: 60 }, (_, n) => a.send("b", `${n}`));
    await eventually("the members have theirs", () => shares(...members).every((each) => each === 20));
    held.open();
    await Promise.all(sent);
    await eventually("all are handled", () => shares(...members, other).every((each) => each === 20));
  });
});

describe("the pace of a listener", () => {
  it("is what it has handled within the last 50 ms", () => {
    const pace = new Pace();
    expect(pace.recent(1_000)).toBe(0);
    pace.handled(3, 1_000);
    pace.handled(4, 1_025);
    expect(pace.recent(1_049)).toBe(7);
    expect(pace.recent(1_050)).toBe(4);
    expect(pace.recent(1_075)).toBe(0);
    pace.handled(1, 9_000);
    expect(pace.recent(9_000)).toBe(1);
  });
});

describe("messages with a key", () => {
  it("go to the listener that has not handled the one before, also when a new one would have the key", async () => {
    const held = gate();
    const first = await member("b-1", () => held.opened);
    const a = await world.started("a-1");
    const keys = Array.from({ length: 20 }, (_, n) => `key ${n}`);
    const sendAll = (text: string): Promise<Receipt>[] => keys.map((key) => a.send("b", `${key} ${text}`, { key }));
    const sent = sendAll("1");
    await first.received.length(20);
    const second = await member("b-2");
    await connected(a, "b", "b-2");
    sent.push(...sendAll("2"));
    held.open();
    await Promise.all(sent);
    expect(first.texts.filter((text) => text.endsWith(" 2")).length).toBe(20);
    expect(second.texts.filter((text) => text.startsWith("key"))).toEqual([]);
    await Promise.all(sendAll("3"));
    expect(second.texts.filter((text) => text.endsWith(" 3")).length).toBeGreaterThan(2);
  });
});
