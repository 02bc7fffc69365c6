import { expect, inject, it } from "vitest";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";

it("gives each caller a database of its own", async () => {
  await using first = await testDatabase();
  await using second = await testDatabase({ migrated: false });
  expect(first.name).not.toBe(second.name);
  expect(await rowsOf(first.url, "SELECT current_database() AS name")).toEqual([{ name: first.name }]);
});

it("gives a copy of the migrated template, or with `migrated: false` an empty database", async () => {
  await using migrated = await testDatabase();
  await using empty = await testDatabase({ migrated: false });
  const schemas = "SELECT nspname AS name FROM pg_namespace WHERE nspname = 'hawser'";
  expect(await rowsOf(migrated.url, schemas)).toEqual([{ name: "hawser" }]);
  expect(await rowsOf(empty.url, schemas)).toEqual([]);
});

it("tells the servers of the run to tests and to the processes they start", () => {
  expect(inject("databaseUrl")).toBe(process.env["HAWSER_TEST_DATABASE_URL"]);
  expect(inject("natsUrl")).toBe(testNatsUrl());
});
