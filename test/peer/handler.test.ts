/**
 * Handlers: one message of a channel after another, retries, dead letters, and what their waiting does to senders.
 */
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const quick = { defaults: { retry: { attempts: 3, delayMs: 5 } } };

/** The messages of a peer with the attempt at which each came. */
const attempts = (peer: TestPeer): string[] => peer.received.all.map(({ text, attempt }) => `${text} ${attempt}`);

describe("a handler that throws", () => {
  it("is tried again until it returns; the message comes once more each time, and nothing overtakes it", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", quick, (message) => {
      if (message.attempt < 3 && message.payload[0] === 0x78) throw new Error("not yet");
    });
    const receipts = await Promise.all([a.send("b", "x"), a.send("b", "y")]);
    expect(receipts.every(({ outcome }) => outcome === "delivered" || outcome === "stored")).toBe(true);
    await b.received.length(4);
    expect(attempts(b)).toEqual(["x 1", "x 2", "x 3", "y 1"]);
    expect(await world.deadLetters(0)).toEqual([]);
  });

  it("retry.attempts times makes a dead letter, and the channel goes on", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", quick, async (message) => {
      if (message.payload[0] === 0x78) throw new TypeError("never");
    });
    await a.send("b", "x", { headers: { k: "v" } });
    await a.send("b", "y");
    await b.received.find(({ text }) => text === "y");
    expect(attempts(b)).toEqual(["x 1", "x 2", "x 3", "y 1"]);
    const [code, message] = ["handler_failed", "TypeError: never"];
    const kind = "dead_letter";
    const id = expect.stringMatching(/^a-1:a:b-1\/\d+\/1$/);
    expect(await b.saw(kind)).toEqual({ kind, topic: "b", peer: "a-1", id, stored: true, code, message });
    expect(await world.deadLetters(1)).toMatchObject([
      {
        origin: "queue",
        source: "@b-1",
        topic: "b",
        payload: Buffer.from("x"),
        headers: [
          ["message-origin", "a-1:a:"],
          ["k", "v"],
          ["message-id", id],
        ],
        message_id: id,
        error_code: code,
        error_message: message,
        attempts: 3,
      },
    ]);
  });

  it.each([
    ["euros", "€", 2_726],
    ["emoji", "🚢", 2_044],
    ["NULs, which Postgres cannot hold", "\0", undefined],
  ])("with a long message has 8 KiB of it in the dead letter and the status: %s", async (_, character, whole) => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, ({ delivery }) => {
      if (delivery === "at-least-once") throw new Error(`no, ${character.repeat(1_000_000)}`);
    });
    await a.send("b", "x");
    const [letter] = await world.deadLetters(1);
    const stored = letter?.["error_message"] as string;
    const { message: told } = await b.saw("dead_letter");
    for (const text of [stored, told]) {
      expect(text).toMatch(/^Error: no, .*\.\.\.$/su);
      if (whole !== undefined) expect(text).not.toContain("\ufffd");
      expect(Buffer.byteLength(text)).toBeGreaterThan(8_192 - 4);
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(8_192);
    }
    if (whole !== undefined) expect([...stored].filter((one) => one === character)).toHaveLength(whole);
    await b.received.find(({ text }) => text === "x");
  });

  it.each([
    ["out of stock", "out of stock"],
    [{ code: 17 }, "a value that is no error: { code: 17 }"],
    [undefined, "a value that is no error: undefined"],
  ])("that is no error but %j is readable in the dead letter and the statuses", async (thrown, message) => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, () => {
      throw thrown;
    });
    await a.send("b", "x");
    expect(await b.saw("attempt_failed")).toMatchObject({ code: "handler_failed", message, error: thrown });
    expect(await b.saw("dead_letter")).toMatchObject({ code: "handler_failed", message });
    expect(await world.deadLetters(1)).toMatchObject([{ error_code: "handler_failed", error_message: message }]);
  });

  it("on an at-most-once message is not tried again, and leaves no row", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", quick, (message) => {
      if (message.delivery === "at-most-once") throw new Error("no");
    });
    await a.send("b", "x", { delivery: "at-most-once" });
    expect(await b.saw("dead_letter")).toMatchObject({ stored: false, code: "handler_failed" });
    await a.send("b", "y");
    await b.received.length(2);
    expect(b.texts).toEqual(["x", "y"]);
    expect(await world.deadLetters(0)).toEqual([]);
  });

  it("does not hold up other channels", async () => {
    const [bad, good] = await world.running("bad-1", "good-1");
    const b = await world.started("b-1", { defaults: { retry: { attempts: 1_000, delayMs: 60_000 } } }, (message) => {
      if (message.sender === "bad-1") throw new Error("no");
    });
    const stuck = bad.send("b", "x");
    await b.received.length(1);
    for (let n = 0; n < 20; n++) expect((await good.send("b", "y")).outcome).toBe("delivered");
    await b.stop();
    expect((await stuck).outcome).toBe("stored");
  });
});

