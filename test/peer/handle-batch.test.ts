/**
 * `handleBatch`: messages of a topic that are handled together.
 */
import pg from "pg";
import { beforeEach, describe, expect, it } from "vitest";
import { enqueue } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const textOf = ({ payload }: { readonly payload: Uint8Array }) => Buffer.from(payload).toString();
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
  for (const message of messages) await enqueue(client, { topic: "readings", ...message });
  await client.query("COMMIT");
  await client.end();
}

const insertAll = "INSERT INTO ledger (what) SELECT unnest($1::text[])";
const numbered = (count: number) => Array.from({ length: count }, (_, number) => ({ payload: String(number) }));

describe("handleBatch", () => {
  it("hands over what waits together, in one transaction with one mark each", async () => {
    const batches: number[] = [];
    const b = world.peer("b-1");
    await b.handleBatch("readings", { transactional: true, maxMessages: 20 }, async (messages, { client }) => {
      batches.push(messages.length);
      await client.query(insertAll, [messages.map(textOf)]);
    });
    await enqueueAll(numbered(50));
    await b.run();
    await eventually("all are done", async () => (await ledger()).length === 50);
    expect(new Set(await ledger()).size).toBe(50);
    expect(Math.max(...batches)).toBe(20);
    await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
    expect(await ledger()).toHaveLength(50);
  });

  it("finds the message that fails by halves, and all others take effect once", async () => {
    const b = world.peer("b-1");
    await b.handleBatch("readings", { transactional: true, retry }, async (messages, { client }) => {
      await client.query(insertAll, [messages.map(textOf)]);
      if (messages.some((message) => textOf(message) === "13")) throw new Error("unlucky");
    });
    await enqueueAll(numbered(30));
    await b.run();
    expect(await world.deadLetters(1)).toMatchObject([{ error_message: "Error: unlucky", attempts: 2 }]);
    await eventually("all others are done", async () => (await ledger()).length === 29);
    expect((await ledger()).sort()).toEqual(
      numbered(30)
        .map(({ payload }) => payload)
        .filter((payload) => payload !== "13")
        .sort(),
    );
  });

  it("has one message of each key in a batch, in the order of the key", async () => {
    const b = world.peer("b-1");
    let most = 0;
    await b.handleBatch("readings", { transactional: true }, async (messages, { client }) => {
      const keys = messages.map(({ key }) => key);
      expect(new Set(keys).size).toBe(keys.length);
      most = Math.max(most, keys.length);
      await client.query(insertAll, [messages.map(textOf)]);
    });
    await enqueueAll([1, 2, 3].flatMap((nth) => ["a", "b", "c"].map((key) => ({ payload: `${key}${nth}`, key }))));
    await b.run();
    await eventually("all are done", async () => (await ledger()).length === 9);
    const done = await ledger();
    for (const key of ["a", "b", "c"]) {
      expect(done.filter((text) => text.startsWith(key))).toEqual([`${key}1`, `${key}2`, `${key}3`]);
    }
    expect(most).toBe(3);
  });

  it("needs no transaction, and refuses requests", async () => {
    const b = world.peer("b-1");
    const seen: string[] = [];
    await b.handleBatch("readings", { waitMs: 1 }, (messages) => void seen.push(...messages.map(textOf)));
    await b.run();
    const a = await world.started("a-1");
    await Promise.all(numbered(5).map(({ payload }) => a.sendTo("readings", payload, { key: payload })));
    await eventually("all are handled", () => seen.length === 5);
    const refused = await failure("not_supported", () => a.request("readings", "x"));
    expect(refused.message).toContain('handles "readings" in batches');
  });

  it.each([
    [{ maxMessages: 0 }, "maxMessages 0: "],
    [{ waitMs: 0.5 }, "waitMs 0.5: "],
    [{ maxMessage: 5 } as object, "maxMessages"],
  ])("refuses %j, with the value and the rule", async (options, words) => {
    const b = world.peer("b-1");
    const error = await failure("invalid_argument", () => b.handleBatch("readings", options, () => undefined));
    expect(error.message).toContain(words);
  });
});
