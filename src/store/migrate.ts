/** Migrates a database's schema to this version. */
import pg from "pg";
import { type MigrationRow, tables } from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import { openSession, refuseTransactionPooler, sourceOf } from "../postgres/index.js";
import { type Logger, silentLogger } from "../runtime/index.js";
import { columnsOf } from "./columns.js";
import { makeGrants, tryTransaction } from "./grants.js";
import { takeInstallationLock } from "./installation-lock.js";
import { checksumOf, type Migration, type MigrationPart, migrations, partsOf } from "./migrations.js";
import { explainRefusal, type HawserRole, noSchema } from "./missing-privileges.js";
import { Preparation } from "./preparation.js";
import { type CatalogReader, inspectSchema, newSchemaSql, tableSchema } from "./schema.js";
import { scriptFailure, storeFailure } from "./store-failure.js";
import { refuseHarmfulState, stateDifferences, stateRepairsSql } from "./table-state.js";

/** Options of {@link migrate}. */
export interface MigrateOptions {
  readonly databaseUrl?: string | undefined;
  /** Pool of the user, instead of `databaseUrl`. */
  readonly pool?: pg.Pool | undefined;
  readonly logger?: Logger | undefined;
  /** Role that the login should be a member of if it lacks privileges. Default `hawser_peer`. */
  readonly role?: HawserRole | undefined;
  /** Purpose of the call, to follow "could not" in an error. Default `migrate the schema hawser`. */
  readonly action?: string | undefined;
  /** True if the caller needs a session afterwards: a transaction pooler is refused. */
  readonly needsSession?: boolean | undefined;
  /** True to refuse a database without any applied step. Default false: the schema is created. */
  readonly needsSchema?: boolean | undefined;
  /** Aborts the migration at once, even if Postgres does not answer. */
  readonly signal?: AbortSignal | undefined;
}

/** Result of {@link migrate}. */
export interface MigrationReport {
  /** Ids of the steps that this call applied; empty if there was nothing to do. */
  readonly applied: readonly number[];
  /**
   * Statements that the installing role may not run, one line each: missing roles, grants and ownership. Everything
   * else works; peers then run as the role that owns the schema.
   */
  readonly leftOut: readonly string[];
}

const row = columnsOf<MigrationRow>()("id", "name", "checksum");

const sql = {
  applied: `SELECT ${row.sql()} FROM ${tables.migration} ORDER BY id`,
  index: `
    SELECT i.indisvalid AND i.indisready AS valid
      FROM pg_catalog.pg_index AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = '${tableSchema}' AND c.relname = $1`,
} as const;

/**
 * Applies the missing migrations part by part, and yields to sessions that hold a lock that a migration needs.
 * Processes may call it concurrently: one works while the others wait. An up-to-date schema is recognised without any
 * lock, with the privileges of a peer.
 *
 * @throws HawserError `transaction_pooler`; `name_occupied` if the schema or an object in it is not Hawser's;
 * `schema_too_new` if the database has a migration that this version does not know; `schema_missing` if a step is
 * missing and the role may not apply it, or if `needsSchema` is set and there is no schema; `store_failed` if Postgres
 * is unreachable or refuses, if a session named in the message holds a lock for too long, or if an applied migration
 * differs from the one of this version
 */
export async function migrate(
  options: MigrateOptions = {},
  steps: readonly Migration[] = migrations,
): Promise<MigrationReport> {
  const { logger = silentLogger, role, action = "migrate the schema hawser", signal } = options;
  signal?.throwIfAborted();
  const leftOut: string[] = [];
  let candidate: pg.Client | undefined;
  const end = (): void => void candidate?.connection.stream.destroy();
  signal?.addEventListener("abort", end);
  let client: pg.Client | undefined;
  try {
    const address = sourceOf(options);
    const session = await openSession(address, {
      onClient: (opening) => {
        candidate = opening;
        if (signal?.aborted === true) end();
        opening.on("error", (err) => logger.debug({ err }, "the connection of a migration failed"));
        opening.on("notice", ({ message }) => {
          if (message !== undefined) leftOut.push(message);
        });
      },
    });
    ({ client } = session);
    if (options.needsSession === true) await refuseTransactionPooler(address, session);
    if (options.needsSchema === true && (await missingSteps(client, steps)).steps.length === steps.length)
      throw noSchema(address.described.database);
    const onWait = (line: string): void => logger.warn({}, line);
    const preparation = new Preparation(client, { address, onWait, signal });
    const report = await migrateWith(preparation, steps, leftOut, onWait);
    for (const line of report.leftOut) logger.warn({}, `migration: ${line}`);
    if (report.applied.length > 0) logger.info({ applied: report.applied }, "migrated the schema hawser");
    return report;
  } catch (cause) {
    signal?.throwIfAborted();
    throw client === undefined ? storeFailure(action, cause) : await explainRefusal(client, action, cause, role);
  } finally {
    signal?.removeEventListener("abort", end);
    await client?.end().catch(() => undefined);
  }
}

async function migrateWith(
  preparation: Preparation,
  steps: readonly Migration[],
  leftOut: string[],
  onWait: (line: string) => void,
): Promise<MigrationReport> {
  const { client } = preparation;
  const work = async (): Promise<readonly Migration[]> => {
    const todo = await applyMissing(preparation, steps);
    // Takes the lock by its row, which may not have existed before.
    await takeInstallationLock(client, onWait);
    // Notices of the migration statements are dropped. Only those of the grants are reported.
    leftOut.length = 0;
    if (todo.length > 0) {
      // Grants are made separately from the steps, so that a refused grant does not prevent the creation of the schema.
      const refused = await makeGrants(preparation);
      if (refused !== undefined) leftOut.push(`the grants were left out: ${refused}`);
    }
    return todo;
  };
  let applied: readonly Migration[] = [];
  if ((await missingSteps(client, steps)).steps.length > 0) {
    await takeInstallationLock(client, onWait);
    applied = await wholeIfNew(preparation, steps, work);
  }
  await refuseHarmfulState(client, "session");
  return { applied: applied.map(({ id }) => id), leftOut };
}

