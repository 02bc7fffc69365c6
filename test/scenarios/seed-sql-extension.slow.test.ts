/**
 * The same documentation where it begins with CREATE EXTENSION: on a Postgres into which `hawser extension install` has
 * put the extension's files.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { hawser } from "../cli/support/hawser.js";
import { extensionServer } from "../support/extension-server.js";
import { startNatsServer } from "../support/nats-server.js";
import { statementsOf, withOptions } from "./seed-sql/statements.js";

it("creates the extension, and goes on as with `hawser init`", { timeout: 120_000 }, async () => {
  await using server = await extensionServer();
  await using edge = await startNatsServer();
  const installed = await hawser(["extension", "install", "--pg-config", server.pgConfig]);
  expect(installed).toMatchObject({ status: 0, stderr: "" });
  await using database = await server.database();
  const client = new pg.Client(database.url);
  await client.connect();
  const independent = await connect({ servers: edge.url });
  try {
    const [enable] = statementsOf("01-enable.sql");
    expect(enable).toBe("CREATE EXTENSION IF NOT EXISTS litmus_pgnats;");
    await client.query(enable!);
    await using serve = await startServer({ databaseUrl: database.url, listen: "127.0.0.1:0" });
    expect(serve.sessionCount).toBe(0);
    const results: pg.QueryResult[] = [];
    for (const statement of statementsOf("13-example.sql")) {
      const reachable = statement.includes("CREATE SERVER")
        ? withOptions(statement, { host: edge.host, port: `${edge.port}` })
        : statement;
      results.push(await client.query(reachable));
    }
    expect(results.map(({ command }) => command)).toEqual([
      "CREATE",
      "CREATE",
      "SELECT",
      "SELECT",
      "CREATE",
      "CREATE",
      "SELECT",
      "SELECT",
      "SELECT",
    ]);
    expect(results[3]!.rows).toEqual([expect.objectContaining({ server_id: independent.info!.server_id })]);
    const subscription = independent.subscribe("sub.ject", { max: 1 });
    await independent.flush();
    await client.query(statementsOf("05-publish.sql")[0]!);
    for await (const message of subscription) expect(message.string()).toBe("hello");
  } finally {
    await independent.close();
    await client.end();
  }
});
