/**
 * Preparing a database: migrations, roles, grants; and what the installing role could not do.
 */
import pg from "pg";
import { connectionSettings } from "./connection-settings.js";
import { grantedRoles, grants, grantsSql, makeGrants } from "./grants.js";
import { applyMissing, migrationSql, missingSteps } from "./migrate.js";
import { explainRefusal } from "./missing-rights.js";
import { findShortfalls, foreseeShortfalls, type Shortfall } from "./shortfalls.js";

/** What was done, or would be. */
export interface InstallReport {
  readonly database: string;
  /** The role that did it. */
  readonly role: string;
  /** The migrations that were applied, or would be. */
  readonly migrations: readonly { readonly id: number; readonly name: string }[];
  /** What this role may not do, one entry for each. Everything else works. */
  readonly shortfalls: readonly Shortfall[];
  /** The SQL, for a dry run; psql runs it as it is. */
  readonly sql?: string;
}

/**
 * Brings the schema to this version and makes its roles, grants and owners. It may be run again at any time, and by many
 * at once: they take turns.
 *
 * @param options.dryRun changes nothing and returns the SQL
 * @throws StoreError as {@link migrate}
 */
export async function install(options: {
  readonly databaseUrl?: string | undefined;
  readonly dryRun?: boolean;
}): Promise<InstallReport> {
  const client = new pg.Client(connectionSettings(options.databaseUrl));
  // The query that is under way reports it.
  client.on("error", () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ database: string; role: string }>(
      "SELECT current_database() AS database, current_user AS role",
    );
    const place = rows[0]!;
    return options.dryRun === true ? await plan(client, place) : await carryOut(client, place);
  } catch (cause) {
    throw await explainRefusal(client, "prepare the database", cause);
  } finally {
    await client.end().catch(() => undefined);
  }
}

type Place = Pick<InstallReport, "database" | "role">;

async function carryOut(client: pg.Client, place: Place): Promise<InstallReport> {
  const applied = await applyMissing(client);
  const refusal = await makeGrants(client);
  const shortfalls = await findShortfalls(client, { roles: grantedRoles, grants, refusal });
  return { ...place, migrations: applied.map(({ id, name }) => ({ id, name })), shortfalls };
}

/** Says beforehand by the rights of the role what it will not be able to do. */
async function plan(client: pg.Client, place: Place): Promise<InstallReport> {
  const steps = await missingSteps(client);
  const sql = [
    ...steps.map((step) => transaction(`migration ${step.id}: ${step.name}`, migrationSql(step))),
    transaction("roles, grants and owners", grantsSql),
  ].join("\n");
  const shortfalls =
    steps.length > 0
      ? await foreseeShortfalls(client, grantedRoles)
      : await findShortfalls(client, { roles: grantedRoles, grants });
  return { ...place, migrations: steps.map(({ id, name }) => ({ id, name })), shortfalls, sql };
}

function transaction(what: string, sql: string): string {
  return `-- ${what}\nBEGIN;\n${sql.trim()}\nCOMMIT;\n`;
}
