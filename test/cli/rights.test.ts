/**
 * What a command says to a login that lacks rights.
 */
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { hawser } from "./support/hawser.js";

it.each([["topics"], ["pending"]])("hawser %s names the role that a login needs", async (command) => {
  await using database = await testDatabase();
  const name = `stranger_of_${database.name}`;
  const url = new URL(database.url);
  url.username = name;
  url.password = "stranger";
  await onServer(database.url, `CREATE ROLE ${name} LOGIN PASSWORD 'stranger'`);
  try {
    const remedy = `GRANT hawser_peer TO "${name}"`;
    const stranger = await hawser([command], { databaseUrl: url.href });
    expect([stranger.status, stranger.stderr]).toEqual([74, expect.stringContaining(remedy)]);
    // Who may look into the schema for something else is short of the same.
    await onServer(database.url, `GRANT hawser_bridge TO ${name}`);
    const bridge = await hawser([command], { databaseUrl: url.href });
    expect([bridge.status, bridge.stderr]).toEqual([74, expect.stringContaining(remedy)]);
    await onServer(database.url, `GRANT hawser_peer TO ${name}`);
    expect((await hawser([command], { databaseUrl: url.href })).status).toBe(0);
  } finally {
    await onServer(database.url, `DROP OWNED BY ${name}`, `DROP ROLE ${name}`);
  }
});

it.each([["serve"], ["topics"]])("hawser %s says what to do about a database that does not exist", async (command) => {
  await using database = await testDatabase({ migrated: false });
  const url = new URL(database.url);
  url.pathname = `${url.pathname}_missing`;
  const { status, stderr } = await hawser([command], { databaseUrl: url.href });
  expect(status).toBe(74);
  expect(stderr).toContain(`_missing" does not exist; make it (CREATE DATABASE), or name another one in the URL`);
  expect(stderr).not.toContain("migrate");
});
