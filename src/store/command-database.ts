/**
 * A connection for a command that looks at the database, or changes a little, and leaves: no session, no leases.
 */
import { tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import { DatabaseAddress } from "../postgres/index.js";
import { silentLogger, systemClock } from "../runtime/index.js";
import { Database } from "./database.js";
import { missingSteps } from "./migrate.js";
import { explainRefusal, noSchema } from "./missing-privileges.js";
import type { Asked } from "./schema.js";

/**
 * Runs `work` with one connection to a database that has the schema of this version.
 *
 * @param databaseUrl a connection URI; without it the PG* variables say where
 * @throws StoreError `store_failed` if Postgres cannot be reached within `databaseConnectTimeoutMs`, or if the role may not
 * use the schema, saying what gives it the right; `schema_missing` if the database has none, or an older one; `schema_too_new`; `name_occupied` as
 * `inspectSchema`
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
    const { name, exists, owner } = await lookFor(database);
    if (!exists) throw noSchema(name);
    const { steps } = await missingSteps(askedOf(database, "read the migrations"));
    if (steps.length > 0) {
      throw new StoreError(
        "schema_missing",
        `the schema hawser of the database "${name}" is older than this program: run \`hawser init\` as its owner, "${owner}"`,
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

interface FoundSchema {
  /** Of the database. */
  readonly name: string;
  readonly exists: boolean;
  readonly owner: string | null;
}

async function lookFor(database: Database): Promise<FoundSchema> {
  const action = "look for the schema hawser";
  try {
    const [schema] = await database.query<FoundSchema>(action, {
      text: `SELECT current_database() AS name, to_regclass($1) IS NOT NULL AS exists,
                    (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser') AS owner`,
      values: [tables.migration],
    });
    return schema!;
  } catch (cause) {
    throw await explainRefusal(askedOf(database), action, cause);
  }
}

function askedOf(database: Database, action = "read what a login may do"): Asked {
  return { query: async (text) => ({ rows: await database.query(action, { text }) }) };
}
