/**
 * A session that several parts of a process ask.
 */
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { DatabaseAddress, PostgresSession } from "../../src/foundation/postgres/index.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { startProxy } from "../store/support/proxy.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";

it("carries queries out in order, and continues after a failed one", async () => {
  await using database = await testDatabase();
  const warnings: string[] = [];
  const onWarning = ({ message }: Error): void => void warnings.push(message);
  process.on("warning", onWarning);
  onTestFinished(() => void process.off("warning", onWarning));
  const session = sessionWith(database.url);
  const order: number[] = [];
  const asked = Array.from({ length: 10 }, async (_, n) => {
    const text = n === 3 ? "SELECT 1 / 0" : `SELECT ${n} AS n, pg_sleep(0.01)`;
    await session.query(text).catch(() => undefined);
    order.push(n);
  });
  await Promise.all(asked);
  expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await session.close();
  expect(warnings).toEqual([]);
});

it("sends a query before those before it were answered", async () => {
  await using database = await testDatabase();
  await using proxy = await startProxy(database.url);
  const session = sessionWith(proxy.url);
  await session.query("SELECT");
  const held = proxy.holdAt("SELECT 'first'");
  const first = session.query("SELECT 'first'");
  const second = session.query("SELECT pg_advisory_lock(1)");
  const release = await held;
  const client = new pg.Client(database.url);
  await client.connect();
  const isLocked = async (): Promise<boolean> => {
    const { rows } = await client.query<{ free: boolean }>("SELECT pg_try_advisory_lock_shared(1) AS free");
    if (rows[0]!.free) await client.query("SELECT pg_advisory_unlock_shared(1)");
    return !rows[0]!.free;
  };
  await eventually("the server has carried out the second query", isLocked);
  await client.end();
  release();
  await Promise.all([first, second]);
  await session.close();
});

it("times out also behind a slower query, and opens another session then", async () => {
  await using database = await testDatabase();
  const session = sessionWith(database.url);
  await session.query("SELECT");
  const before = session.query("SELECT pg_sleep(15)").then(
    () => "answered",
    (error: Error) => error.message,
  );
  await expect(session.query("SELECT", [], 100)).rejects.toThrow("Query read timeout");
  // It goes with its session.
  expect(await before).toBe("Connection terminated unexpectedly");
  expect(await session.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  await session.close();
});

it("on demand, reports no loss before it was up: only the query that opens it is rejected", async () => {
  await using database = await testDatabase();
  let lost = 0;
  // Postgres refuses an empty name, so that each connection fails at its LISTEN.
  const session = sessionWith(database.url, { channels: [""], onDown: () => void (lost += 1) });
  await expect(session.query("SELECT")).rejects.toThrow("zero-length delimited identifier");
  expect([session.isUp, lost]).toEqual([false, 0]);
  await session.close();
});

function sessionWith(
  databaseUrl: string,
  options: { readonly channels?: readonly string[]; readonly onDown?: () => void } = {},
): PostgresSession {
  return new PostgresSession({
    address: DatabaseAddress.of(databaseUrl),
    logger: silentLogger,
    applicationName: "test",
    queryTimeoutMs: 20_000,
    onDown: () => undefined,
    ...options,
  });
}
