/**
 * Sending: receipts, what they mean, and what is refused.
 */

import { describe, expect, it } from "vitest";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { Outgoing } from "../../src/jobs-and-peers/peer/sending/outgoing.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";
import { SentCounts } from "../../src/jobs-and-peers/worker/counters.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { tableNamed } from "../support/tables.js";
import { noTimersAbove } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("send resolves `delivered` when the handler is done and its cursor is committed", async () => {
  const a = await world.started("a-1");
  let done = false;
  const b = await world.started("b-1", {}, async () => {
    await world.query("SELECT 1");
    done = true;
  });
  expect(await a.send("b", "hello")).toEqual({ outcome: "delivered", peer: "b-1" });
  expect(done).toBe(true);
  expect(b.received.all).toEqual([
    { topic: "b", senderTopic: "a", sender: "a-1", text: "hello", headers: [], attempt: 1, delivery: "at-least-once" },
  ]);
  const cursors = await world.query("SELECT number FROM hawser_peer_data.cursors");
  expect(cursors).toEqual([{ number: 1 }]);
});

it("send takes bytes and text, with headers from a record or pairs, and hands them over live and stored", async () => {
  const a = await world.started("a-1");
  const payloads: Uint8Array[] = [];
  const b = await world.started("b-1", {}, ({ payload }) => void payloads.push(payload.slice()));
  const pairs = [
    ["x", "1"],
    ["x", "2"],
  ] as const;
  await a.send("b", "dé", { headers: { trace: "abc", empty: "" } });
  await a.send("b", new Uint8Array([0, 255, 7]), { delivery: "at-most-once", headers: pairs });
  await a.send("b", Buffer.from("view").subarray(1));
  await b.received.length(3);
  expect(payloads.map((payload) => [...payload])).toEqual([[0x64, 0xc3, 0xa9], [0, 255, 7], [...Buffer.from("iew")]]);
  await b.stop();
  const quoted = { trace: 'ü "quoted" \t' };
  await a.send("b", "stored", { headers: quoted });
  await b.record();
  await b.received.length(4);
  const headers = [Object.entries({ trace: "abc", empty: "" }), pairs, [], Object.entries(quoted)];
  expect(b.received.all.map((message) => message.headers)).toEqual(headers);
});

it("send resolves `stored` once Postgres has it while the listener is stopped, and the listener gets it when it runs", async () => {
  const [a, b] = await world.left("first");
  expect(await a.send("b", "second")).toEqual({ outcome: "stored", peer: "b-1" });
  expect(await world.storedMessages()).toBe(1);
  expect(await a.send("b", "third")).toEqual({ outcome: "stored", peer: "b-1" });
  await b.record();
  await b.received.length(3);
  expect(b.texts).toEqual(["first", "second", "third"]);
  // What was handled leaves the store with its cursor.
  await eventually("the stored messages are gone", async () => (await world.storedMessages()) === 0);
});

/** Keeps every write of a table waiting until `let go`. Resolves when one waits, having begun `send`. */
async function whileLocked<T>(
  table: string,
  send: () => Promise<T>,
): Promise<{ readonly sent: Promise<T>; readonly isSettled: () => boolean; readonly letGo: () => Promise<void> }> {
  await world.query("BEGIN");
  await world.query(`LOCK TABLE ${tableNamed(table)} IN SHARE MODE`);
  let settled = false;
  const sent = send().finally(() => {
    settled = true;
  });
  const waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
  await eventually("a write waits", async () => (await rowsOf(world.url, waiting)).length > 0);
  const letGo = async (): Promise<void> => void (await world.query("COMMIT"));
  return { sent, isSettled: () => settled, letGo };
}

it("send confirms nothing as stored before Postgres has committed it", async () => {
  const [a] = await world.left("1");
  const { sent, isSettled, letGo } = await whileLocked("stored_messages", () => a.send("b", "2"));
  expect(isSettled()).toBe(false);
  expect(await world.storedMessages()).toBe(0);
  await letGo();
  expect((await sent).outcome).toBe("stored");
  expect(await world.storedMessages()).toBe(1);
});

it("send confirms nothing as delivered before the listener's cursor is committed", async () => {
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 60_000 } });
  const b = await world.started("b-1");
  await a.send("b", "1");
  const { sent, isSettled, letGo } = await whileLocked("cursors", () => a.send("b", "2"));
  // The handler is done, and the acknowledgement is not on its way.
  expect(b.texts).toEqual(["1", "2"]);
  await a.send("b", "at most once", { delivery: "at-most-once" });
  await b.received.length(3);
  expect(isSettled()).toBe(false);
  await letGo();
  expect((await sent).outcome).toBe("delivered");
});

