/**
 * What becomes of a transaction of the executor, by what its function raises.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { executorSettings } from "../../src/bridge/executor/executor-login.js";
import { ExecutorPool } from "../../src/bridge/executor/executor-pool.js";
import { type Ending, inTransaction } from "../../src/bridge/executor/transaction.js";
import { install, PostgresSession } from "../../src/store/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { keptLog } from "./role/log.js";

let database: TestDatabase;
let session: PostgresSession;
const { logger } = keptLog();

beforeAll(async () => {
  database = await testDatabase();
  await install({ databaseUrl: database.url });
  session = new PostgresSession({
    databaseUrl: database.url,
    logger,
    applicationName: "test",
    channels: [],
    queryTimeoutMs: 5_000,
    onNotification: () => undefined,
    onLost: () => undefined,
  });
});
afterAll(async () => {
  await session?.end();
  await database?.drop();
});

function executors(): ExecutorPool {
  return new ExecutorPool({
    settings: () => executorSettings({ databaseUrl: database.url, executorUrl: undefined, session }),
    endBackend: async () => false,
    limit: 2,
    logger,
  });
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
      const ending = await run(pool, `DO $$BEGIN RAISE EXCEPTION 'own' USING ERRCODE = '${code}'; END$$`);
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
});
