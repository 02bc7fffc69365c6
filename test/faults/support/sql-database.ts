/**
 * A database with the SQL functions of `hawser init`, for which nobody serves yet.
 */
import pg from "pg";
import { install } from "../../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "../../support/database.js";
import { defineServer } from "../../support/gateway.js";

/** Makes one of the test's own, whose NATS server is the given one. @param options further ones of that server */
export async function sqlDatabase(
  natsUrl: string,
  options: Readonly<Record<string, string>> = {},
): Promise<TestDatabase> {
  const database = await testDatabase();
  await defineServerIn(database.url, natsUrl, options);
  return database;
}

/** Makes everything that `hawser init` makes in a database of another server, and defines the NATS server. */
export async function prepareForSql(databaseUrl: string, natsUrl = testNatsUrl()): Promise<void> {
  await install({ databaseUrl });
  await defineServerIn(databaseUrl, natsUrl);
}

async function defineServerIn(
  databaseUrl: string,
  natsUrl: string,
  options: Readonly<Record<string, string>> = {},
): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await defineServer(client, natsUrl, options);
  } finally {
    await client.end();
  }
}
