/**
 * A transaction pooler before Postgres is noticed at the start by all that need a session.
 */
import { describe, expect, it } from "vitest";
import { HawserError } from "../../src/errors/index.js";
import { install } from "../../src/installation/index.js";
import { Peer, type PeerOptions } from "../../src/peer/index.js";
import { DatabaseAddress, isTransactionPooled, openSession } from "../../src/postgres/index.js";
import { serve as startServer } from "../../src/serve/index.js";
import { migrations } from "../../src/store/index.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startPooler } from "../support/pooler.js";

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
    await using database = await testDatabase({ migrated: false });
    const address = DatabaseAddress.of(database.url);
    const session = await openSession(address);
    // Opening one now would fail.
    const nowhere = DatabaseAddress.of("postgres://nobody@127.0.0.1:1/none");
    expect(await isTransactionPooled(nowhere, session)).toBe(false);
    await session.client.end();
  });

  it("is true through a transaction pooler, at each try, also where others use its sessions", async () => {
    await using database = await testDatabase({ migrated: false });
    await using pooler = await startPooler(database.url, "transaction");
    for (let time = 1; time <= 3; time++) expect(await isPooled(pooler.url)).toBe(true);
    expect(await Promise.all(Array.from({ length: 4 }, () => isPooled(pooler.url)))).toEqual(Array(4).fill(true));
  });

  it("is false through a pool in session mode", async () => {
    await using database = await testDatabase({ migrated: false });
    await using pooler = await startPooler(database.url, "session");
    expect(await isPooled(pooler.url)).toBe(false);
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
    await using database = await testDatabase();
    await using pooler = await startPooler(database.url, "transaction");
    const starting = startServer({ databaseUrl: pooler.url, listen: "127.0.0.1:0" });
    await expect(starting).rejects.toMatchObject(refusal(pooler.url));
  });

  it("install changes nothing", async () => {
    await using database = await testDatabase({ migrated: false });
    await using pooler = await startPooler(database.url, "transaction");
    await expect(install({ databaseUrl: pooler.url })).rejects.toMatchObject(refusal(pooler.url));
    expect((await install({ databaseUrl: database.url })).migrations).toHaveLength(migrations.length);
  });
});

describe("a Peer whose databaseUrl leads through a transaction pooler", () => {
  const peer = (name: string, urls: Pick<PeerOptions, "databaseUrl" | "sessionUrl">) =>
    new Peer({ name, topic: name, listen: "127.0.0.1:0", ...urls });

  it.each([true, false])(
    "is refused without sessionUrl, with that as the remedy (schema there: %s)",
    async (migrated) => {
      await using database = await testDatabase({ migrated });
      await using pooler = await startPooler(database.url, "transaction");
      await using one = peer("one", { databaseUrl: pooler.url });
      await using other = peer("other", { databaseUrl: pooler.url });
      for (const refused of await Promise.allSettled([one.start(), other.start()])) {
        expect(refused).toMatchObject({
          reason: { code: "transaction_pooler", message: expect.stringContaining("itself as sessionUrl") },
        });
      }
    },
  );

  it("is refused where sessionUrl leads through it, too", async () => {
    await using database = await testDatabase();
    await using pooler = await startPooler(database.url, "transaction");
    await using one = peer("one", { databaseUrl: database.url, sessionUrl: pooler.url });
    await expect(one.start()).rejects.toMatchObject({ code: "transaction_pooler" });
  });

  it("runs with the server itself as sessionUrl", async () => {
    await using database = await testDatabase();
    await using pooler = await startPooler(database.url, "transaction");
    await using one = peer("one", { databaseUrl: pooler.url, sessionUrl: database.url });
    await using other = peer("other", { databaseUrl: pooler.url, sessionUrl: database.url });
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
    await using database = await testDatabase();
    await using pooler = await startPooler(database.url, "session");
    await using one = peer("one", { databaseUrl: pooler.url });
    await one.start();
    expect(one.localAddress).toMatch(/^127\.0\.0\.1:/);
  });
});

it("serve runs through a pool in session mode as it does without one", async () => {
  await using database = await testDatabase();
  await using pooler = await startPooler(database.url, "session");
  await using serve = await startServer({ databaseUrl: pooler.url, listen: "127.0.0.1:0" });
  expect(serve.gatewayUrl).toMatch(/^postgres:/);
});
