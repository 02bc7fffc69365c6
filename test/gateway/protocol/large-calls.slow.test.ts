import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { testDatabase } from "../../support/database.js";
import { onServer } from "../../support/on-server.js";
import { connectionString, startServer } from "./test-server.js";

const bytes = 100 * 1024 * 1024;

it("dblink sends and gets 100 MiB", async () => {
  await using database = await testDatabase({ migrated: false });
  await onServer(database.url, "CREATE EXTENSION dblink");
  const client = new pg.Client({ connectionString: database.url });
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  const server = await startServer({ maxRequestBytes: bytes });
  const text = `repeat('0123456789abcdef', ${bytes / 16})`;
  const { rows } = await client.query({
    text: `SELECT length(r) AS length, md5(r) = md5(${text}) AS same FROM dblink($1, ${text}) AS t(r text)`,
    values: [connectionString(server)],
  });
  expect(rows).toEqual([{ length: bytes, same: true }]);
});