it("send resolves `sent` for at-most-once over a connection, without a number", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  expect(await a.send("b", "x", { delivery: "at-most-once" })).toEqual({ outcome: "sent", peer: "b-1" });
  await b.received.length(1);
  expect(b.received.all[0]).toMatchObject({ text: "x", delivery: "at-most-once" });
  expect(await world.query("SELECT number FROM hawser_peer_data.cursors WHERE number > 0")).toEqual([]);
});

it("send keeps the order of both deliveries on a live channel", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "begin");
  await eventually("the channel is live", async () => (await a.send("b", "ping")).outcome === "delivered");
  const before = b.received.all.length;
  const sent = Array.from({ length: 200 }, (_, n) =>
    a.send("b", `${n}`, { delivery: n % 3 === 0 ? "at-most-once" : "at-least-once" }),
  );
  await Promise.all(sent);
  await b.received.length(before + 200);
  expect(b.texts.slice(before)).toEqual(Array.from({ length: 200 }, (_, n) => `${n}`));
});

it("send confirms what is sent one at a time without a wait for a poll", async () => {
  const [a] = await world.running("a-1", "b-1");
  await a.send("b", "hello");
  noTimersAbove(polls.everyMs - 1);
  for (let n = 0; n < 5; n++) expect((await a.send("b", `${n}`)).outcome).toBe("delivered");
});

it("send drops at-most-once for a listener that is down, and stores nothing", async () => {
  const [a, b] = await world.left("hello");
  expect(await a.send("b", "lost", { delivery: "at-most-once" })).toEqual({ outcome: "dropped", peer: "b-1" });
  expect((await a.pending()).count).toBe(0);
  expect(await world.storedMessages()).toBe(0);
  await b.record();
  await a.send("b", "after");
  await b.received.length(2);
  expect(b.texts).toEqual(["hello", "after"]);
});

it("send drops at-most-once within connectWaitMs where the directory leads to nobody", async () => {
  const a = await world.started("a-1", { tuning: { connectWaitMs: 300 } });
  await world.list("ghost", "ghost-1");
  noTimersAbove(300);
  expect(await a.send("ghost", "x", { delivery: "at-most-once" })).toEqual({ outcome: "dropped", peer: "ghost-1" });
  expect(await world.storedMessages()).toBe(0);
});

it("send stores for a row that an operator wrote, and the listener has it when it starts at another address", async () => {
  const a = await world.started("a-1");
  await world.list("b", "b-1");
  expect(await a.send("b", "early")).toEqual({ outcome: "stored", peer: "b-1" });
  await a.stop();
  const b = await world.started("b-1");
  await b.received.length(1);
  expect(b.texts).toEqual(["early"]);
});

it("send refuses a topic that nobody serves and this sender never met with no_listener", async () => {
  const a = await world.started("a-1");
  for (const delivery of ["at-least-once", "at-most-once"] as const) {
    const error = await failure("no_listener", a.send("nobody", "x", { delivery }));
    expect(error.message).toContain('"nobody"');
    expect(error.outcome).toBeUndefined();
  }
  await failure("no_listener", a.sendAll("nobody", "x"));
  // Once somebody does, it works.
  await world.started("nobody-1");
  expect(await a.send("nobody", "x")).toEqual({ outcome: "delivered", peer: "nobody-1" });
});

it("send remembers whom it has met over its own restart, and need not have met a durable listener", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  const durable = await world.started("durable-1", { defaults: { durable: true } });
  await a.send("b", "1");
  await Promise.all([a, b, durable].map((peer) => peer.stop()));
  const again = await world.started("a-1");
  expect(await again.send("b", "2")).toEqual({ outcome: "stored", peer: "b-1" });
  expect(await again.send("durable", "3")).toEqual({ outcome: "stored", peer: "durable-1" });
  await durable.record();
  await durable.received.length(1);
  // Another sender never met the first.
  const c = await world.started("c-1");
  await failure("no_listener", c.send("b", "3"));
});

it("send refuses the own source topic with self_topic, also where others serve it", async () => {
  const a = await world.started("a-1");
  await world.started("a-2");
  await failure("self_topic", a.send("a", "x"));
  await failure("self_topic", a.sendAll("a", "x"));
});

