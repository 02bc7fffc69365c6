/**
 * A connection for a command that looks at the database, or changes a little, and leaves: no session, no leases.
 */
import { tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import { DatabaseAddress } from "../postgres/index.js";
import { silentLogger, systemClock } from "../runtime/index.js";
import { Database } from "./database.js";
import { explainRefusal } from "./missing-privileges.js";

/**
 * Runs `work` with one connection to a database that has the schema.
 *
 * @param databaseUrl a connection URI; without it the PG* variables say where
 * @throws StoreError `store_failed` if Postgres cannot be reached within `databaseConnectTimeoutMs`, or if the role may not
 * use the schema, saying what gives it the right; `schema_missing` if the database has none
 */
export async function withCommandDatabase<T>(
  databaseUrl: string | undefined,
  work: (database: Database) => Promise<T>,
): Promise<T> {
  const database = new Database(DatabaseAddress.of(databaseUrl), {
    clock: systemClock,
    logger: silentLogger,
    poolSize: 1,
    pooled: false,
  });
  try {
    const schema = await lookFor(database);
    if (schema?.exists !== true) {
      throw new StoreError(
        "schema_missing",
        `the database "${schema?.name}" has no schema hawser; run \`hawser init\` on it first`,
      );
    }
    return await work(database);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    throw await explainRefusal(askedOf(database), "use the schema hawser", error);
  } finally {
    await database.close();
  }
}

async function lookFor(database: Database): Promise<{ readonly name: string; readonly exists: boolean } | undefined> {
  const action = "look for the schema hawser";
  try {
    const [schema] = await database.query<{ name: string; exists: boolean }>(action, {
      text: "SELECT current_database() AS name, to_regclass($1) IS NOT NULL AS exists",
      values: [tables.migration],
    });
    return schema;
  } catch (cause) {
    throw await explainRefusal(askedOf(database), action, cause);
  }
}

function askedOf(database: Database) {
  return { query: async (text: string) => ({ rows: await database.query("read what a login may do", { text }) }) };
}
