/**
 * The login by which functions are called: it is refused where it may do too much or reaches another database, and waited for
 * where it is missing.
 */
import { inspect } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let executor: string;

const sql = `
  CREATE TABLE got (payload bytea);
  CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got SELECT payload WHERE payload <> ''$$`;

beforeAll(async () => {
  world = await bridgeWorld({ subscriberSessions: 1, sql });
  executor = pg.escapeIdentifier(await world.value<string>("SELECT user_name FROM hawser_bridge_data.executor_login"));
  await world.subscribe(`${world.prefix}.x`, "capture(bytea)");
});
afterAll(async () => {
  await world?.client.query(`ALTER ROLE ${executor} NOSUPERUSER NOCREATEROLE NOBYPASSRLS NOREPLICATION LOGIN`);
  await world?.[Symbol.asyncDispose]();
});

/** Ends the sessions of the login, so that another one is needed. */
const endSessions = () =>
  world.client.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser executor'",
  );

const warned = (words: string): number =>
  world.log.lines.filter(
    ({ level, message, details }) =>
      level === "warn" && message.includes("no session with Postgres") && JSON.stringify(details).includes(words),
  ).length;

let messages = 0;
async function isHeldUpBy(make: string, words: string, undo: string): Promise<void> {
  const payload = `message ${++messages}`;
  const before = warned(words);
  await world.client.query(make);
  try {
    await endSessions();
    world.nats.publish(`${world.prefix}.x`, payload);
    await eventually("it is told", () => warned(words) > before);
    expect(await world.rows("SELECT FROM got WHERE payload = $1", [Buffer.from(payload)])).toEqual([]);
  } finally {
    await world.client.query(undo);
  }
  await eventually("it goes on by itself", async () => {
    return (await world.rows("SELECT FROM got WHERE payload = $1", [Buffer.from(payload)])).length === 1;
  });
  // Once, though it was tried more often.
  expect(warned(words)).toBe(before + 1);
}

describe("the executor's login", () => {
  it.each([
    ["SUPERUSER", "is a superuser"],
    ["CREATEROLE", "can create roles"],
    ["BYPASSRLS", "bypasses row security"],
    ["REPLICATION", "can replicate"],
  ])("with %s is refused, told once, and nothing runs until it has it no more", async (power, words) => {
    await isHeldUpBy(`ALTER ROLE ${executor} ${power}`, words, `ALTER ROLE ${executor} NO${power}`);
  });

  it("that is in another role is refused", async () => {
    await isHeldUpBy(
      `GRANT pg_read_all_data TO ${executor}`,
      "pg_read_all_data",
      `REVOKE pg_read_all_data FROM ${executor}`,
    );
  });

  it("that may read a table of Hawser's is refused", async () => {
    const table = "hawser_bridge_data.nats_server";
    await isHeldUpBy(`GRANT SELECT ON ${table} TO ${executor}`, table, `REVOKE SELECT ON ${table} FROM ${executor}`);
  });

  it("that may not log in, or is missing, is waited for", async () => {
    await isHeldUpBy(`ALTER ROLE ${executor} NOLOGIN`, "not permitted to log in", `ALTER ROLE ${executor} LOGIN`);
    await isHeldUpBy(
      "UPDATE hawser_bridge_data.executor_login SET user_name = user_name || '_missing'",
      "_missing",
      "UPDATE hawser_bridge_data.executor_login SET user_name = left(user_name, -8)",
    );
  });

  it("that reaches another database, also one with Hawser in it, is refused, and reported once with both names", async () => {
    await using other = await testDatabase();
    const [login] = await rowsOf(other.url, "SELECT user_name, password FROM hawser_bridge_data.executor_login");
    const url = new URL(other.url);
    url.username = String(login!["user_name"]);
    url.password = String(login!["password"]);
    // What waits at the end cannot be run.
    await using own = await bridgeWorld({ executorUrl: url.href, stopTimeoutMs: 100, sql });
    const subject = `${own.prefix}.x`;
    await own.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
    const refusals = (wanted: string) =>
      own.log.lines.filter(({ level, message }) => level === wanted && message.includes("no session with Postgres"));
    await eventually("it has been tried again and again", () => {
      own.nats.publish(subject, "never");
      return refusals("debug").length > 2;
    });
    const { hostname, port } = new URL(testServerUrl());
    const place = (name: string) => `the database "${name}" of the server at ${hostname}:${port}, started at `;
    expect(refusals("warn").map(({ details }) => details)).toEqual([
      {
        code: "executor_login",
        problem: expect.stringMatching(
          new RegExp(
            `^the login "${url.username}", .*, has reached ${place(other.name)}\\S+, not ${place(own.database.name)}\\S+, which \`hawser serve\` works for$`,
          ),
        ),
        remedy: "Let --executor-url name the same server and database as --database-url, with the other login.",
      },
    ]);
    expect(inspect(own.log.lines, { depth: 9, maxArrayLength: null })).not.toContain(url.password);
    expect(await own.rows("SELECT FROM got")).toEqual([]);
  });
});
