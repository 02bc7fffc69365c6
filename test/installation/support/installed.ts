/**
 * Databases with NATS from SQL.
 */
import { install } from "../../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";

/** Makes a database in which a superuser has installed everything, also in a run whose template another role has installed. */
export async function installedDatabase(): Promise<TestDatabase> {
  const byOthers = Boolean(process.env["HAWSER_TEST_INSTALLER"]);
  const database = await testDatabase({ migrated: !byOthers });
  if (byOthers) await install({ databaseUrl: database.url });
  return database;
}
