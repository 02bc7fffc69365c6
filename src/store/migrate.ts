/**
 * Brings a database's schema to this version.
 */
import pg from "pg";
import { type MigrationRow, tables } from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import { DatabaseAddress, openSession, refuseTransactionPooler } from "../postgres/index.js";
import { type Logger, silentLogger } from "../runtime/index.js";
import { columnsOf } from "./columns.js";
import { makeGrants } from "./grants.js";
import { checksumOf, type Migration, type MigrationPart, migrations, partsOf } from "./migrations.js";
import { explainRefusal, type HawserRole, noSchema } from "./missing-privileges.js";
import { Preparation } from "./preparation.js";
import { type Asked, inspectSchema, newSchemaSql } from "./schema.js";
import { scriptFailure, storeFailure } from "./store-failure.js";
import { takeTurn } from "./turn.js";

/** What to migrate. */
export interface MigrateOptions {
  readonly databaseUrl?: string | undefined;
  readonly logger?: Logger | undefined;
  /** The role that the login should be in, if it is short of rights. Default `hawser_peer`. */
  readonly role?: HawserRole | undefined;
  /** What it is for, to follow "could not" in an error. Default `migrate the schema hawser`. */
  readonly action?: string | undefined;
  /** The caller goes on to need a session: a transaction pooler is refused. */
  readonly needsSession?: boolean | undefined;
  /** A database to which no step was applied is refused. Default false: it is given the schema. */
  readonly needsSchema?: boolean | undefined;
  /** Ends it at once, also where Postgres does not answer. */
  readonly signal?: AbortSignal | undefined;
}

/** What a migration did. */
export interface MigrationReport {
  /** The numbers of the steps that this call applied; empty if there was nothing to do. */
  readonly applied: readonly number[];
  /**
   * What the installing role may not do, one line each: roles that it may not make, grants and ownership that it may not
   * give. Everything else works; peers then run as the role that owns the schema.
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
     WHERE n.nspname = 'hawser' AND c.relname = $1`,
} as const;

/**
 * Applies the migrations that the database does not have yet, part by part, and gives way to sessions that have a lock which
 * it needs. Many processes may call it at once: one works, the others wait for it. Where nothing is to be done, which is found
 * out without any lock, the rights of a peer suffice.
 *
 * @throws HawserError `transaction_pooler`; `name_occupied` if the schema, or something in it, is not Hawser's;
 * `schema_too_new` if the database has a migration that this version does not know; `schema_missing` if there is
 * something to do and the role may not, or no schema where one is needed; `store_failed` if Postgres cannot be reached or refuses, if a
 * session that the message names has a lock for too long, or if an applied migration is not the one that this version has
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
    const address = DatabaseAddress.of(options.databaseUrl);
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
    const tell = (line: string): void => logger.warn({}, line);
    const preparation = new Preparation(client, { address, tell, signal });
    const report = await migrateWith(preparation, steps, leftOut, tell);
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
  tell: (line: string) => void,
): Promise<MigrationReport> {
  const { client } = preparation;
  if ((await missingSteps(client, steps)).steps.length === 0) return { applied: [], leftOut: [] };
  await takeTurn(client, tell);
  const todo = await applyMissing(preparation, steps);
  // By its row, which may not have been there before.
  await takeTurn(client, tell);
  // What the statements themselves have to say is not for anybody's eyes; what is left out is.
  leftOut.length = 0;
  if (todo.length > 0) {
    // Apart from the steps: what may not be granted does not keep the schema from being made.
    const refused = await makeGrants(preparation);
    if (refused !== undefined) leftOut.push(`the grants were left out: ${refused}`);
  }
  return { applied: todo.map(({ id }) => id), leftOut };
}

/** Applies the steps that the database lacks; after {@link takeTurn}. */
export async function applyMissing(
  preparation: Preparation,
  steps: readonly Migration[] = migrations,
): Promise<readonly Migration[]> {
  const { makesSchema, isNew, steps: todo } = await missingSteps(preparation.client, steps);
  for (const [n, step] of todo.entries())
    await apply(preparation, step, { isNew, makesSchema: makesSchema && n === 0 });
  return todo;
}

/** What a database lacks. */
export interface MissingSteps {
  readonly steps: readonly Migration[];
  /** It has none: nobody works in it yet. */
  readonly isNew: boolean;
  /** There is no schema `hawser`: the first step makes it. */
  readonly makesSchema: boolean;
}

/** The steps that the database lacks, after having checked those that it has. @throws HawserError as {@link migrate} */
export async function missingSteps(asked: Asked, steps: readonly Migration[] = migrations): Promise<MissingSteps> {
  const { exists, migrated } = await inspectSchema(asked);
  if (!migrated) return { steps, isNew: true, makesSchema: !exists };
  const rows = (await asked.query(sql.applied)).rows as readonly (typeof row.row)[];
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
        `migration ${applied.id} (${applied.name}) was changed after it had been applied to this database, which is of a state between two releases`,
        { remedy: "If nothing in it is needed, drop the schema (DROP SCHEMA hawser CASCADE) and run `hawser init`" },
      );
    }
  }
  const applied = new Set(rows.map(({ id }) => id));
  return { steps: steps.filter(({ id }) => !applied.has(id)), isNew: false, makesSchema: false };
}

/** The parts of a step as psql would run them, with its record. In a new database it is one transaction. */
export function migrationTransactions(
  step: Migration,
  { isNew, makesSchema }: Pick<MissingSteps, "isNew" | "makesSchema">,
): MigrationPart[] {
  const record = { id: step.id, name: step.name, checksum: checksumOf(step) };
  const values = row.names.map((name) => pg.escapeLiteral(String(record[name]))).join(", ");
  const head = makesSchema ? `${newSchemaSql("hawser")}\n\n` : "";
  const tail = `\n\nINSERT INTO ${tables.migration} (${row.sql()}) VALUES (${values});`;
  return partsOf(step, isNew).map((part, n, { length }) => ({
    ...part,
    sql: `${n === 0 ? head : ""}${part.sql.trim()}${n === length - 1 ? tail : ""}`,
  }));
}

async function apply(
  preparation: Preparation,
  step: Migration,
  made: Pick<MissingSteps, "isNew" | "makesSchema">,
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

/** A failure leaves an invalid index, which each write maintains and no query uses: it is made anew. */
async function runOutside(client: pg.Client, { sql: statement, index }: MigrationPart): Promise<void> {
  if (index !== undefined) {
    const { rows } = await client.query<{ valid: boolean }>(sql.index, [index]);
    if (rows[0]?.valid === true) return;
    if (rows[0]?.valid === false) await client.query(`DROP INDEX CONCURRENTLY hawser.${index}`);
  }
  await client.query(statement);
}
