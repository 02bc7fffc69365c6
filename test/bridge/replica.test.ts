/**
 * nats_subscribe and its like on a hot standby.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { install } from "../../src/store/index.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { errorOf } from "./support/binding-world.js";

it("are refused on a replica, which shows what is subscribed on the primary", async () => {
  await using servers = await startPrimaryAndStandby();
  await install({ databaseUrl: servers.primary.url });
  await onServer(
    servers.primary.url,
    "CREATE FUNCTION f(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload'",
    "SELECT nats_subscribe('s', 'f')",
  );
  await servers.caughtUp();
  expect(await rowsOf(servers.standby.url, "SELECT * FROM pgnats.subscriptions")).toEqual([
    { subject: "s", callback: "public.f(bytea)" },
  ]);
  const client = new pg.Client(servers.standby.url);
  await client.connect();
  try {
    for (const call of [
      "nats_subscribe('s', 'f')",
      "nats_unsubscribe('s', 'f')",
      "litmus_pgnats_register_responder('s', 'f')",
      "litmus_pgnats_unregister_responder('s')",
    ]) {
      expect(await errorOf(client, `SELECT ${call}`), call).toMatchObject({
        code: "25006",
        message: `${call.slice(0, call.indexOf("("))}: this server is a replica`,
        hint: expect.stringContaining("primary"),
      });
    }
  } finally {
    await client.end();
  }
});
