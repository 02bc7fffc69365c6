/**
 * Commands for a database behind a transaction pooler: the session of `listen` and `send` goes around the pooler.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { type Pooler, startPooler } from "../support/pooler.js";
import { slowIt } from "../support/slow-it.js";
import { hawser, jsonLines, startListening } from "./support/hawser.js";

let database: TestDatabase;
let pooler: Pooler;
beforeAll(async () => {
  database = await testDatabase();
  pooler = await startPooler(database.url, "transaction");
});
afterAll(async () => {
  await pooler?.[Symbol.asyncDispose]();
  await database?.[Symbol.asyncDispose]();
});

const commands = [
  ["listen", "refused"],
  ["send", "refused", "rope"],
];

describe("behind a transaction pooler", () => {
  it("other commands work again and again, and leave no settings to the pooler's other clients", async () => {
    const commands = [
      ["topics", "limit", "t", "--rate", "10/s"],
      ["topics"],
      ["topics", "pause", "t"],
      ["pending"],
      ["dead", "list"],
    ];
    for (const args of commands)
      for (const _ of [1, 2]) expect(await hawser(args, { databaseUrl: pooler.url })).toMatchObject({ status: 0 });
    const sql =
      "SELECT current_setting('search_path') AS path, (SELECT count(*)::int FROM pg_prepared_statements) AS prepared";
    expect(await rowsOf(pooler.url, sql)).toEqual([{ path: '"$user", public', prepared: 0 }]);
  });

  it.each(commands)("`hawser %s` is refused, with --session-url as the remedy", async (...args) => {
    const { status, stdout, stderr } = await hawser(args, { databaseUrl: pooler.url });
    expect({ status, stdout }).toEqual({ status: 78, stdout: "" });
    expect(stderr).toContain("[transaction_pooler]");
    expect(stderr).toContain("--session-url or HAWSER_SESSION_URL");
  });

  it.each(commands)("`hawser %s` takes no empty --session-url", async (...args) => {
    const { status, stderr } = await hawser([...args, "--session-url", ""], { databaseUrl: pooler.url });
    expect(status).toBe(64);
    expect(stderr).toContain("--session-url is empty");
  });

  slowIt("they run with --session-url, or with HAWSER_SESSION_URL", async () => {
    const listening = await startListening(["orders", "--json", "--count", "1"], {
      databaseUrl: pooler.url,
      env: { HAWSER_SESSION_URL: database.url },
    });
    const args = ["send", "orders", "rope", "--json", "--session-url", database.url];
    const sent = await hawser(args, { databaseUrl: pooler.url });
    expect(sent).toMatchObject({ status: 0, stderr: "" });
    const { status, stdout } = await listening.ended;
    expect(status).toBe(0);
    expect(jsonLines(stdout)).toMatchObject([{ payload: "rope" }]);
  });

  it("HAWSER_SESSION_URL is not for the database of --database-url, which may be another one", async () => {
    const env = { HAWSER_SESSION_URL: "postgres://nobody@127.0.0.1:1/none" };
    const { status, stderr } = await hawser(["send", "nobody", "rope", "--database-url", database.url], { env });
    expect({ status, stderr }).toMatchObject({ status: 69, stderr: expect.stringContaining("[no_listener]") });
  });
});