describe("a handler that takes long", () => {
  it("is bounded by timeoutMs", async () => {
    const a = await world.started("a-1");
    const never = gate();
    const b = await world.started("b-1", { defaults: { ...quick.defaults, timeoutMs: 20 } }, (message) =>
      message.payload[0] === 0x78 ? never.opened : undefined,
    );
    await a.send("b", "x");
    await a.send("b", "y");
    await b.received.find(({ text }) => text === "y");
    expect((await b.saw("dead_letter")).message).toMatch(/within 20 ms/);
    expect(b.received.all).toHaveLength(4);
  });

  it("keeps the order of its channel, and runs beside others up to concurrency", async () => {
    const senders = await Promise.all([1, 2, 3].map((n) => world.started(`a-${n}`, { tuning: { ackTimeoutMs: 100 } })));
    const held = gate();
    let running = 0;
    let most = 0;
    const ended = new Log<string>();
    const b = await world.started("b-1", { concurrency: 2 }, async (message) => {
      running += 1;
      most = Math.max(most, running);
      if (message.payload[0] === 0x30) await held.opened;
      running -= 1;
      ended.push(String(message.sender));
    });
    const sent = senders.flatMap((sender) => [0, 1, 2].map((n) => sender.send("b", `${n}`)));
    await b.received.length(2);
    // Two wait; the third channel has no free handler, and is stored.
    await Promise.all(sent.slice(6));
    expect(b.received.all).toHaveLength(2);
    held.open();
    await ended.length(9);
    expect(most).toBe(2);
    for (const { name } of senders) {
      const texts = b.received.all.filter(({ sender }) => sender === name).map(({ text }) => text);
      expect(texts).toEqual(["0", "1", "2"]);
    }
  });

  it("makes its senders store instead of waiting", async () => {
    const a = await world.started("a-1", { tuning: { ackTimeoutMs: 60_000 } });
    const held = gate();
    const b = await world.started("b-1", { tuning: { busyAfterMs: 10 } }, (message) =>
      message.payload[0] === 0x78 ? held.opened : undefined,
    );
    await a.send("b", "begin");
    const [first, second] = [a.send("b", "x"), a.send("b", "y")];
    // Long before the ack timeout: the listener says that it is busy.
    expect((await second).outcome).toBe("stored");
    expect((await first).outcome).toBe("stored");
    held.open();
    await b.received.length(3);
    expect(b.texts).toEqual(["begin", "x", "y"]);
  });

  it("leaves an awaited message stored after ackTimeoutMs, once in the end", async () => {
    const a = await world.started("a-1", { tuning: { ackTimeoutMs: 50 } });
    const held = gate();
    const b = await world.started("b-1", {}, () => held.opened);
    expect((await a.send("b", "x")).outcome).toBe("stored");
    held.open();
    await a.send("b", "y");
    await b.received.length(2);
    expect(b.texts).toEqual(["x", "y"]);
    await eventually("the copy is gone", async () => (await world.storedMessages()) === 0);
  });
});

describe("handlers that await sends to each other", () => {
  it("do not wait for ever: 30 rounds", async () => {
    const ended = new Log<string>();
    // Not one of them waits for an ack timeout.
    const tuning = { ackTimeoutMs: 3_600_000, busyAfterMs: 10 };
    const answer: Handler = async (message) => {
      if (message.payload[0] !== 0x6f) return;
      expect((await message.reply("inner")).outcome).toMatch(/delivered|stored/);
      ended.push(message.topic);
    };
    const a = await world.started("a-1", { tuning }, answer);
    const b = await world.started("b-1", { tuning }, answer);
    for (let round = 1; round <= 30; round++) {
      // Each handler of an "outer" waits for an "inner" that waits behind the other's "outer".
      await Promise.all([a.send("b", "outer"), b.send("a", "outer")]);
      await ended.length(round * 2);
    }
    await Promise.all([a.received.length(60), b.received.length(60)]);
    for (const peer of [a, b]) {
      expect(peer.texts.filter((text) => text === "outer")).toHaveLength(30);
      expect(peer.texts.filter((text) => text === "inner")).toHaveLength(30);
    }
  });
});

describe("a peer without a handler", () => {
  it("sends, and what comes for it waits until it runs with one", async () => {
    const a = world.peer("a-1");
    await a.start();
    const b = await world.started("b-1", { tuning: { ackTimeoutMs: 100 } }, async (message) => {
      expect(await message.reply("answer")).toEqual({ outcome: "stored", peer: "a-1" });
    });
    expect((await a.send("b", "x")).outcome).toMatch(/delivered|stored/);
    await b.received.length(1);
    await eventually("the answer is stored", async () => (await b.pending()).count === 1);
    await a.stop();
    await a.record();
    await a.received.length(1);
    expect(a.texts).toEqual(["answer"]);
  });
});
