/** Migrates a database's schema to this version. */
import pg from "pg";
import { type MigrationRow, tables } from "../../../generated/ts/rows/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import {
  openSession,
  type PostgresSession,
  refuseTransactionPooler,
  sourceOf,
  sqlstateOf,
} from "../../foundation/postgres/index.js";
import { type Logger, silentLogger } from "../../foundation/runtime/index.js";
import { columnsOf, scriptFailure, storeFailure } from "../store/index.js";
import { runTransaction, tryTransaction } from "./grants.js";
import { takeInstallationLock } from "./installation-lock.js";
import {
  checksumOf,
  functionsChecksum,
  type Migration,
  type MigrationPart,
  type ProgramSchema,
  partsOf,
  programSchema,
  sha256,
} from "./migrations.js";
import { explainRefusal, type HawserRole, noSchema } from "./missing-privileges.js";
import { Preparation } from "./preparation.js";
import { type CatalogReader, dropSchemasSql, inspectSchema, newSchemaSql, tableSchemaNames } from "./schema.js";
import { adoptRoles, behindSequences, raiseSequences } from "./sequences.js";
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

const row = columnsOf<MigrationRow>()("id", "name", "checksum", "oldest_program", "functions");

const sql = {
  applied: `SELECT ${row.sql()} FROM ${tables.migration} ORDER BY id`,
  // For those who may not name the table.
  appliedFor: `SELECT ${row.sql()} FROM hawser.applied_migrations() ORDER BY id`,
  index: `
    SELECT i.indisvalid AND i.indisready AS valid, n.nspname AS schema
      FROM pg_catalog.pg_index AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ${tableSchemaNames} AND c.relname = $1`,
} as const;

/**
 * Applies the missing migrations part by part, and yields to sessions that hold a lock that a migration needs. The last
 * part also replaces the functions and views and makes their grants. If only these differ, they are replaced in a
 * transaction of their own. A schema of a newer version that this program can work with is left as it is.
 *
 * Processes may call it concurrently: one works while the others wait. An up-to-date schema is recognised without any
 * lock, with the privileges of a peer.
 *
 * @throws HawserError `transaction_pooler`; `name_occupied` if the schema or an object in it is not Hawser's, or if an
 * object of others depends on a function or view that has to be dropped; `schema_too_new` if the database has a
 * migration for which this program is too old; `schema_missing` if a step is missing and the role may not apply it, or
 * if `needsSchema` is set and there is no schema; `store_failed` if Postgres is unreachable or refuses, if a session
 * named in the message holds a lock for too long, or if a version that was not released has made the schema
 */
export async function migrate(
  options: MigrateOptions = {},
  program: ProgramSchema = programSchema,
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
        // Only what the grants leave out is raised by a statement. Other notices name what IF EXISTS has skipped.
        opening.on("notice", ({ message, routine }) => {
          if (message !== undefined && routine === "exec_stmt_raise" && !leftOut.includes(message))
            leftOut.push(message);
        });
      },
    });
    ({ client } = session);
    if (options.needsSession === true) await refuseTransactionPooler(address, session);
    const missing = await missingSteps(client, program);
    if (options.needsSchema === true && missing.isNew) throw noSchema(address.described.database);
    const onWait = (line: string): void => logger.warn({}, line);
    const preparation = new Preparation(client, { address, onWait, signal });
    const applied = await migrateWith(preparation, missing, program, onWait);
    const report = { applied: applied.map(({ id }) => id), leftOut };
    for (const line of report.leftOut) logger.warn({}, `migration: ${line}`);
    for (const line of await raiseSequences(client)) logger.warn({}, `${line}; it was raised`);
    for (const line of await adoptRoles(client)) logger.warn({}, line);
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
  missing: MissingSteps,
  program: ProgramSchema,
  onWait: (line: string) => void,
): Promise<readonly Migration[]> {
  const { client } = preparation;
  const work = async (): Promise<readonly Migration[]> => {
    const todo = await applyMissing(preparation, program);
    // Takes the lock by its row, which may not have existed before.
    await takeInstallationLock(client, onWait);
    return todo;
  };
  let applied: readonly Migration[] = [];
  if (!missing.isComplete) {
    await takeInstallationLock(client, onWait);
    applied = await wholeIfNew(preparation, work, program);
  }
  await refuseHarmfulState(client, "session");
  return applied;
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
  work: () => Promise<T>,
  program: ProgramSchema = programSchema,
): Promise<T> {
  if (!(await missingSteps(preparation.client, program)).isNew) return work();
  return preparation.whole(async () => {
    const result = await work();
    await refuseHarmfulState(preparation.client, "anyone");
    return result;
  });
}

