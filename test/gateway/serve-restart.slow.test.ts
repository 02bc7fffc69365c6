/**
 * The server while Postgres goes away and comes back, or is silent.
 */

import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { optionsPollMs } from "../../src/operating/installation/foreign-data.js";
import { install } from "../../src/operating/installation/index.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, patience } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { noTimersAbove } from "../support/timers.js";

let postgres: OwnPostgres;
let serve: HawserServer;

beforeAll(async () => {
  postgres = await ownPostgres();
  await install({ databaseUrl: postgres.url });
  await define();
  serve = await startServer({ databaseUrl: postgres.url, listen: "127.0.0.1:0", ...patience });
});

afterAll(async () => {
  await serve?.stop();
  await postgres?.[Symbol.asyncDispose]();
});

// A test may have defined another one.
beforeEach(() => define());

async function define(): Promise<void> {
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  await defineServer(client, testNatsUrl());
  await client.end();
}

const call = () =>
  onServer(postgres.url, "SELECT litmus_pgnats_reload_conf()", "SELECT nats_publish_text('restart.a', 'x')");

describe.each(["SIGINT", "SIGQUIT", "SIGKILL"] as const)("a restart of Postgres after %s", (signal) => {
  it("goes by without the gateway being started again", async () => {
    await call();
    await postgres.kill(signal);
    await postgres.start();
    // The sessions of before are gone, the gateway and its password are the same.
    await call();
    await eventually("it listens again", async () => {
      const sessions = await rowsOf(
        postgres.url,
        "SELECT FROM pg_stat_activity WHERE application_name = 'hawser serve'",
      );
      return sessions.length === 1;
    });
    expect(await rowsOf(postgres.url, "SELECT host, port FROM hawser_bridge_data.gateways")).toEqual([
      { host: "127.0.0.1", port: Number(serve.address.split(":")[1]) },
    ]);
  });
});

it("follows the definition after a restart as before", async () => {
  await using other = await startNatsServer();
  await postgres.kill("SIGINT");
  await postgres.start();
  const [row] = await rowsOf(postgres.url, "SELECT changed_at FROM hawser_bridge_data.nats_server");
  expect(row).toBeDefined();
  await onServer(postgres.url, `SELECT hawser.set_nats_server('{"port":"${other.port}"}')`);
  await eventually("the functions reach the other server", async () => {
    const [info] = await rowsOf(postgres.url, "SELECT port FROM nats_get_server_info()").catch(() => []);
    return info?.["port"] === other.port;
  });
});

it("stops while Postgres is unavailable", async () => {
  await postgres.kill("SIGQUIT");
  await serve.stop();
  await postgres.start();
  // Nobody could take its address away; the next one does.
  const stale = await rowsOf(postgres.url, "SELECT port FROM hawser_bridge_data.gateways");
  expect(stale).toHaveLength(1);
  serve = await startServer({ databaseUrl: postgres.url, listen: "127.0.0.1:0", ...patience });
  expect(await rowsOf(postgres.url, "SELECT host, port FROM hawser_bridge_data.gateways")).toEqual([
    { host: "127.0.0.1", port: Number(serve.address.split(":")[1]) },
  ]);
});

it("a Postgres that is silent is asked in a new session, and does not hold up the end", async () => {
  // Of its own: sessions that stand still hold up others of the server.
  await using postgres = await ownPostgres();
  await install({ databaseUrl: postgres.url });
  await using serve = await startServer({ databaseUrl: postgres.url, listen: "127.0.0.1:0" });
  const sessions = () =>
    rowsOf(postgres.url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'hawser serve'");
  const [first] = await sessions();
  const pid = Number(first!["pid"]);
  process.kill(pid, "SIGSTOP");
  try {
    await eventually("there is another session", async () => (await sessions()).length > 1, optionsPollMs * 8);
    const [second] = (await sessions()).filter((row) => row["pid"] !== pid);
    // What is asked of Postgres otherwise has that much time.
    noTimersAbove(optionsPollMs * 2 - 1);
    process.kill(Number(second!["pid"]), "SIGSTOP");
    try {
      await serve.stop();
    } finally {
      process.kill(Number(second!["pid"]), "SIGCONT");
    }
  } finally {
    process.kill(pid, "SIGCONT");
  }
});
