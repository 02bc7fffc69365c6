import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { isServerError, openSession } from "../../src/foundation/postgres/index.js";
import { UserPool } from "../../src/foundation/sql-clients/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let pool: pg.Pool;

beforeAll(async () => {
  database = await testDatabase({ migrated: false });
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(() => {
  pool = new pg.Pool({ connectionString: database.url, max: 2 });
  // Dropping the database may end a session that the pool is still closing.
  pool.on("error", () => undefined);
});
afterEach(() => pool.end());

describe("a session that is a client of the user's pool", () => {
  it("has Hawser's settings and types, and nothing that other code has left in it", async () => {
    const used = await pool.connect();
    used.setTypeParser(pg.types.builtins.INT8, () => "the user's");
    await used.query("SET search_path = public; SET ROLE pg_monitor; SET default_transaction_read_only = on");
    await used.query("SELECT pg_advisory_lock(1); BEGIN READ WRITE; SELECT 1 / 0").catch(() => undefined);
    used.release();
    const { client } = await openSession(new UserPool(pool), { applicationName: "it's", needsWrites: true });
    expect(client).toBe(used);
    const { rows } =
      await client.query(`SELECT current_setting('search_path') AS path, current_user = session_user AS own,
      current_setting('application_name') AS name, current_setting('lock_timeout') AS lock_timeout, 7::bigint AS big,
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks`);
    expect(rows).toEqual([
      { path: "pg_catalog, pg_temp", own: true, name: "it's", lock_timeout: "0", big: 7n, locks: 0n },
    ]);
    await client.end();
  });

  it.each(["ended", "destroyed"])("is %s with its settings, and leaves room in the pool", async (how) => {
    const listeners = pool.listenerCount("error");
    const session = await openSession(new UserPool(pool));
    expect([pool.totalCount, pool.idleCount]).toEqual([1, 0]);
    const removed = new Promise((resolve) => pool.once("remove", resolve));
    if (how === "ended") await session.client.end();
    else session.client.connection.stream.destroy();
    await removed;
    expect([pool.totalCount, pool.idleCount, pool.listenerCount("error")]).toEqual([0, 0, listeners]);
  });

  it("is refused if it takes no writes, and destroyed", async () => {
    await using readOnly = new (class extends pg.Pool {
      [Symbol.asyncDispose] = () => this.end();
    })({ connectionString: database.url, options: "-c default_transaction_read_only=on" });
    const opening = openSession(new UserPool(readOnly), { needsWrites: true });
    await expect(opening).rejects.toThrow(/is read-only/);
    expect(readOnly.totalCount).toBe(0);
  });

  it("is not waited for longer than the limit, and a client that comes later goes back", async () => {
    const held = [await pool.connect(), await pool.connect()];
    const opening = openSession(new UserPool(pool), { connectTimeoutMs: 20 });
    await expect(opening).rejects.toThrow(
      "the pool gave no client within 20 ms: 2 of at most 2 clients are in use; raise max of the pool, or release its clients sooner",
    );
    for (const client of held) client.release();
    expect((await pool.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    expect([pool.totalCount, pool.idleCount, pool.waitingCount]).toEqual([2, 2, 0]);
  });

  it("is refused without a socket of Node", async () => {
    const native = { totalCount: 0, connect: async () => ({ release: () => undefined, query: () => undefined }) };
    await expect(openSession(new UserPool(native as unknown as pg.Pool))).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("pool gives clients without a socket"),
    });
  });
});

it("an answer of the server is recognised from any copy of node-postgres", () => {
  const answer = Object.assign(new Error("permission denied"), { severity: "ERROR", code: "42501" });
  expect(isServerError(answer)).toBe(true);
  expect(isServerError(Object.assign(new Error("refused"), { code: "ECONNREFUSED" }))).toBe(false);
});
