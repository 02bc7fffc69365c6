import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStore, type Store } from "../../src/store/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

describe("a dead letter that is retried", () => {
  let w: PeerWorld;
  let store: Store;
  let a: TestPeer;
  let b: TestPeer;
  let fails: (text: string) => boolean = () => true;

  beforeAll(async () => {
    w = await peerWorld();
    store = await openStore({ databaseUrl: w.url });
    a = await w.started("a-1");
    b = await w.started("b-1", { maxAttempts: 2, retryDelayMs: 1 }, async (message) => {
      const text = Buffer.from(message.payload).toString();
      if (fails(text)) throw new Error(`cannot take ${text}`);
      await message.reply(`re ${text}`);
    });
  });
  afterAll(async () => {
    await store.close();
    await w[Symbol.asyncDispose]();
  });

  it("is the same message to its handler, and the reply reaches its sender", async () => {
    fails = () => true;
    const receipt = await a.sendTo("b", "one", { headers: { trace: "7" } });
    expect(receipt.outcome).toMatch(/delivered|stored/);
    await b.saw("dead_letter");
    await eventually("it is dead", async () => (await store.deadLetters.list()).length === 1);
    const [letter] = await store.deadLetters.list();
    expect(letter).toMatchObject({
      source: "a-1:a:b-1",
      topic: "b",
      attempts: 2,
      errorMessage: "Error: cannot take one",
    });
    const before = b.received.all.at(-1);
    fails = () => false;
    await store.deadLetters.retry({ ids: [letter?.id as number] });
    await a.received.find(({ text }) => text === "re one");
    expect(b.received.all.at(-1)).toEqual({ ...before, attempt: 1 });
    expect(before).toMatchObject({ to: "b", from: "a", sender: "a-1", headers: [["trace", "7"]] });
    expect(a.received.all.at(-1)).toMatchObject({ sender: "b-1", from: "b" });
    await eventually("nothing is left of it", async () => (await w.storedMessages()) === 0);
    expect(await store.deadLetters.list()).toEqual([]);
  });

  it("is a dead letter again if it fails again, and may be retried as often as one likes", async () => {
    const from = b.received.all.length;
    fails = (text) => text === "two";
    await a.sendTo("b", "two");
    for (let round = 0; round < 3; round++) {
      await eventually("it is dead", async () => (await store.deadLetters.list()).length === 1);
      const [letter] = await store.deadLetters.list();
      expect(letter).toMatchObject({ source: "a-1:a:b-1", listener: "b-1", retried: round > 0, attempts: 2 });
      if (round === 2) fails = () => false;
      await store.deadLetters.retry({ all: true });
    }
    await a.received.find(({ text }) => text === "re two");
    expect(b.received.all.slice(from).map(({ attempt }) => attempt)).toEqual([1, 2, 1, 2, 1, 2, 1]);
  });

  it("comes in the order in which it died, beside what its sender sends meanwhile", async () => {
    fails = (text) => text.startsWith("dead");
    for (let n = 1; n <= 30; n++) await a.sendTo("b", `dead ${n}`);
    await eventually("they are dead", async () => (await store.deadLetters.list()).length === 30);
    fails = () => false;
    const from = b.received.all.length;
    const sending = Promise.all(Array.from({ length: 30 }, (_, n) => a.sendTo("b", `new ${n + 1}`)));
    await store.deadLetters.retry({ source: "a-1:a:b-1" });
    await sending;
    await b.received.length(from + 60);
    const texts = b.texts.slice(from);
    for (const kind of ["dead", "new"]) {
      const wanted = Array.from({ length: 30 }, (_, n) => `${kind} ${n + 1}`);
      expect(texts.filter((text) => text.startsWith(kind))).toEqual(wanted);
    }
  });

  it("waits for its listener while that is away", async () => {
    fails = () => true;
    await a.sendTo("b", "late");
    await eventually("it is dead", async () => (await store.deadLetters.list()).length === 1);
    await b.stop();
    fails = () => false;
    const from = b.received.all.length;
    expect((await store.deadLetters.retry({ all: true })).retried).toMatchObject([{ listener: "b-1" }]);
    // Not what its sender waits for, and not its to clear.
    expect(await a.pendingCount()).toBe(0);
    await a.stop();
    await a.clearStoredMessages();
    expect(await w.storedMessages()).toBe(1);
    await a.record();
    await b.run();
    await b.stop();
    await b.record(() => undefined);
    await b.received.length(from + 1);
    expect(b.texts.slice(from)).toEqual(["late"]);
  });

  it("cannot have its channel made or taken by a peer of a reserved name", async () => {
    for (const name of ["__#retry#1", "__#"]) {
      const error = await failure("invalid_argument", () => w.peer(name, { topic: "x" }));
      expect(error.message).toBe(`name "${name}" begins with __#, which is reserved; choose another`);
    }
    await expect(store.takeName("__#retry#1", { waitMs: 0 })).rejects.toMatchObject({ code: "store_failed" });
    const insert = "INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ('b', '127.0.0.1:1', '__#retry#1')";
    await expect(w.query(insert)).rejects.toMatchObject({ code: "23514" });
  });
});
