/**
 * Preparing a database: migrations, roles, grants, and the NATS half; and what the installing role could not do.
 */
import type pg from "pg";
import { grantedRoles, grants, grantsSql, makeGrants } from "./grants.js";
import { type Place, transactionText, withInstaller } from "./installer.js";
import { applyMissing, migrationSql, missingSteps } from "./migrate.js";
import {
  checkNats,
  installNats,
  type NatsInstallation,
  type NatsReport,
  natsRoles,
  planNats,
} from "./nats/install-nats.js";
import { defaultFunctionsSchema } from "./nats/objects.js";
import type { NatsShortfalls } from "./nats/shortfalls.js";
import { pathWarnings } from "./path-warnings.js";
import { presentMembers, roleWarnings } from "./role-warnings.js";
import { lookAtSchema } from "./schema-trust.js";
import { findShortfalls, foreseeFailure, foreseeShortfalls, type Shortfall } from "./shortfalls.js";
import { superuserErrands } from "./superuser-errands.js";
import { surplusGrants } from "./surplus-grants.js";
import { takeTurn } from "./turn.js";

/** What was done, or would be. */
export interface InstallReport extends Place {
  /** The migrations that were applied, or would be. */
  readonly migrations: readonly { readonly id: number; readonly name: string }[];
  /** What there is of the NATS half, for a dry run: what there was; null if it was not wanted. */
  readonly nats: NatsReport | null;
  /** What this role may not do, one entry for each; first what keeps NATS from SQL from working. Everything else works. */
  readonly shortfalls: readonly Shortfall[];
  /** NATS from SQL was wanted, and its functions are missing or fail; for a dry run: would be. */
  readonly partial: boolean;
  /**
   * What a superuser has to run for this role, one statement each: also what would be lacking only after some of them. Empty
   * for a superuser. It makes neither the foreign data wrappers and the event
   * triggers nor the login that calls functions for NATS: a superuser's `hawser init` does.
   */
  readonly superuserSql: readonly string[];
  /**
   * What roles may do beyond what this version gives them, and schemas on the search_path of Hawser's logins in which others
   * may create; one line each, with the statement that takes it away.
   */
  readonly warnings: readonly string[];
  /**
   * What the roles of Hawser, which all databases share, may do beyond what they are for, who may act as its owner, and who
   * was in them before the first installation here.
   */
  readonly roleWarnings: readonly string[];
  /** The SQL, for a dry run; psql runs it as it is. */
  readonly sql?: string;
}

/** What to install, and where. */
export interface InstallOptions {
  readonly databaseUrl?: string | undefined;
  /** Changes nothing and returns the SQL. Default false. */
  readonly dryRun?: boolean | undefined;
  /** False: what peers need and no more. */
  readonly nats?: Partial<NatsInstallation> | false | undefined;
  /** Is told whom it waits for, where somebody else prepares the database for longer than 5 s. */
  readonly onWait?: ((line: string) => void) | undefined;
}

/**
 * Brings the schema to this version and makes its roles, grants and owners; then the NATS half: dblink in a schema of its
 * own, the SQL functions, the foreign data wrappers, the event triggers that follow the server. It may be run again at any
 * time, and by many at once: they take turns.
 *
 * Nothing of the schema `hawser` is touched before it is known whom it belongs to.
 *
 * @throws StoreError as {@link migrate}. Before anything is done: `not_supported` (encoding), `native_extension`,
 * `dblink_shared`, `name_occupied` and `invalid_argument`, of the NATS half alone
 */
export async function install({
  databaseUrl,
  dryRun = false,
  nats = {},
  onWait = () => undefined,
}: InstallOptions): Promise<InstallReport> {
  const installation = nats === false ? undefined : { schema: defaultFunctionsSchema, sharedDblink: false, ...nats };
  return withInstaller(databaseUrl, "prepare the database", async (client, place) => {
    if (!dryRun) await takeTurn(client, onWait);
    await lookAtSchema(client);
    return dryRun ? plan(client, place, installation) : carryOut(client, place, installation);
  });
}

async function carryOut(
  client: pg.Client,
  place: Place,
  installation: NatsInstallation | undefined,
): Promise<InstallReport> {
  if (installation !== undefined) await checkNats(client, installation);
  const roles = rolesFor(installation);
  const { makesSchema } = await missingSteps(client);
  const members = makesSchema ? await presentMembers(client, roles) : [];
  const applied = await applyMissing(client);
  const refusal = await makeGrants(client);
  const nats = installation === undefined ? undefined : await installNats(client, installation);
  const wanted = [...grants, ...(nats?.grants ?? [])];
  const shortfalls = await findShortfalls(client, { roles, grants: wanted, refusal });
  return {
    ...place,
    migrations: applied.map(({ id, name }) => ({ id, name })),
    nats: nats?.report ?? null,
    shortfalls: [...(nats?.shortfalls.essential ?? []), ...shortfalls, ...(nats?.shortfalls.others ?? [])],
    partial: lacksEssential(nats?.shortfalls),
    superuserSql: await superuserErrands(client, roles, nats && { state: nats.state, schema: nats.report.schema }),
    warnings: [...(await surplusGrants(client, wanted)), ...(await pathWarnings(client))],
    roleWarnings: [...members, ...(await roleWarnings(client, roles))],
  };
}

/** Says beforehand by the rights of the role what it will not be able to do. */
async function plan(
  client: pg.Client,
  place: Place,
  installation: NatsInstallation | undefined,
): Promise<InstallReport> {
  const nats = installation === undefined ? undefined : planNats(await checkNats(client, installation), installation);
  const { steps, makesSchema } = await missingSteps(client);
  const sql = [
    ...steps.map((step, n) =>
      transactionText(`migration ${step.id}: ${step.name}`, migrationSql(step, makesSchema && n === 0)),
    ),
    transactionText("roles, grants and owners", grantsSql),
    ...(nats?.pieces ?? []).map((piece) => transactionText(piece.what, piece.sql)),
  ].join("\n");
  const roles = rolesFor(installation);
  const shortfalls = await foreseeShortfalls(client, { roles, grants, migrated: steps.length === 0 });
  return {
    ...place,
    migrations: steps.map(({ id, name }) => ({ id, name })),
    nats: nats?.report ?? null,
    shortfalls: [
      ...(await foreseeFailure(client, roles)),
      ...(nats?.shortfalls.essential ?? []),
      ...shortfalls,
      ...(nats?.shortfalls.others ?? []),
    ],
    partial: lacksEssential(nats?.shortfalls),
    superuserSql: await superuserErrands(client, roles, nats && { state: nats.state, schema: nats.report.schema }),
    warnings: [...(steps.length > 0 ? [] : await surplusGrants(client, grants)), ...(await pathWarnings(client))],
    roleWarnings: [...(makesSchema ? await presentMembers(client, roles) : []), ...(await roleWarnings(client, roles))],
    sql,
  };
}

function lacksEssential(shortfalls: NatsShortfalls | undefined): boolean {
  return shortfalls !== undefined && shortfalls.essential.length > 0;
}

function rolesFor(installation: NatsInstallation | undefined): readonly string[] {
  return installation === undefined ? grantedRoles : [...grantedRoles, ...natsRoles];
}
