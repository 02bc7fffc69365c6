/**
 * A transaction pooler before Postgres is noticed at the start by all that need a session.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { DatabaseAddress, isTransactionPooled, openSession } from "../../src/foundation/postgres/index.js";
import { Peer, type PeerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type Pooler, startPooler } from "../support/pooler.js";

let database: TestDatabase;
/** Poolers before the database. */
let transactions: Pooler;
let sessions: Pooler;
beforeAll(async () => {
  database = await testDatabase();
  [transactions, sessions] = await Promise.all([
    startPooler(database.url, "transaction"),
    startPooler(database.url, "session"),
  ]);
});
afterAll(async () => {
  await transactions?.[Symbol.asyncDispose]();
  await sessions?.[Symbol.asyncDispose]();
  await database?.drop();
});

async function isPooled(url: string): Promise<boolean> {
  const address = DatabaseAddress.of(url);
  const session = await openSession(address);
  try {
    return await isTransactionPooled(address, session);
  } finally {
    session.client.connection.stream.destroy();
  }
}

describe("isTransactionPooled", () => {
  it("is false for Postgres itself, without a further session", async () => {
    const session = await openSession(DatabaseAddress.of(database.url));
    // Opening one now would fail.
    const nowhere = DatabaseAddress.of("postgres://nobody@127.0.0.1:1/none");
    expect(await isTransactionPooled(nowhere, session)).toBe(false);
    await session.client.end();
  });

  it("is true through a transaction pooler, at each try, also where others use its sessions", async () => {
    for (let time = 1; time <= 3; time++) expect(await isPooled(transactions.url)).toBe(true);
    const tries = Array.from({ length: 4 }, () => isPooled(transactions.url));
    expect(await Promise.all(tries)).toEqual(Array(4).fill(true));
  });

  it("is false through a pool in session mode", async () => {
    expect(await isPooled(sessions.url)).toBe(false);
  });
});

describe("through a transaction pooler", () => {
  const refusal = (url: string) => ({
    code: "transaction_pooler",
    message: expect.stringMatching(
      new RegExp(
        `at 127.0.0.1:${new URL(url).port} there is a transaction pooler .* Give the address of Postgres itself`,
      ),
    ),
  });

  it("serve does not start, and says what does not work and what to do", async () => {
    const starting = startServer({ databaseUrl: transactions.url, listen: "127.0.0.1:0" });
    await expect(starting).rejects.toMatchObject(refusal(transactions.url));
  });

  it("install changes nothing", async () => {
    await using empty = await testDatabase({ migrated: false });
    await using pooler = await startPooler(empty.url, "transaction");
    await expect(install({ databaseUrl: pooler.url })).rejects.toMatchObject(refusal(pooler.url));
    expect(await rowsOf(empty.url, "SELECT FROM pg_namespace WHERE nspname ~ '^hawser'")).toEqual([]);
  });
});

describe("a Peer whose databaseUrl leads through a transaction pooler", () => {
  const peer = (name: string, urls: Pick<PeerOptions, "databaseUrl" | "sessionUrl">) =>
    new Peer({ name, topic: name, listen: "127.0.0.1:0", ...urls });

  async function expectRefused(databaseUrl: string): Promise<void> {
    await using one = peer("one", { databaseUrl });
    await using other = peer("other", { databaseUrl });
    for (const refused of await Promise.allSettled([one.start(), other.start()])) {
      expect(refused).toMatchObject({
        reason: { code: "transaction_pooler", message: expect.stringContaining("itself as sessionUrl") },
      });
    }
  }

  it("is refused without sessionUrl, with that as the remedy", () => expectRefused(transactions.url));

  it("is refused without sessionUrl where there is no schema, too", async () => {
    await using empty = await testDatabase({ migrated: false });
    await using pooler = await startPooler(empty.url, "transaction");
    await expectRefused(pooler.url);
  });

  it("is refused where sessionUrl leads through it, too", async () => {
    await using one = peer("one", { databaseUrl: database.url, sessionUrl: transactions.url });
    await expect(one.start()).rejects.toMatchObject({ code: "transaction_pooler" });
  });

  it("runs with the server itself as sessionUrl", async () => {
    await using one = peer("one", { databaseUrl: transactions.url, sessionUrl: database.url });
    await using other = peer("other", { databaseUrl: transactions.url, sessionUrl: database.url });
    const received = new Promise<string>((resolve) => {
      void other.handle(other.topic, (message) => resolve(message.text()));
    });
    await other.start();
    await one.start();
    await eventually("the other one is known", async () => {
      try {
        await one.send("other", "ahoy");
        return true;
      } catch (error) {
        if (error instanceof HawserError && error.code === "no_listener") return false;
        throw error;
      }
    });
    expect(await received).toBe("ahoy");
  });

  it("through a pool in session mode runs as it does without one", async () => {
    await using one = peer("one", { databaseUrl: sessions.url });
    await one.start();
    expect(one.localAddress).toMatch(/^127\.0\.0\.1:/);
  });
});

it("serve runs through a pool in session mode as it does without one", async () => {
  await using serve = await startServer({ databaseUrl: sessions.url, listen: "127.0.0.1:0" });
  expect(serve.gatewayUrl).toMatch(/^postgres:/);
});