/**
 * Runs `work`, which applies the missing steps. In a database without any step, all of it is one transaction, which
 * leaves nothing behind if it fails, or if the new tables are not in the state in which Hawser creates them: an event
 * trigger can change them.
 *
 * @throws HawserError `schema_missing` for such a state; errors of `work`
 */
export async function wholeIfNew<T>(
  preparation: Preparation,
  steps: readonly Migration[],
  work: () => Promise<T>,
): Promise<T> {
  if (!(await missingSteps(preparation.client, steps)).isNew) return work();
  return preparation.whole(async () => {
    const result = await work();
    await refuseHarmfulState(preparation.client, "anyone");
    return result;
  });
}

/**
 * Applies the missing steps, and repairs what others have done to their tables meanwhile. Call it after
 * {@link takeInstallationLock}.
 */
export async function applyMissing(
  preparation: Preparation,
  steps: readonly Migration[] = migrations,
): Promise<readonly Migration[]> {
  const { makesSchemas, isNew, steps: todo } = await missingSteps(preparation.client, steps);
  for (const [n, step] of todo.entries())
    await apply(preparation, step, { isNew, makesSchemas: n === 0 ? makesSchemas : [] });
  if (todo.length > 0) await repairState(preparation);
  return todo;
}

/** Repairs the state of the tables. If the role may not, the next inspection reports what is left. */
export async function repairState(preparation: Preparation): Promise<void> {
  const repairs = stateRepairsSql(await stateDifferences(preparation.client));
  if (repairs !== undefined) await tryTransaction(preparation, "repair the state of the tables", repairs);
}

/** Steps that a database lacks. */
export interface MissingSteps {
  readonly steps: readonly Migration[];
  /** True if no step was applied, so that the database has no users of the schema. */
  readonly isNew: boolean;
  /** Schemas that do not exist, so that the first step creates them. */
  readonly makesSchemas: readonly string[];
}

/** Returns the steps that the database lacks, after checking the applied ones. @throws HawserError as {@link migrate} */
export async function missingSteps(
  reader: CatalogReader,
  steps: readonly Migration[] = migrations,
): Promise<MissingSteps> {
  const { missing, migrated, hidden } = await inspectSchema(reader);
  if (hidden) await refuseHarmfulState(reader, "session");
  if (!migrated) return { steps, isNew: true, makesSchemas: missing };
  const rows = (await reader.query(sql.applied)).rows as readonly (typeof row.row)[];
  const known = new Map(steps.map((step) => [step.id, step]));
  for (const applied of rows) {
    const step = known.get(applied.id);
    if (step === undefined) {
      throw new HawserError(
        "schema_too_new",
        `the database has migration ${applied.id} (${applied.name}), and this version knows only ${steps.length}; upgrade the program`,
      );
    }
    if (checksumOf(step) !== applied.checksum) {
      throw new HawserError(
        "store_failed",
        `migration ${applied.id} (${applied.name}) was changed after it had been applied: a version between two releases has migrated this database`,
        {
          remedy:
            "If nothing in it is needed, drop the schemas (DROP SCHEMA hawser, hawser_data CASCADE) and run `hawser init`",
        },
      );
    }
  }
  const applied = new Set(rows.map(({ id }) => id));
  return { steps: steps.filter(({ id }) => !applied.has(id)), isNew: false, makesSchemas: [] };
}

/** Parts of a step as psql would run them, including its record. For a new database, a single transaction. */
export function migrationTransactions(
  step: Migration,
  { isNew, makesSchemas }: Pick<MissingSteps, "isNew" | "makesSchemas">,
): MigrationPart[] {
  const record = { id: step.id, name: step.name, checksum: checksumOf(step) };
  const values = row.names.map((name) => pg.escapeLiteral(String(record[name]))).join(", ");
  const head = makesSchemas.map((name) => `${newSchemaSql(name)}\n\n`).join("");
  const tail = `\n\nINSERT INTO ${tables.migration} (${row.sql()}) VALUES (${values});`;
  return partsOf(step, isNew).map((part, n, { length }) => ({
    ...part,
    sql: `${n === 0 ? head : ""}${part.sql.trim()}${n === length - 1 ? tail : ""}`,
  }));
}

async function apply(
  preparation: Preparation,
  step: Migration,
  made: Pick<MissingSteps, "isNew" | "makesSchemas">,
): Promise<void> {
  const { client } = preparation;
  const action = `apply migration ${step.id} (${step.name})`;
  for (const part of migrationTransactions(step, made)) {
    const work = async (): Promise<void> => void (await client.query(part.sql));
    try {
      if (part.isTransaction) await preparation.transaction(action, work, part.tables);
      else await preparation.outsideTransaction(action, () => runOutside(client, part));
    } catch (cause) {
      throw scriptFailure(action, part.sql, cause);
    }
  }
}

/**
 * Creates the index again if an earlier failure left it invalid: writes maintain an invalid index, but no query uses
 * it.
 */
async function runOutside(client: pg.Client, { sql: statement, index }: MigrationPart): Promise<void> {
  if (index !== undefined) {
    const { rows } = await client.query<{ valid: boolean }>(sql.index, [index]);
    if (rows[0]?.valid === true) return;
    if (rows[0]?.valid === false) await client.query(`DROP INDEX CONCURRENTLY ${tableSchema}.${index}`);
  }
  await client.query(statement);
}