it("send delivers a burst over a restart of the listener once each and in order", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  const texts = Array.from({ length: 1_000 }, (_, n) => `${n}`);
  const sent = texts.map((text) => a.send("b", text));
  await b.received.length(100);
  await b.stop();
  await Promise.all(sent);
  await b.record();
  await b.received.length(1_000);
  await a.send("b", "end");
  await b.received.find(({ text }) => text === "end");
  expect(b.texts).toEqual([...texts, "end"]);
});

describe("an AbortSignal", () => {
  it("that is none is refused, and nothing is sent", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1");
    for (const signal of [{}, "stop", null] as never[]) {
      for (const call of [
        a.send("b", "x", { signal }),
        a.sendAll("b", "x", { signal }),
        a.request("b", "x", { signal }),
      ]) {
        expect((await failure("invalid_argument", call)).message).toMatch(/^signal: must be an AbortSignal, and is /);
      }
    }
    await a.send("b", "end");
    expect(b.texts).toEqual(["end"]);
  });

  it("ends the wait with aborted when the signal says so; the message itself may still arrive", async () => {
    const a = await world.started("a-1");
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const b = await world.started("b-1", {}, () => held);
    const stop = new AbortController();
    const sent = a.send("b", "x", { signal: stop.signal });
    await b.received.length(1);
    const reason = new Error("enough");
    stop.abort(reason);
    const error = await failure("aborted", sent);
    expect(error).toMatchObject({ cause: reason, outcome: "unknown" });
    release();
    // Its number was given: the next one comes behind it.
    expect((await a.send("b", "y", { signal: new AbortController().signal })).peer).toBe("b-1");
    await b.received.length(2);
    expect(b.texts).toEqual(["x", "y"]);
  });

  it("keeps no listener on a signal that outlives its sends", async () => {
    const a = await world.started("a-1");
    await world.started("b-1");
    const { signal } = new AbortController();
    let listeners = 0;
    let most = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners += 1;
      most = Math.max(most, listeners);
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners -= 1;
      remove(...args);
    };
    await Promise.all(Array.from({ length: 50 }, (_, n) => a.send("b", `${n}`, { signal })));
    expect(listeners).toBe(0);
    // Node warns of more than ten.
    expect(most).toBe(1);
  });

  it("rejects at once with aborted for a signal that was aborted before", async () => {
    const a = await world.started("a-1");
    await world.started("b-1");
    await failure("aborted", a.send("b", "x", { signal: AbortSignal.abort() }));
    expect(await a.sendAll("b", "x", { signal: AbortSignal.abort() })).toMatchObject([{ error: { code: "aborted" } }]);
  });

  it("leaves the caller its buffer, wherever the message was at that moment", async () => {
    const a = await world.started("a-1", { tuning: { compressThresholdBytes: 1_000_000 } });
    const b = await world.started("b-1");
    // The topic is being looked up.
    const early = Buffer.from("good");
    const stop = new AbortController();
    const lookedUp = a.send("b", early, { signal: stop.signal });
    stop.abort();
    await failure("aborted", lookedUp);
    early.fill("X");
    await b.received.length(1);
    // Sent all the same, to every listener.
    const toAll = Buffer.from("fine");
    await a.sendAll("b", toAll, { signal: AbortSignal.abort() });
    toAll.fill("X");
    await b.received.length(2);
    expect(b.texts).toEqual(["good", "fine"]);
    // It is being compressed, in another thread.
    const long = Buffer.alloc(8 << 20, "abcdefg");
    const hurry = new AbortController();
    const compressed = a.send("b", long, { signal: hurry.signal });
    await new Promise((resolve) => setImmediate(resolve));
    hurry.abort();
    await failure("aborted", compressed);
    const expected = long.toString();
    long.fill(0);
    await b.received.length(3);
    expect(b.texts[2] === expected).toBe(true);
  });
});

it("a Buffer that the caller takes back is copied", () => {
  const buffer = Buffer.alloc(512 * 1024, 1);
  const message = new Outgoing(
    Delivery.AT_LEAST_ONCE,
    { topic: "t", topicId: 1, counts: new SentCounts() },
    buffer,
    undefined,
  );
  message.copyPayload();
  buffer.fill(2);
  expect(message.payload[0]).toBe(1);
});
