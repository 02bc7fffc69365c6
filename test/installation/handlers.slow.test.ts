/**
 * Those rules of `handlers.test.ts` that take an installation each.
 */
import { expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { expectVerifier } from "./support/verifier.js";

it("the login that calls functions for NATS is given its password as a verifier, so that no statement holds it, also one longer than a block of the hash", async () => {
  await using database = await testDatabase();
  await onServer(database.url, `UPDATE hawser_bridge_data.executor_login SET password = '${"x".repeat(200)}'`);
  await install({ databaseUrl: database.url });
  await expectVerifier(database.url);
});

it("a schema named pgnats that is empty is taken, where a superuser made it", async () => {
  await using prepared = await testDatabase({ nats: false });
  await onServer(prepared.url, "CREATE SCHEMA pgnats");
  expect(await install({ databaseUrl: prepared.url })).toMatchObject({ missingPrivileges: [] });
  expect(await rowsOf(prepared.url, "SELECT * FROM pgnats.subscriptions")).toEqual([]);
});
