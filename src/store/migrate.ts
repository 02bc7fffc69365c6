/**
 * Brings a database's schema to this version.
 */
import pg from "pg";
import { type MigrationRow, tables } from "../../generated/ts/rows/peer.js";
import { StoreError } from "../errors/index.js";
import { DatabaseAddress, isServerError, openSession, refuseTransactionPooler } from "../postgres/index.js";
import { type Logger, silentLogger } from "../runtime/index.js";
import { columnsOf, parameters } from "./columns.js";
import { makeGrants } from "./grants.js";
import { checksumOf, type Migration, migrations } from "./migrations.js";
import { explainRefusal, type HawserRole, noSchema } from "./missing-privileges.js";
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
  record: `INSERT INTO ${tables.migration} (${row.sql()}) VALUES (${parameters(row)})`,
} as const;

/**
 * Applies the migrations that the database does not have yet, each in a transaction of its own. Many processes may call
 * it at once: one works, the others wait for it. Where nothing is to be done, which is found out without any lock, the
 * rights of a peer suffice.
 *
 * @throws StoreError `transaction_pooler`; `name_occupied` if the schema, or something in it, is not Hawser's;
 * `schema_too_new` if the database has a migration that this version does not know; `schema_missing` if there is
 * something to do and the role may not, or no schema where one is needed; `store_failed` if Postgres cannot be reached or refuses, or if an applied
 * migration is not the one that this version has
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
    const report = await migrateWith(client, steps, leftOut, (line) => logger.warn({}, line));
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
  client: pg.Client,
  steps: readonly Migration[],
  leftOut: string[],
  tell: (line: string) => void,
): Promise<MigrationReport> {
  if ((await missingSteps(client, steps)).steps.length === 0) return { applied: [], leftOut: [] };
  await takeTurn(client, tell);
  const todo = await applyMissing(client, steps);
  // By its row, which may not have been there before.
  await takeTurn(client, tell);
  // What the statements themselves have to say is not for anybody's eyes; what is left out is.
  leftOut.length = 0;
  if (todo.length > 0) {
    // Apart from the steps: what may not be granted does not keep the schema from being made.
    const refused = await makeGrants(client);
    if (refused !== undefined) leftOut.push(`the grants were left out: ${refused}`);
  }
  return { applied: todo.map(({ id }) => id), leftOut };
}

/** Applies the steps that the database lacks; after {@link takeTurn}. */
export async function applyMissing(
  client: pg.Client,
  steps: readonly Migration[] = migrations,
): Promise<readonly Migration[]> {
  const { makesSchema, steps: todo } = await missingSteps(client, steps);
  for (const [n, step] of todo.entries()) await apply(client, step, makesSchema && n === 0);
  return todo;
}

/** What a database lacks. */
export interface MissingSteps {
  readonly steps: readonly Migration[];
  /** There is no schema `hawser`: the first step makes it. */
  readonly makesSchema: boolean;
}

/** The steps that the database lacks, after having checked those that it has. @throws StoreError as {@link migrate} */
export async function missingSteps(asked: Asked, steps: readonly Migration[] = migrations): Promise<MissingSteps> {
  const { exists, migrated } = await inspectSchema(asked);
  if (!migrated) return { steps, makesSchema: !exists };
  const rows = (await asked.query(sql.applied)).rows as readonly (typeof row.row)[];
  const known = new Map(steps.map((step) => [step.id, step]));
  for (const applied of rows) {
    const step = known.get(applied.id);
    if (step === undefined) {
      throw new StoreError(
        "schema_too_new",
        `the database has migration ${applied.id} (${applied.name}), and this version knows only ${steps.length}; upgrade the program`,
      );
    }
    if (checksumOf(step) !== applied.checksum) {
      throw new StoreError(
        "store_failed",
        `migration ${applied.id} (${applied.name}) was changed after it had been applied to this database, which is of a state between two releases`,
        { hint: "If nothing in it is needed, drop the schema (DROP SCHEMA hawser CASCADE) and run `hawser init`" },
      );
    }
  }
  const applied = new Set(rows.map(({ id }) => id));
  return { steps: steps.filter(({ id }) => !applied.has(id)), makesSchema: false };
}

/** A step as psql would run it, its record included. The first one where there is no schema makes that itself. */
export function migrationSql(step: Migration, makesSchema = false): string {
  const record = { id: step.id, name: step.name, checksum: checksumOf(step) };
  const values = row.names.map((name) => pg.escapeLiteral(String(record[name]))).join(", ");
  return `${makesSchema ? `${newSchemaSql("hawser")}\n\n` : ""}${step.sql.trim()}\n\nINSERT INTO ${tables.migration} (${row.sql()}) VALUES (${values});`;
}

/** Running peers lock tables in an order of their own: a step that alters them may be the one that Postgres gives up. */
const deadlock = "40P01";
const deadlockTries = 5;

async function apply(client: pg.Client, step: Migration, makesSchema: boolean): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await client.query("BEGIN");
      if (makesSchema) await client.query(newSchemaSql("hawser"));
      await client.query(step.sql);
      const record = { id: step.id, name: step.name, checksum: checksumOf(step) };
      await client.query(
        sql.record,
        row.names.map((name) => record[name]),
      );
      await client.query("COMMIT");
      return;
    } catch (cause) {
      await client.query("ROLLBACK").catch(() => undefined);
      if (isServerError(cause) && cause.code === deadlock && tries < deadlockTries) continue;
      throw scriptFailure(`apply migration ${step.id} (${step.name})`, step.sql, cause);
    }
  }
}