/**
 * Applies the missing steps, replaces the functions, and repairs what others have done to the tables meanwhile. Call it
 * after {@link takeInstallationLock}.
 */
export async function applyMissing(
  preparation: Preparation,
  program: ProgramSchema = programSchema,
): Promise<readonly Migration[]> {
  const missing = await missingSteps(preparation.client, program);
  for (const part of plannedTransactions(missing, program)) await apply(preparation, part);
  if (missing.steps.length > 0) await repairState(preparation);
  return missing.steps;
}

/** Repairs the state of the tables. If the role may not, the next inspection reports what is left. */
export async function repairState(preparation: Preparation): Promise<void> {
  const repairs = stateRepairsSql(await stateDifferences(preparation.client));
  if (repairs !== undefined) await tryTransaction(preparation, "repair the state of the tables", repairs);
}

/**
 * Returns true if the database has the schema of this program, or one that it can work with, in a state that loses nothing,
 * and no sequence is behind.
 * If the answer is false, {@link migrate} mends or reports what is wrong.
 */
export async function isReady(session: PostgresSession, logger: Logger): Promise<boolean> {
  // A session that lives on plans these long statements once, and not once for each peer of the process.
  const query = async (text: string) => ({ rows: await session.query({ name: statementName(text), text }) });
  try {
    if (!(await missingSteps({ query })).isComplete) return false;
    await refuseHarmfulState({ query }, "session");
    return (await behindSequences({ query })).length === 0;
  } catch (err) {
    logger.debug({ err }, "the session of the peers could not tell that the schema is ready; another one looks");
    return false;
  }
}

const statementName = (text: string): string => sha256(text).slice(0, 40);

/** Difference of a database from the schema of a program. */
export interface MissingSteps {
  /** Steps that the database lacks. */
  readonly steps: readonly Migration[];
  /** True if no step was applied, so that the database has no users of the schema. */
  readonly isNew: boolean;
  /** Schemas that do not exist, so that the first step creates them. */
  readonly makesSchemas: readonly string[];
  /** Number of the last applied step; 0 if there is none. */
  readonly lastStep: number;
  /** Number of the step whose functions the database has; 0 if it has none. An upgrade may end between two steps. */
  readonly functionsStep: number;
  /** True if no step is missing and the functions are those of the program, or of a newer one. */
  readonly isComplete: boolean;
  /** Last step of the database, if a newer program has applied it. This program can work with it. */
  readonly newer?: Pick<Migration, "id" | "name">;
}

/** Returns true if the database has exactly the schema of this program. */
export const isCurrent = ({ isComplete, newer }: MissingSteps): boolean => isComplete && newer === undefined;

/** Returns what the database lacks, after checking the applied steps. @throws HawserError as {@link migrate} */
export async function missingSteps(
  reader: CatalogReader,
  program: ProgramSchema = programSchema,
): Promise<MissingSteps> {
  const { steps } = program;
  const { missing: makesSchemas, migrated, readable, hidden } = await inspectSchema(reader);
  if (hidden) await refuseHarmfulState(reader, "session");
  if (!migrated) return { steps, isNew: true, makesSchemas, lastStep: 0, functionsStep: 0, isComplete: false };
  const rows = (await reader.query(readable ? sql.applied : sql.appliedFor)).rows as readonly (typeof row.row)[];
  const known = new Map(steps.map((step) => [step.id, step]));
  for (const applied of rows) {
    const step = known.get(applied.id);
    if (applied.oldest_program > steps.length) {
      throw new HawserError(
        "schema_too_new",
        `the database has migration ${applied.id} (${applied.name}), and this version knows only ${steps.length}; upgrade the program`,
      );
    }
    if (step !== undefined && checksumOf(step) !== applied.checksum) {
      throw new HawserError(
        "store_failed",
        `migration ${applied.id} (${applied.name}) was changed after it had been applied: a version between two releases has migrated this database. Nothing was done`,
        { remedy: dropRemedy },
      );
    }
  }
  const missing = steps.filter(({ id }) => !rows.some((applied) => applied.id === id));
  const last = rows.at(-1);
  const functionsStep = rows.findLast(({ functions }) => functions !== null)?.id ?? 0;
  const of = { steps: missing, isNew: rows.length === 0, makesSchemas: [], lastStep: last?.id ?? 0, functionsStep };
  if (last !== undefined && !known.has(last.id)) return { ...of, isComplete: true, newer: last };
  return { ...of, isComplete: missing.length === 0 && last?.functions === functionsChecksum(program) };
}

