/**
 * A hot standby reaches the same gateway as its primary.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { serve } from "../../../src/nats/serve/index.js";
import { install } from "../../../src/operating/installation/index.js";
import { testNatsUrl } from "../../support/database.js";
import { defineServer, patience } from "../../support/gateway.js";
import { startPrimaryAndStandby } from "../../support/standby.js";
import { callEveryFunction, prepareSamples } from "./every-function.js";
import { Witness } from "./witness.js";

/** A session that ends with its block. */
async function openSession(url: string): Promise<AsyncDisposable & { readonly client: pg.Client }> {
  const client = new pg.Client(url);
  client.on("error", () => undefined);
  await client.connect();
  return { client, [Symbol.asyncDispose]: () => client.end() };
}

it("every function works on a hot standby, also in a transaction that is said to be read-only, and after its promotion", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  await install({ databaseUrl: primary.url });
  await using onPrimary = await openSession(primary.url);
  await defineServer(onPrimary.client, testNatsUrl());
  await using _serve = await serve({ databaseUrl: primary.url, listen: "127.0.0.1:0", ...patience });
  const nats = await connect({ servers: testNatsUrl() });
  onTestFinished(() => nats.close());
  await servers.caughtUp();

  await using onStandby = await openSession(standby.url);
  const session = onStandby.client;
  expect((await session.query("SELECT pg_is_in_recovery() AS standby")).rows).toEqual([{ standby: true }]);
  const rowsOf = async (sql: string) => (await session.query(sql)).rows;
  const prepared = async (word: string) => {
    const witness = await Witness.open(nats, `${word}.>`);
    await prepareSamples(witness, word);
    return witness;
  };
  await callEveryFunction("standby_plain", await prepared("standby_plain"), rowsOf);
  await callEveryFunction("standby_read_only", await prepared("standby_read_only"), async (sql) => {
    await session.query("BEGIN READ ONLY");
    const rows = await rowsOf(sql);
    await session.query("COMMIT");
    return rows;
  });
  await expect(session.query("SELECT nats_request_text('standby.nobody', 'x', 20000)")).rejects.toMatchObject({
    code: "NA002",
  });

  await servers.promote();
  expect(await rowsOf("SELECT nats_put_text('standby_promoted', 'k', 'v') AS revision")).toEqual([{ revision: "1" }]);
});
