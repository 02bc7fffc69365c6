/**
 * Endings of an executor's transaction, by the error that its function raises.
 */

import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { DatabaseAddress, PostgresSession } from "../../src/foundation/postgres/index.js";
import { ExecutorLogin } from "../../src/nats/bridge/executor/executor-login.js";
import { ExecutorPool } from "../../src/nats/bridge/executor/executor-pool.js";
import { executorPlansMs } from "../../src/nats/bridge/executor/executor-session.js";
import { GroupSize, inGroups } from "../../src/nats/bridge/executor/groups.js";
import { type Ending, inTransaction } from "../../src/nats/bridge/executor/transaction.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { keptLog } from "./role/log.js";
import { translatingProxy } from "./support/translating-proxy.js";

let database: TestDatabase;
let session: PostgresSession;
const { logger } = keptLog();

beforeAll(async () => {
  database = await testDatabase();
  session = new PostgresSession({
    address: DatabaseAddress.of(database.url),
    logger,
    applicationName: "test",
    queryTimeoutMs: 5_000,
    onDown: () => undefined,
  });
});
afterAll(async () => {
  await session?.close();
  await database?.drop();
});

function executors(executorUrl?: string): ExecutorPool {
  const login = new ExecutorLogin({ databaseUrl: database.url, executorUrl, session });
  return new ExecutorPool({ login, limit: 2, logger });
}

/** Runs a statement as a function's. */
function run(pool: ExecutorPool, statement: string): Promise<Ending<string>> {
  return inTransaction(pool, logger, {
    runAs: "postgres",
    timeoutMs: 5_000,
    first: "SELECT 1",
    run: async (executor) => {
      await executor.query(statement, []);
      return { value: "done", commit: true };
    },
  });
}

const own = (code: string) => `DO $$BEGIN RAISE EXCEPTION 'own' USING ERRCODE = '${code}'; END$$`;
/** Fails with 42804 in Postgres itself. */
const mismatch = "EXECUTE 'SELECT CASE WHEN true THEN 1 ELSE ''{}''::json END'";
const ofMismatch = { kind: "failed", code: "42804" };
/** Counts its runs. */
const counted = (statement: string) => `DO $$BEGIN PERFORM nextval('public.runs'); ${statement}; END$$`;
const runs = async () => Number((await session.query<{ n: string }>("SELECT nextval('public.runs') - 1 AS n"))[0]!.n);

describe("a session that has kept plans", () => {
  it("has what a plan may have made fail run once more without any, and not what the function raises", async () => {
    await session.query("CREATE SEQUENCE public.runs; GRANT USAGE ON SEQUENCE public.runs TO PUBLIC");
    const pool = executors();
    onTestFinished(() => pool.stop());
    await run(pool, "SELECT 1");
    expect(await run(pool, counted(mismatch))).toMatchObject(ofMismatch);
    expect(await runs()).toBe(2);
    // It was cleared.
    expect(await run(pool, counted(mismatch))).toMatchObject(ofMismatch);
    expect(await runs()).toBe(4);
    await run(pool, "SELECT 1");
    const raises = "RAISE EXCEPTION 'own' USING ERRCODE = '42804'";
    expect(await run(pool, counted(raises))).toEqual({ ...ofMismatch, message: "own" });
    expect(await runs()).toBe(6);
  });

  it("has all groups of its batch run once more, if one of a single message fails, as if for the first time", async () => {
    const pool = executors();
    onTestFinished(() => pool.stop());
    await run(pool, "SELECT 1");
    const ends: number[] = [];
    const size = new GroupSize();
    size.failed(1);
    const ending = await inTransaction(pool, logger, {
      runAs: "postgres",
      timeoutMs: 5_000,
      first: "SELECT 1",
      run: async (executor) => {
        const call = async (_start: number, end: number): Promise<void> => {
          ends.push(end);
          await executor.query(end < 3 ? "SELECT 1" : `DO $$BEGIN ${mismatch}; END$$`, []);
        };
        return { value: await inGroups(executor, { count: 3, timeoutMs: 5_000, size }, call), commit: false };
      },
    });
    expect(ending).toMatchObject({ value: { done: 1, failed: { count: 2, failure: ofMismatch } } });
    expect(ends).toEqual([1, 3, 1, 3]);
  });

  it("is not taken if plans may be why it has failed", async () => {
    const pool = executors();
    onTestFinished(() => pool.stop());
    const both = [await pool.acquire("postgres"), await pool.acquire("postgres")];
    for (const one of both) await pool.release(one, false);
    expect(both.map(({ hasOldPlans }) => hasOldPlans)).toEqual([true, true]);
    const another = await pool.acquire("postgres", false);
    expect(both).not.toContain(another);
    await pool.release(another, true);
    expect(await pool.acquire("postgres", false)).toBe(another);
    await pool.release(another, false);
  });

  it("gives them up in time", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    onTestFinished(() => void vi.useRealTimers());
    const pool = executors();
    onTestFinished(() => pool.stop());
    const one = await pool.acquire("postgres");
    for (const hasOldPlans of [true, false, true]) {
      vi.advanceTimersByTime(executorPlansMs * 0.6);
      await pool.release(one, false);
      expect(one.hasOldPlans).toBe(hasOldPlans);
      expect(await pool.acquire("postgres")).toBe(one);
    }
    await pool.release(one, false);
  });
});

describe("a transaction", () => {
  it.each([
    ["25006", "failed"],
    ["57P01", "transient"],
    ["57P02", "transient"],
    ["57P03", "transient"],
  ])(
    "that has begun does not wait for the server because of %s, which is its function's own: %s",
    async (code, kind) => {
      const pool = executors();
      const ending = await run(pool, own(code));
      expect(ending).toEqual({ kind, code, message: "own" });
      await pool.stop();
    },
  );

  it("runs nothing in a session that was opened when the process had stopped", async () => {
    const pool = executors();
    const running = run(pool, "SELECT 1");
    await pool.stop();
    pool.destroy();
    expect(await running).toMatchObject({ kind: "unavailable" });
  });

  it.each([
    ["Russian", { ERROR: "ОШИБКА", FATAL: "ВАЖНО" }],
    ["a language in which an error is called as the end of a session in English", { ERROR: "FATAL", FATAL: "ERROR" }],
  ])("tells the end of its session from an error of its function where Postgres speaks %s", async (_what, words) => {
    await using proxy = await translatingProxy(database.url, words);
    const [login] = await session.query<{ user: string; password: string }>(
      `SELECT user_name AS "user", password FROM hawser_bridge_data.executor_login`,
    );
    const url = new URL(proxy.url);
    url.username = login!.user;
    url.password = login!.password;
    const pool = executors(url.href);
    expect(await run(pool, own("P0001"))).toEqual({ kind: "failed", code: "P0001", message: "own" });
    expect(await run(pool, own("57P01"))).toEqual({ kind: "transient", code: "57P01", message: "own" });
    expect(await run(pool, "SELECT pg_terminate_backend(pg_backend_pid())")).toEqual({
      kind: "session_lost",
      message: "terminating connection due to administrator command",
    });
    expect(await run(pool, "SELECT 1")).toMatchObject({ kind: "committed" });
    expect(proxy.translated.size).toBe(2);
    await pool.stop();
  });
});
