/**
 * The login by which functions are called: it is refused where it may do too much, and waited for where it is missing.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let executor: string;

beforeAll(async () => {
  world = await bridgeWorld({
    subscriberSessions: 1,
    sql: `
      CREATE TABLE got (payload bytea);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got SELECT payload WHERE payload <> ''$$;
    `,
  });
  executor = pg.escapeIdentifier(await world.value<string>("SELECT user_name FROM hawser.executor_login"));
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
    ["CREATEROLE", "may make roles"],
    ["BYPASSRLS", "is exempt from row security"],
    ["REPLICATION", "may replicate"],
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
    const table = "hawser.nats_server";
    await isHeldUpBy(`GRANT SELECT ON ${table} TO ${executor}`, table, `REVOKE SELECT ON ${table} FROM ${executor}`);
  });

  it("that may not log in, or is missing, is waited for", async () => {
    await isHeldUpBy(`ALTER ROLE ${executor} NOLOGIN`, "not permitted to log in", `ALTER ROLE ${executor} LOGIN`);
    await isHeldUpBy(
      "UPDATE hawser.executor_login SET user_name = user_name || '_missing'",
      "_missing",
      "UPDATE hawser.executor_login SET user_name = left(user_name, -8)",
    );
  });
});
