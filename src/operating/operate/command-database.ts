/** Database connection of a short-lived command. It has neither a session with notifications nor leases. */
import { errorTable } from "../../../generated/ts/errors/errors.js";
import { HawserError } from "../../foundation/errors/index.js";
import { DatabaseAddress, lacksPrivilege, type SessionLimits, sqlstateOf } from "../../foundation/postgres/index.js";
import { type Logger, silentLogger, systemClock } from "../../foundation/runtime/index.js";
import { type CatalogReader, explainRefusal, missingSteps, noSchema } from "../../jobs-and-peers/migrations/index.js";
import { Database } from "../../jobs-and-peers/store/index.js";

/**
 * Runs `work` with one connection to a database that has the schema of this version.
 *
 * @param databaseUrl connection URI; without it, the PG* variables apply
 * @param options.anyLogin true if a login suffices that may not read the version of the schema, which is then not checked
 * @param options.limits as for {@link openDatabase}
 * @param options.readOnly as for {@link openDatabase}
 * @throws HawserError `store_failed` if Postgres cannot be reached within `databaseConnectTimeoutMs`, or if the role
 * lacks privileges, with the GRANT that is needed; `schema_missing` if the schema is absent or older; `schema_too_new`;
 * `name_occupied` as `inspectSchema`; `invalid_argument` for an argument that a function of the schema refuses
 */
export async function withCommandDatabase<T>(
  databaseUrl: string | undefined,
  work: (database: Database) => Promise<T>,
  options: { readonly anyLogin?: boolean; readonly limits?: SessionLimits; readonly readOnly?: boolean } = {},
): Promise<T> {
  const { anyLogin = false, ...others } = options;
  const database = openDatabase(databaseUrl, { poolSize: 1, logger: silentLogger, ...others });
  try {
    const missing = missingSteps(catalogReaderOf(database, "check for the schema hawser"));
    const { isComplete, isNew } = await missing.catch((error: unknown) => {
      if (anyLogin && lacksPrivilege(error)) return { isComplete: true, isNew: false };
      throw error;
    });
    if (!isComplete) throw await outOfDate(database, isNew);
    return await work(database);
  } catch (error) {
    if (!(error instanceof HawserError)) throw error;
    if (error.code === "store_failed" && sqlstateOf(error) === errorTable.invalid_argument.sqlstate) {
      throw new HawserError("invalid_argument", error.message, { cause: error.cause });
    }
    throw await explainRefusal(catalogReaderOf(database), "use the schema hawser", error);
  } finally {
    await database.close();
  }
}

/**
 * Opens a pool of connections for programs that only run short statements. It connects when the first statement runs,
 * and does not check the schema. The caller closes it.
 *
 * @param databaseUrl connection URI; without it, the PG* variables apply
 * @param options.limits limits of each statement; default: those of all statements of Hawser
 * @param options.readOnly true if all transactions are READ ONLY
 * @throws HawserError `invalid_argument` if the URI cannot be parsed
 */
export function openDatabase(
  databaseUrl: string | undefined,
  options: {
    readonly poolSize: number;
    readonly logger: Logger;
    readonly limits?: SessionLimits;
    readonly readOnly?: boolean;
  },
): Database {
  // It may lead through a transaction pooler: its sessions have the prepared statements of other commands, and would keep settings.
  return new Database(DatabaseAddress.of(databaseUrl), { ...options, clock: systemClock, pooled: true });
}

async function outOfDate(database: Database, isAbsent: boolean): Promise<HawserError> {
  const text = `SELECT current_database() AS name, (
      SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser') AS owner`;
  const [row] = await database.query<{ name: string; owner: string | null }>("check for the schema hawser", { text });
  const { name, owner } = row!;
  if (isAbsent) return noSchema(name);
  return new HawserError(
    "schema_missing",
    `the schema hawser of the database "${name}" is older than this program: run \`hawser init\` as its owner, "${owner}"`,
  );
}

function catalogReaderOf(database: Database, action = "read the privileges of the login"): CatalogReader {
  return { query: async (text) => ({ rows: await database.query(action, { text }) }) };
}
