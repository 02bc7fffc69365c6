/** Sessions for functions behind a pooler in session mode that drops start-up parameters, as PgBouncer can. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseAddress, PostgresSession } from "../../src/foundation/postgres/index.js";
import { silentLogger as logger } from "../../src/foundation/runtime/index.js";
import { ExecutorLogin } from "../../src/nats/bridge/executor/executor-login.js";
import { ExecutorPool } from "../../src/nats/bridge/executor/executor-pool.js";
import { inTransaction } from "../../src/nats/bridge/executor/transaction.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPooler } from "../support/pooler.js";

let database: TestDatabase;
let session: PostgresSession;

beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    ...["search_path = elsewhere", "default_transaction_isolation = serializable", "timezone = 'Pacific/Chatham'"].map(
      (setting) => `ALTER DATABASE ${database.name} SET ${setting}`,
    ),
    "CREATE TABLE public.seen (path text, isolation text, zone text)",
    "GRANT INSERT ON public.seen TO hawser_executor",
  );
  const address = DatabaseAddress.of(database.url);
  session = new PostgresSession({ address, logger, queryTimeoutMs: 5_000, onDown: () => undefined });
});
afterAll(async () => {
  await session?.close();
  await database?.drop();
});

it("have Hawser's settings in each transaction, and the formats of the database", async () => {
  const [row] = await rowsOf(database.url, "SELECT user_name, password FROM hawser_bridge_data.executor_login");
  const direct = Object.assign(new URL(database.url), { username: row!["user_name"], password: row!["password"] });
  await using pooler = await startPooler(direct.href, "session");
  const login = new ExecutorLogin({ databaseUrl: database.url, executorUrl: pooler.url, session });
  const pool = new ExecutorPool({ login, limit: 1, logger });
  const note = `INSERT INTO public.seen SELECT current_setting('search_path'),
    current_setting('default_transaction_isolation'), current_setting('timezone')`;
  for (let time = 1; time <= 3; time += 1) {
    const ending = await inTransaction(pool, logger, {
      runAs: "postgres",
      timeoutMs: 5_000,
      first: "SELECT 1",
      run: async (executor) => {
        await executor.query(note, []);
        return { value: "done", commit: true };
      },
    });
    expect(ending).toMatchObject({ kind: "committed" });
  }
  await pool.stop();
  const seen = { path: "pg_catalog, pg_temp", isolation: "read committed", zone: "Pacific/Chatham" };
  expect(await rowsOf(database.url, "SELECT * FROM public.seen")).toEqual([seen, seen, seen]);
});
