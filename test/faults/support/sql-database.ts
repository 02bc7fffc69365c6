/**
 * A database with the SQL functions of `hawser init`, for which nobody serves yet.
 */
import pg from "pg";
import { install } from "../../../src/store/index.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { defineServer } from "../../support/gateway.js";

/** Makes one of the test's own, whose NATS server is the given one. */
export async function sqlDatabase(natsUrl: string): Promise<TestDatabase> {
  const database = await testDatabase();
  try {
    await prepareForSql(database.url, natsUrl);
    return database;
  } catch (error) {
    await database.drop();
    throw error;
  }
}

/** Makes everything that `hawser init` makes, and defines the NATS server. */
export async function prepareForSql(databaseUrl: string, natsUrl: string): Promise<void> {
  await install({ databaseUrl });
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await defineServer(client, natsUrl);
  } finally {
    await client.end();
  }
}
