/**
 * `natsSql` of an installation whose functions are in another schema.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { natsSql } from "../../src/nats/client/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { defineServer, patience } from "../support/gateway.js";
import { onServer } from "../support/on-server.js";

describe("the schema", () => {
  it("is the one of the installation, whatever its name needs", async () => {
    const schema = "Mine. of NATS";
    const nats = await connect({ servers: testNatsUrl() });
    const heard = nats.subscribe("other_schema.a", { max: 1 });
    await nats.flush();
    await using database = await testDatabase({ nats: false });
    await onServer(database.url, `CREATE SCHEMA "${schema}"`);
    await install({ databaseUrl: database.url, nats: { schema } });
    await using _serve = await serve({ databaseUrl: database.url, listen: "127.0.0.1:0", ...patience });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    try {
      await defineServer(client, testNatsUrl());
      const own = natsSql(client, { schema });
      await own.reload();
      await own.publish("other_schema.a", "x");
      for await (const message of heard) expect(message.string()).toBe("x");
      expect(await own.kvGet("other_schema", "never")).toBeUndefined();
      expect((await own.serverInfo()).headers).toBe(true);
      await expect(natsSql(client).flush()).rejects.toMatchObject({ code: "store_failed", cause: { code: "42883" } });
    } finally {
      await client.end();
      await nats.close();
    }
  });
});
