/**
 * `handleBatch`: messages of a topic that are handled together.
 */
import pg from "pg";
import { beforeEach, describe, expect, it } from "vitest";
import { type Batch, enqueue, type Message, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const textOf = ({ payload }: { readonly payload: Uint8Array }) => Buffer.from(payload).toString();
const textsOf = (messages: readonly Message[]) => messages.map(textOf).sort().join(" ");
/** Batches of so many messages, no fewer. */
const full = (maxMessages: number) => ({ maxMessages, waitMs: 60_000 });
const retry = { attempts: 2, delayMs: 1 };

beforeEach(() => world.query("CREATE TABLE ledger (id bigserial, what text)"));

async function ledger(): Promise<string[]> {
  return (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY id")).map(({ what }) => what);
}

/** Enqueues messages of the topic "readings" in one transaction. */
async function enqueueAll(messages: readonly { readonly payload: string; readonly key?: string }[]): Promise<void> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await client.query("BEGIN");
  for (const { payload, ...options } of messages) await enqueue(client, "readings", payload, options);
  await client.query("COMMIT");
  await client.end();
}

const insertAll = "INSERT INTO ledger (what) SELECT unnest($1::text[])";
const numbered = (count: number) => Array.from({ length: count }, (_, number) => ({ payload: String(number) }));

describe("handleBatch", () => {
  it("hands over up to maxMessages of what waits, each batch in one transaction, whatever the concurrency", async () => {
    const batches: number[] = [];
    const b = world.worker("b-1", { concurrency: 1 });
    await b.handleBatch("readings", { transactional: true, maxMessages: 20 }, async (messages, { client }) => {
      batches.push(messages.length);
      await client.query(insertAll, [messages.map(textOf)]);
    });
    await enqueueAll(numbered(50));
    await b.start();
    await eventually("all are done", async () => (await ledger()).length === 50);
    expect(new Set(await ledger()).size).toBe(50);
    expect(Math.max(...batches)).toBe(20);
    await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
    expect(await ledger()).toHaveLength(50);
  });

  it("finds the message that fails by halves, and all others take effect once", async () => {
    const b = world.worker("b-1");
    await b.handleBatch("readings", { transactional: true, retry }, async (messages, { client }) => {
      await client.query(insertAll, [messages.map(textOf)]);
      if (messages.some((message) => textOf(message) === "13")) throw new Error("unlucky");
    });
    await enqueueAll(numbered(30));
    await b.start();
    expect(await world.deadLetters(1)).toMatchObject([{ error_message: "Error: unlucky", attempts: 2 }]);
    await eventually("all others are done", async () => (await ledger()).length === 29);
    expect((await ledger()).sort()).toEqual(
      numbered(30)
        .map(({ payload }) => payload)
        .filter((payload) => payload !== "13")
        .sort(),
    );
  });

  it("has one message of each key in a batch", async () => {
    const b = world.worker("b-1");
    const batches = new Log<string>();
    await b.handleBatch("readings", full(3), (messages) => batches.push(textsOf(messages)));
    await enqueueAll([1, 2, 3].flatMap((nth) => ["a", "b", "c"].map((key) => ({ payload: `${key}${nth}`, key }))));
    await b.start();
    await batches.length(3);
    expect(batches.all).toEqual(["a1 b1 c1", "a2 b2 c2", "a3 b3 c3"]);
  });

  it.each([true, false])(
    "keeps the order of a key that fails, with others beside it: transactional %s",
    async (transactional) => {
      const b = world.worker("b-1");
      const done: string[] = [];
      await b.handleBatch("readings", { transactional, retry: { attempts: 5, delayMs: 1 } }, (messages) => {
        if (messages.some(({ key, attempt }) => key === "a" && attempt < 3)) throw new Error("a is not ready");
        done.push(...messages.map(textOf));
      });
      await enqueueAll([1, 2, 3].flatMap((nth) => ["a", "b", "c"].map((key) => ({ payload: `${key}${nth}`, key }))));
      await b.start();
      await eventually("all are done", () => done.length >= 9);
      for (const key of ["a", "b", "c"]) {
        expect(done.filter((text) => text.startsWith(key))).toEqual([`${key}1`, `${key}2`, `${key}3`]);
      }
    },
  );

  it("needs no transaction, and refuses requests", async () => {
    const b = world.peer("b-1");
    const seen: string[] = [];
    await b.handleBatch("readings", { waitMs: 1 }, (messages) => void seen.push(...messages.map(textOf)));
    await b.start();
    const a = await world.started("a-1");
    await Promise.all(numbered(5).map(({ payload }) => a.send("readings", payload, { key: payload })));
    await eventually("all are handled", () => seen.length === 5);
    const refused = await failure("not_supported", () => a.request("readings", "x"));
    expect(refused.message).toContain('handles messages of "readings" but no requests');
    expect(refused.outcome).toBeUndefined();
  });

  it("rolls a transaction back in which a message is named as failed, and handles the others again", async () => {
    const b = world.worker("b-1");
    const batches = new Log<string>();
    const options = { ...full(4), transactional: true, retry: { attempts: 1 } } as const;
    await b.handleBatch("readings", options, async (messages, { client, fail }) => {
      batches.push(textsOf(messages));
      await client.query(insertAll, [messages.map(textOf)]);
      for (const message of messages) if (textOf(message) === "2") fail(message, new Error("unlucky"));
    });
    await enqueueAll(numbered(4));
    await b.record();
    expect(await world.deadLetters(1)).toMatchObject([{ error_message: "Error: unlucky", attempts: 1 }]);
    await eventually("all others are done", async () => (await ledger()).length === 3);
    expect((await ledger()).sort()).toEqual(["0", "1", "3"]);
    expect(batches.all).toEqual(["0 1 2 3", "0 1 3"]);
    expect(b.statuses.all.filter(({ kind }) => kind === "attempt_failed")).toMatchObject([
      { topic: "readings", attempt: 1, code: "handler_failed", message: "Error: unlucky", error: new Error("unlucky") },
    ]);
  });

  it("tries only the named message again without a transaction, and never one that is rejected", async () => {
    const b = world.worker("b-1");
    const batches = new Log<string>();
    await b.handleBatch("readings", { ...full(4), retry }, (messages, batch) => {
      batches.push(textsOf(messages));
      expect(batch.messages).toBe(messages);
      for (const message of messages) {
        if (textOf(message) === "1") batch.fail(message, new Error("unlucky"));
        if (textOf(message) === "2") batch.fail(message, new Reject("no such gauge"));
      }
    });
    await enqueueAll(numbered(4));
    await b.start();
    await batches.length(1);
    await enqueueAll(["4", "5", "6"].map((payload) => ({ payload })));
    const letters = await world.deadLetters(2);
    expect(letters.map(({ error_code, attempts }) => [error_code, attempts])).toEqual([
      ["rejected", 1],
      ["handler_failed", 2],
    ]);
    expect(batches.all).toEqual(["0 1 2 3", "1 4 5 6"]);
  });

  it("never tries a message again for which the handler throws a Reject", async () => {
    const b = world.worker("b-1");
    const batches = new Log<string>();
    await b.handleBatch("readings", { ...full(2), retry }, (messages) => {
      batches.push(textsOf(messages));
      if (messages.some((message) => textOf(message) === "0")) throw new Reject("no such gauge");
    });
    await enqueueAll(numbered(2));
    await b.start();
    expect(await world.deadLetters(1)).toMatchObject([{ error_code: "rejected", attempts: 1 }]);
    await batches.length(3);
    expect(batches.all[0]).toBe("0 1");
    expect(batches.all.slice(1).sort()).toEqual(["0", "1"]);
  });

  it("refuses to name a message of another batch, or when the handler has ended", async () => {
    const b = world.peer("b-1");
    const seen = new Log<Batch>();
    await b.handleBatch("readings", {}, (_, batch) => seen.push(batch));
    await b.start();
    const a = await world.started("a-1");
    for (const text of ["x", "y"]) await a.send("readings", text);
    const [first, second] = seen.all as [Batch, Batch];
    const foreign = await failure("invalid_argument", () => second.fail(first.messages[0]!, new Error("no")));
    expect(foreign.message).toContain("give one of batch.messages");
    const late = await failure("invalid_argument", () => first.fail(first.messages[0]!, new Error("no")));
    expect(late.message).toContain("the handler of the batch has ended");
  });

  it("aborts the signal of a batch whose time is up, and halves it", async () => {
    const b = world.worker("b-1");
    const batches = new Log<string>();
    const reasons: string[] = [];
    const options = { ...full(2), timeoutMs: 20, transactional: true, retry: { attempts: 1 } } as const;
    await b.handleBatch("readings", options, async (messages, { signal }) => {
      batches.push(textsOf(messages));
      await new Promise((resolve) => messages[0]!.signal.addEventListener("abort", resolve));
      reasons.push(String(signal.reason));
    });
    await enqueueAll(numbered(2));
    await b.start();
    const letters = await world.deadLetters(2);
    expect(letters.map(({ error_code, attempts }) => [error_code, attempts])).toEqual([
      ["handler_failed", 1],
      ["handler_failed", 1],
    ]);
    expect(reasons[0]).toContain("did not complete within 20 ms");
    expect(batches.all[0]).toBe("0 1");
    expect(batches.all.slice(1).sort()).toEqual(["0", "1"]);
  });

  it.each([true, false])(
    "begins nothing more of a batch for which a stop does not wait any longer: transactional %s",
    async (transactional) => {
      const b = world.worker("b-1");
      const batches = new Log<string>();
      await b.handleBatch("readings", { ...full(4), transactional }, async (messages, { signal }) => {
        batches.push(textsOf(messages));
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        signal.throwIfAborted();
      });
      await enqueueAll(numbered(4));
      await b.start();
      await batches.length(1);
      await b.stop({ timeoutMs: 50 });
      const again = new Log<string>();
      await b.handleBatch("readings", {}, (messages) => {
        for (const message of messages) again.push(textOf(message));
      });
      await b.start();
      await again.length(4);
      expect(again.all.sort()).toEqual(["0", "1", "2", "3"]);
      expect(batches.all).toEqual(["0 1 2 3"]);
      expect(b.statuses.all.filter(({ kind }) => kind === "dead_letter")).toEqual([]);
    },
  );

  it("does not let a stop wait for messages that may still come", async () => {
    const b = world.peer("b-1");
    const batches: string[] = [];
    const pings = new Log<string>();
    await b.handleBatch("readings", full(2), (messages) => void batches.push(textsOf(messages)));
    await b.handle("pings", (message) => pings.push(textOf(message)));
    await b.start();
    const a = await world.started("a-1");
    // In the order of the sends: the reading is part of a batch when the ping is handled.
    const sent = [a.send("readings", "0", { key: "reading" }), a.send("pings", "1", { key: "ping" })];
    await pings.length(1);
    expect(batches).toEqual([]);
    await b.stop({ timeoutMs: 50_000 });
    expect(batches).toEqual(["0"]);
    await Promise.all(sent);
  });

  it.each([
    [{ maxMessages: 0 }, "maxMessages 0: "],
    [{ maxMessages: 10_001 }, "maxMessages 10001: must be an integer, 1 to 10000. Use a value of 1 to 10000."],
    [{ maxBytes: 0 }, "maxBytes 0: "],
    [{ waitMs: 0.5 }, "waitMs 0.5: "],
    [{ waitMs: 60_001 }, "waitMs 60001: "],
    [{ maxMessage: 5 } as object, "maxMessages"],
  ])("refuses %j, with the value and the rule", async (options, words) => {
    const b = world.peer("b-1");
    const error = await failure("invalid_argument", () => b.handleBatch("readings", options, () => undefined));
    expect(error.message).toContain(words);
  });
});
