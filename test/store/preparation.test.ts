/**
 * A database is prepared while others work in it, and gives way to them.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { install } from "../../src/installation/index.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** As pg_dump does: of all tables and views. */
const readAllSql = `DO $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname !~ '^(pg_|information_schema$)'
  LOOP
    EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', relation);
  END LOOP;
END
$$`;

it("hawser init with nothing to do waits for no reader", async () => {
  await using database = await testDatabase();
  await install({ databaseUrl: database.url });
  const dump = new pg.Client({ connectionString: database.url });
  await dump.connect();
  try {
    await dump.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await dump.query(readAllSql);
    expect(
      await rowsOf(database.url, "SELECT count(*) > 20 AS some FROM pg_locks WHERE mode = 'AccessShareLock'"),
    ).toEqual([{ some: true }]);
    const report = await install({ databaseUrl: database.url });
    expect(report.missingPrivileges).toEqual([]);
    expect(report.migrations).toEqual([]);
  } finally {
    await dump.end();
  }
});

it("hawser init makes a view anew that is not as it should be", async () => {
  await using database = await testDatabase();
  const definition = () =>
    rowsOf(
      database.url,
      "SELECT pg_get_viewdef(c.oid) AS text, c.reloptions FROM pg_class AS c WHERE c.oid = 'pgnats.subscriptions'::regclass",
    );
  await install({ databaseUrl: database.url });
  const made = await definition();
  await onServer(
    database.url,
    "CREATE OR REPLACE VIEW pgnats.subscriptions WITH (security_barrier = false) AS SELECT ''::text AS subject, ''::text COLLATE \"C\" AS callback",
  );
  expect(await definition()).not.toEqual(made);
  await install({ databaseUrl: database.url });
  expect(await definition()).toEqual(made);
});
