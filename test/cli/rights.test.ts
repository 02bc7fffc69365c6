/**
 * What a command says to a login that lacks rights.
 */
import { expect, it } from "vitest";
import { login } from "../store/nats/support/logins.js";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { hawser } from "./support/hawser.js";

it.each(["topics", "pending"])("hawser %s names the role that a login needs", async (command) => {
  await using database = await testDatabase();
  await using stranger = await login(database.url);
  const run = () => hawser([command], { databaseUrl: stranger.url });
  const refused = { status: 74, stderr: expect.stringContaining(`GRANT hawser_peer TO "${stranger.role}"`) };
  expect(await run()).toMatchObject(refused);
  // Who may look into the schema for something else is short of the same.
  await onServer(database.url, `GRANT hawser_bridge TO ${stranger.role}`);
  expect(await run()).toMatchObject(refused);
  await onServer(database.url, `GRANT hawser_peer TO ${stranger.role}`);
  expect((await run()).status).toBe(0);
});

it("hawser serve and hawser topics say what to do about a database that does not exist", async () => {
  await using database = await testDatabase({ migrated: false });
  for (const command of ["serve", "topics"]) {
    const { status, stderr } = await hawser([command], { databaseUrl: `${database.url}_missing` });
    expect(status, command).toBe(74);
    expect(stderr).toContain(`_missing" does not exist; make it (CREATE DATABASE), or name another one in the URL`);
    expect(stderr).not.toContain("migrate");
  }
});
