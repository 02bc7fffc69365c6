/**
 * Output of commands for a login that lacks rights.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { migrate, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import { login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { hawser } from "./support/hawser.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
});
afterAll(() => database.drop());

it.each(["topics", "peers"])("hawser %s names the role that a login needs", async (command) => {
  await using stranger = await login(database.url);
  const run = () => hawser([command], { databaseUrl: stranger.url });
  const refused = {
    status: errorTable.not_permitted.exitStatus,
    stderr: expect.stringContaining(`GRANT hawser_peer TO "${stranger.role}"`),
  };
  expect(await run()).toMatchObject(refused);
  // Who may look into the schema for something else is short of the same; hawser_bridge may read peers.
  await onServer(database.url, `GRANT hawser_bridge TO ${stranger.role}`);
  expect(await run()).toMatchObject(command === "peers" ? { status: 0 } : refused);
  await onServer(database.url, `GRANT hawser_peer TO ${stranger.role}`);
  expect((await run()).status).toBe(0);
});

it("hawser topics, peers and pending are for a login with hawser_viewer alone, too", async () => {
  await using viewer = await login(database.url, "IN ROLE hawser_viewer");
  for (const command of ["topics", "peers", "pending"])
    expect((await hawser([command], { databaseUrl: viewer.url })).status, command).toBe(0);
});

it.each([
  ["why", "7"],
  ["jobs", "list"],
])("hawser %s tells a login with hawser_viewer alone that it is not permitted", async (...command) => {
  await using viewer = await login(database.url, "IN ROLE hawser_viewer");
  const { status, stderr } = await hawser(command, { databaseUrl: viewer.url });
  expect(status).toBe(errorTable.not_permitted.exitStatus);
  expect(stderr).toMatch(/GRANT hawser_peer TO .*\[not_permitted\]/s);
});

it("hawser dead retention shows the retention to peers, and lets owners of the schema set it", async () => {
  await using database = await testDatabase();
  await using peer = await login(database.url);
  await onServer(database.url, `GRANT hawser_peer TO ${peer.role}`);
  const retention = (...args: string[]) => hawser(["dead", "retention", ...args], { databaseUrl: peer.url });
  expect(await retention()).toMatchObject({ status: 0, stdout: expect.stringContaining("30 days") });
  const refused = await retention("5");
  expect(refused.stderr).toContain("use a role that is a member of hawser_owner, or the role that created the schema");
  expect(refused.status).not.toBe(0);
  expect((await retention()).stdout).toContain("30 days");
  await onServer(database.url, `GRANT hawser_owner TO ${peer.role}`);
  expect(await retention("5")).toMatchObject({ status: 0, stdout: expect.stringContaining("5 days") });
});

it("hawser serve and hawser topics say what to do about a database that does not exist", async () => {
  for (const command of ["serve", "topics"]) {
    const { status, stderr } = await hawser([command], { databaseUrl: `${database.url}_missing` });
    expect(status, command).toBe(69);
    expect(stderr).toContain(`_missing" does not exist; create it (CREATE DATABASE), or name another one in the URL`);
    expect(stderr).not.toContain("migrate");
  }
});

it("commands refuse the schema of another version, and say what to do", async () => {
  await using older = await testDatabase({ migrated: false });
  await migrate({ databaseUrl: older.url }, { ...programSchema, functions: `${programSchema.functions}\n-- Older.` });
  const refusal = async (command: string) => {
    const { status, stdout, stderr } = await hawser([command], { databaseUrl: older.url });
    expect({ status, stdout }, command).toEqual({ status: errorTable.schema_missing.exitStatus, stdout: "" });
    return stderr;
  };
  // The first one asks for columns of the last step, and the second one for none.
  for (const command of ["pending", "topics"]) {
    expect(await refusal(command)).toMatch(
      new RegExp(
        `the schema hawser of the database "${older.name}" is older than this program: run .hawser init. as its owner, "`,
      ),
    );
  }
  await migrate({ databaseUrl: older.url });
  await onServer(
    older.url,
    "INSERT INTO hawser_data.migrations (id, name, checksum, oldest_program) VALUES (99, 'later', '', 99)",
  );
  expect(await refusal("pending")).toContain("[schema_too_new]");
});