const dropRemedy = `If nothing in it is needed, drop the schemas (${dropSchemasSql}) and run \`hawser init\`; for \`hawser dev\`, name a new directory`;

/** Part of the changes that a database needs. */
export interface PlannedPart extends MigrationPart {
  /** Heading, such as `migration 2: outbox`. */
  readonly what: string;
  /** The same, to follow "could not" in an error. */
  readonly action: string;
}

/**
 * Changes that a database needs, as psql would run them. The functions belong to the last part, so that nobody meets a
 * function without its grants, or one that lacks its tables.
 */
export function plannedTransactions(
  { steps, isNew, makesSchemas, lastStep, functionsStep, isComplete }: Omit<MissingSteps, "newer">,
  program: ProgramSchema = programSchema,
): PlannedPart[] {
  if (isComplete) return [];
  const checksum = functionsChecksum(program);
  const dropped = program.dropped.filter(({ step }) => functionsStep > 0 && step >= functionsStep);
  const drops = (last: boolean) => dropped.filter((one) => one.last === last).map(({ sql }) => sql);
  const functions = [...drops(false), program.functions, ...drops(true)].join("\n").trim();
  if (steps.length === 0) {
    const record = `UPDATE ${tables.migration} SET functions = '${checksum}' WHERE id = ${lastStep};`;
    const action = "replace the functions and views";
    return [{ what: "functions and views", action, sql: `${record}\n\n${functions}`, isTransaction: true, tables: [] }];
  }
  return steps.flatMap((step, nth) => {
    const isLast = nth === steps.length - 1;
    const head = nth === 0 ? makesSchemas.map((name) => `${newSchemaSql(name)}\n\n`).join("") : "";
    const tail = `\n\n${recordSql(step, isLast ? checksum : null)}${isLast ? `\n\n${functions}` : ""}`;
    return partsOf(step, isNew).map((part, n, { length }) => ({
      ...part,
      what: `migration ${step.id}: ${step.name}`,
      action: `apply migration ${step.id} (${step.name})`,
      sql: `${n === 0 ? head : ""}${part.sql.trim()}${n === length - 1 ? tail : ""}`,
    }));
  });
}

/** Statement that records a step. @param functions checksum of the functions that run behind it; null if others follow */
function recordSql(step: Migration, functions: string | null): string {
  const { id, name, oldestProgram } = step;
  const record: typeof row.row = { id, name, checksum: checksumOf(step), oldest_program: oldestProgram, functions };
  const values = Object.values(record).map((value) => (value === null ? "NULL" : pg.escapeLiteral(String(value))));
  return `INSERT INTO ${tables.migration} (${row.sql()}) VALUES (${values.join(", ")});`;
}

async function apply(preparation: Preparation, part: PlannedPart): Promise<void> {
  const { action } = part;
  try {
    if (part.isTransaction) await runTransaction(preparation, action, part.sql, part.tables);
    else await preparation.outsideTransaction(action, () => runOutside(preparation.client, part));
  } catch (cause) {
    throw sqlstateOf(cause) === dependentObjects
      ? inUse(cause as pg.DatabaseError)
      : scriptFailure(action, part.sql, cause);
  }
}

/** SQLSTATE of a DROP of an object on which others depend. */
export const dependentObjects = "2BP01";

/** Error for objects of others that depend on a function or view which has to be dropped. */
export function inUse(error: pg.DatabaseError): HawserError {
  return new HawserError(
    "name_occupied",
    `a function or view that this version declares differently is in use: ${error.message}${error.detail ? ` (${error.detail})` : ""}. ` +
      "Drop the dependent objects, run `hawser init` again, and create them again",
    { cause: error },
  );
}

/**
 * Creates the index again if an earlier failure left it invalid: writes maintain an invalid index, but no query uses
 * it.
 */
async function runOutside(client: pg.Client, { sql: statement, index }: MigrationPart): Promise<void> {
  if (index !== undefined) {
    const { rows } = await client.query<{ valid: boolean; schema: string }>(sql.index, [index]);
    if (rows[0]?.valid === true) return;
    if (rows[0]?.valid === false) await client.query(`DROP INDEX CONCURRENTLY ${rows[0].schema}.${index}`);
  }
  await client.query(statement);
}
