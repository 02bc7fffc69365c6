import { randomInt } from "node:crypto";
import pg from "pg";
import { expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { stateOf } from "../store/support/database-state.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";

it("an empty database has nothing of an installation that was killed, and the next one begins anew", async () => {
  await using database = await testDatabase({ migrated: false });
  const key = randomInt(1e9);
  await onServer(
    database.url,
    `CREATE FUNCTION public.wait() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(${key}); END $$`,
    "CREATE EVENT TRIGGER wait ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION public.wait()",
  );
  const holder = new pg.Client(database.url);
  await holder.connect();
  await holder.query(`SELECT pg_advisory_lock(${key})`);
  const before = await stateOf(database.url);
  const program = startProgram("src/operating/cli/main.ts", ["init"], { env: { HAWSER_DATABASE_URL: database.url } });
  const waiting = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`;
  await eventually("it waits half way", async () => (await rowsOf(database.url, waiting)).length === 1);
  program.child.kill("SIGKILL");
  expect((await program.ended).signal).toBe("SIGKILL");
  await holder.end();
  await eventually("its session is gone", async () => {
    const sessions =
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%hawser%' AND pid <> pg_backend_pid()";
    return (await rowsOf(database.url, sessions)).length === 0;
  });
  expect(await stateOf(database.url)).toEqual(before);
  await onServer(database.url, "DROP EVENT TRIGGER wait", "DROP FUNCTION public.wait()");
  expect((await install({ databaseUrl: database.url })).missingPrivileges).toEqual([]);
});
