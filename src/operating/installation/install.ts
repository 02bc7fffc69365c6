/**
 * `hawser init`: creates all objects, or describes in a dry run what it would create and what the role may not do; and
 * removes the objects of NATS from SQL. Each operation iterates over the list of objects.
 */
import type pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import {
  DatabaseAddress,
  lacksPrivilege,
  openSession,
  refuseTransactionPooler,
} from "../../foundation/postgres/index.js";
import {
  adoptRoles,
  applyMissing,
  dependentObjects,
  explainRefusal,
  inspectSchema,
  inUse,
  type MissingSteps,
  migrations,
  missingSteps,
  ownSchemas,
  Preparation,
  plannedTransactions,
  raiseSequences,
  repairState,
  takeInstallationLock,
  tryTransaction,
  wholeIfNew,
} from "../../jobs-and-peers/migrations/index.js";
import { scriptFailure, storeFailure } from "../../jobs-and-peers/store/index.js";
import { runSchema } from "./binding-sql.js";
import { subscriptionsSchema } from "./bindings.js";
import { defaultFunctionsSchema } from "./functions.js";
import type { InstalledObject, Removal } from "./object.js";
import { type FoundFault, faultsOf, inspect, objects, queryRunner, refuseConflicts } from "./objects.js";
import { inspectRoles, presentMembers } from "./roles.js";
import { refuseLostTables } from "./schema-objects.js";
import type { Fault, State } from "./state.js";

/** Database and role of an installation. */
interface InstallationTarget {
  readonly database: string;
  readonly role: string;
}

/** Options of NATS from SQL. */
interface NatsInstallation {
  /** Schema of the SQL functions. */
  readonly schema: string;
  /** Accepts that every role may use dblink. */
  readonly sharedDblink: boolean;
}

/** Missing privilege of the installing role. */
export interface MissingPrivilege {
  /** Description of the fault. */
  readonly what: string;
  /** Consequence for users of the database. */
  readonly meaning: string;
  /** Repair. */
  readonly remedy: string;
}

/** State of NATS from SQL. */
interface NatsReport {
  /** Schema of the SQL functions. */
  readonly schema: string;
  /** Null if dblink is not installed. */
  readonly dblinkSchema: string | null;
  /** Number of Hawser's SQL functions in the schema. */
  readonly functions: number;
  /** Foreign data wrappers for CREATE SERVER. */
  readonly wrappers: readonly string[];
  /** True if event triggers report changes of the server at once. */
  readonly eventTriggers: boolean;
  /** Risks, one line each. */
  readonly warnings: readonly string[];
}

/** Result of an installation, or prediction of a dry run. */
export interface InstallReport extends InstallationTarget {
  /** Migrations that were applied, or would be. */
  readonly migrations: readonly { readonly id: number; readonly name: string }[];
  /** State of NATS from SQL; in a dry run, the state before. Null if it was not requested. */
  readonly nats: NatsReport | null;
  /** Missing privileges of the role, first those that prevent NATS from SQL from working. Everything else works. */
  readonly missingPrivileges: readonly MissingPrivilege[];
  /** True if NATS from SQL was requested and its functions are missing or fail, or would in a dry run. */
  readonly partial: boolean;
  /**
   * Statements that a superuser has to run for this role, including those needed only after others. Empty for a
   * superuser. They create neither the foreign data wrappers, the event triggers nor the login for bound functions: for
   * these, run `hawser init` as a superuser.
   */
  readonly superuserStatements: readonly string[];
  /**
   * Privileges of roles beyond this version's grants, and schemas on the search_path of Hawser's logins in which other
   * roles may create objects. One line each, with the statement that removes the risk.
   */
  readonly warnings: readonly string[];
  /**
   * Risks of Hawser's roles, which all databases share: unexpected attributes, members of hawser_owner, and members
   * before the first installation in this database.
   */
  readonly roleWarnings: readonly string[];
  /** SQL of a dry run, which psql can run. */
  readonly sql?: string;
}

/** Options of {@link install}. */
export interface InstallOptions {
  readonly databaseUrl?: string | undefined;
  /** Changes nothing and returns the SQL. Default false. */
  readonly dryRun?: boolean | undefined;
  /** False to install only what peers need. */
  readonly nats?: Partial<NatsInstallation> | false | undefined;
  /**
   * Receives a message about the session it waits for, if that takes longer than 5 s: another installation, or the
   * holder of a lock; about each sequence that was raised; and about rows of a restored dump, whose roles have other ids.
   */
  readonly onWait?: ((line: string) => void) | undefined;
}

/**
 * Migrates the schema to this version and creates its roles, grants and owners; then NATS from SQL: dblink in its own
 * schema, the SQL functions, the foreign data wrappers, and the event triggers. Can be repeated at any time, and
 * concurrent calls run one after another. A first installation that fails leaves nothing behind.
 *
 * The schema `hawser` is not used before its owner has been verified as trusted.
 *
 * @throws HawserError as `migrate`; `schema_missing` if a table was dropped or renamed; for NATS from SQL, before any
 * change: `not_supported` (encoding), `native_extension`, `dblink_shared`, `name_occupied` and `invalid_argument`
 */
export async function install(options: InstallOptions): Promise<InstallReport> {
  const { databaseUrl, dryRun = false, nats = {}, onWait = () => undefined } = options;
  const wanted = nats === false ? undefined : { schema: defaultFunctionsSchema, sharedDblink: false, ...nats };
  const list = objects.filter(({ ofNats }) => wanted !== undefined || !ofNats);
  return withInstaller(databaseUrl, "prepare the database", async (client, place, address) => {
    const { hidden } = await inspectSchema(client);
    // Before the lock, whose row would be changed.
    if (!hidden) refuseNewer(await missingSteps(client));
    if (!dryRun) await takeInstallationLock(client, onWait);
    const preparation = new Preparation(client, { address, onWait });
    if (hidden && !dryRun) await repairState(preparation);
    if (wanted !== undefined) await refuseConflicts(client, wanted.schema, wanted.sharedDblink);
    await refuseLostTables(client, queryRunner(client));
    const before = dryRun ? await inspect(client, wanted?.schema) : undefined;
    const present = presentMembers(before?.roles ?? (await inspectRoles(queryRunner(client))));
    const missing = await missingSteps(client);
    refuseNewer(missing);
    const state = before ?? (await wholeIfNew(preparation, () => make(preparation, list, wanted, onWait)));
    // Behind the check of the tables: it reads them.
    if (!dryRun) for (const line of await raiseSequences(client)) onWait(`${line}; it was raised`);
    if (!dryRun) for (const line of await adoptRoles(client)) onWait(line);
    const faults = faultsOf(state, list).filter(({ repairable }) => !(dryRun && repairable));
    const { excess, paths } = state.privileges;
    const risks = faults.filter(({ kind }) => kind === "risk");
    return {
      ...place,
      migrations: missing.steps.map(({ id, name }) => ({ id, name })),
      nats: wanted === undefined ? null : natsReport(state, risks),
      missingPrivileges: missingPrivileges(state, faults),
      partial: wanted !== undefined && faults.some(({ essential }) => essential),
      superuserStatements: superuserStatements(state, list),
      warnings: [...excess, ...paths, ...risks.filter(({ check }) => check === "schema-objects")].map(lineOf),
      roleWarnings: [...present, ...state.roles.risks].map(lineOf),
      ...(dryRun && {
        sql: [
          ...plannedTransactions(missing).map(({ what, sql, isTransaction }) =>
            isTransaction ? transactionText(what, sql) : `-- ${what}\n${sql.trim()}\n`,
          ),
          ...planned(state, list),
        ].join("\n"),
      }),
    };
  });
}

/** Fails if a newer version has prepared the database: its functions would be replaced by older ones. */
function refuseNewer({ newer }: MissingSteps): void {
  if (newer === undefined) return;
  throw new HawserError(
    "schema_too_new",
    `a newer version has prepared this database: it has migration ${newer.id} (${newer.name}), and this version knows only ${migrations.length}. ` +
      "This version works with it without `hawser init`. Nothing was done",
    { remedy: "To change the installation, run `hawser init` of the newer version." },
  );
}

/** Creates the objects. @returns the state afterwards */
async function make(
  preparation: Preparation,
  list: readonly InstalledObject[],
  nats: NatsInstallation | undefined,
  onWait: (line: string) => void,
): Promise<State> {
  const refusals = new Map<string, string>();
  const { client } = preparation;
  await applyMissing(preparation);
  // Takes the lock by its row, which may not have existed before.
  await takeInstallationLock(client, onWait);
  for (const object of list) {
    let sql = object.create;
    if (typeof sql === "function") {
      // Objects created so far must not be open to other roles either.
      if (nats !== undefined) await refuseConflicts(client, nats.schema, nats.sharedDblink);
      sql = sql(await inspect(client, nats?.schema), false);
    }
    if (sql === undefined) continue;
    const error = await tryTransaction(preparation, `make ${object.what}`, sql);
    if (error === undefined) continue;
    // A schema without its grants still works for its owner.
    if (lacksPrivilege(error) || !object.ofNats) refusals.set(object.name, error.message);
    else throw error.code === dependentObjects ? inUse(error) : scriptFailure(`make ${object.what}`, sql, error);
  }
  return inspect(client, nats?.schema, refusals);
}

/** SQL of a dry run. */
function planned(state: State, list: readonly InstalledObject[]): string[] {
  return list.flatMap(({ what, create }) => {
    const sql = typeof create === "function" ? create(state, true) : create;
    return sql === undefined ? [] : [transactionText(what, sql)];
  });
}

function missingPrivileges({ roles: { role } }: State, faults: readonly Fault[]): MissingPrivilege[] {
  const missing = faults.filter(({ kind }) => kind === "missing");
  return [...missing.filter((fault) => fault.essential), ...missing.filter((fault) => !fault.essential)].map(
    ({ what, refused, meaning = "", remedy }) => ({
      what: refused === undefined ? what : `${what}, and "${role}" may not ${refused}`,
      meaning,
      remedy,
    }),
  );
}

function superuserStatements(state: State, list: readonly InstalledObject[]): string[] {
  if (state.roles.superuser) return [];
  return list.flatMap((object) => object.superuserStatements?.(state) ?? []).map((statement) => `${statement};`);
}

function natsReport({ schema, dblink, functions, foreignData }: State, risks: readonly FoundFault[]): NatsReport {
  return {
    schema,
    dblinkSchema: dblink.found?.schema ?? null,
    functions: functions.found.filter((fn) => fn.isOurs && fn.schema === schema).length,
    wrappers: foreignData.wrappers.filter(({ isOurs }) => isOurs).map(({ name }) => name),
    eventTriggers: foreignData.eventTriggers.filter(({ isCurrent, enabled }) => isCurrent && enabled).length === 2,
    warnings: risks.filter(({ ofNats }) => ofNats).map(lineOf),
  };
}

function lineOf({ what, remedy }: Fault): string {
  return `${what}: ${remedy}`;
}

/** Result of an uninstallation, or prediction of a dry run. */
export interface UninstallReport extends InstallationTarget {
  /** Number of removed SQL functions. */
  readonly functions: number;
  readonly wrappers: readonly string[];
  readonly eventTriggers: readonly string[];
  /** True if dblink and its schema were removed. */
  readonly dblink: boolean;
  /** Removed schemas: those of wrappers and of the view of subscriptions. */
  readonly schemas: readonly string[];
  /**
   * Login that called the bound functions. It is kept, since all databases share roles. Null if it is unknown or does
   * not exist.
   */
  readonly login: string | null;
  /** Objects that remain because this role may not remove them, or because others depend on them. */
  readonly missingPrivileges: readonly MissingPrivilege[];
  /** Statement that removes the rest: the schema `hawser` with all stored messages of peers. */
  readonly rest: string;
  /** SQL of a dry run, which psql can run. */
  readonly sql?: string;
}

/**
 * Removes the SQL functions from any schema, the event triggers, the foreign data wrappers, and dblink if `hawser init`
 * created it. Can be repeated at any time. Dependent objects are never dropped.
 *
 * @throws HawserError `name_occupied` if a foreign server, a view or another object depends on them, which the message
 * names, or if the schema `hawser` is not Hawser's; nothing is removed then
 */
export async function uninstall(
  options: Pick<InstallOptions, "databaseUrl" | "dryRun" | "onWait">,
): Promise<UninstallReport> {
  const { databaseUrl, dryRun = false, onWait = () => undefined } = options;
  return withInstaller(databaseUrl, "take NATS out of the database", async (client, place, address) => {
    if (!dryRun) await takeInstallationLock(client, onWait);
    await inspectSchema(client);
    const before = await inspect(client);
    for (const object of objects.toReversed()) {
      const use = object.inUse?.(before);
      if (use !== undefined) throw new HawserError("name_occupied", `${use}; then run \`hawser uninstall\` again`);
    }
    // The functions are dropped first, in one transaction, which fails if they are in use. The other objects follow, each
    // in its own block, since the role may be allowed to drop only some of them.
    const functions = removalsOf(before, ["functions"]);
    const others = removalsOf(before, othersThanFunctions);
    const transactions = [
      { what: "SQL functions", sql: functions.map(({ sql }) => sql).join("\n") },
      { what: "event triggers, foreign data wrappers, schemas, dblink", sql: others.map(skippedIfRefused).join("\n") },
    ].filter(({ sql }) => sql !== "");
    const rest = `DROP SCHEMA ${ownSchemas.join(", ")} CASCADE`;
    if (dryRun) {
      const sql = transactions.map((each) => transactionText(each.what, each.sql)).join("\n");
      return { ...place, ...removed(before, undefined), missingPrivileges: [], rest, sql };
    }
    let refusal: string | undefined;
    const preparation = new Preparation(client, { address, onWait });
    for (const { what, sql } of transactions) refusal = (await remove(preparation, what, sql)) ?? refusal;
    const after = await inspect(client);
    return { ...place, ...removed(before, after), missingPrivileges: remaining(after, refusal), rest };
  });
}

const othersThanFunctions = objects.map(({ name }) => name).filter((name) => name !== "functions");

/** Removals, dependent objects first. */
function removalsOf(state: State, names: readonly string[]): Removal[] {
  return objects
    .toReversed()
    .filter(({ name }) => names.includes(name))
    .flatMap((object) => object.removals?.(state) ?? []);
}

function skippedIfRefused({ sql }: Removal): string {
  return `DO $do$
BEGIN
  ${sql}
EXCEPTION
  WHEN insufficient_privilege OR dependent_objects_still_exist THEN
    RAISE NOTICE 'it stays: %', SQLERRM;
END
$do$;`;
}

/**
 * Runs a removal.
 *
 * @returns the server's message if the role may not drop the functions. Other objects that it may not drop are skipped
 */
async function remove(preparation: Preparation, what: string, sql: string): Promise<string | undefined> {
  const error = await tryTransaction(preparation, `remove ${what}`, sql);
  if (error === undefined) return undefined;
  if (lacksPrivilege(error)) return error.message;
  if (error.code !== dependentObjects) throw storeFailure(`remove ${what}`, error);
  throw new HawserError(
    "name_occupied",
    `SQL functions are in use: ${(error.detail ?? error.message).replaceAll("\n", "; ")}. Drop that first, then run ` +
      "`hawser uninstall` again",
    { cause: error },
  );
}

/** Our objects that exist in the state before and not in the state after. */
function removed(before: State, after: State | undefined) {
  const ours = (state: State | undefined) => (state?.functions.found ?? []).filter(({ isOurs }) => isOurs).length;
  const gone = (were: readonly Named[], are: readonly Named[] = []) =>
    were.filter(({ name, isOurs }) => isOurs && !are.some((one) => one.name === name)).map(({ name }) => name);
  const losesRunSchema = before.bindings.hasRunSchema && !after?.bindings.hasRunSchema;
  const losesView = before.bindings.hasSubscriptionsSchema && !after?.bindings.hasSubscriptionsSchema;
  return {
    functions: ours(before) - ours(after),
    wrappers: gone(before.foreignData.wrappers, after?.foreignData.wrappers),
    eventTriggers: gone(before.foreignData.eventTriggers, after?.foreignData.eventTriggers),
    dblink: before.dblink.found?.isOurs === true && after?.dblink.found === undefined,
    schemas: [...(losesRunSchema ? [runSchema] : []), ...(losesView ? [subscriptionsSchema] : [])],
    login: losesRunSchema && before.bindings.login?.exists === true ? before.bindings.login.name : null,
  };
}

interface Named {
  readonly name: string;
  readonly isOurs: boolean;
}

/** Objects that remain. @param refusal server's message if the role may not drop the functions */
function remaining(state: State, refusal: string | undefined): MissingPrivilege[] {
  const still = ({ what, left }: Removal): MissingPrivilege =>
    left ?? {
      what: `${what} is still there, and "${state.roles.role}" may not drop it`,
      meaning: "it does no harm",
      remedy: "as a superuser: run `hawser uninstall` again",
    };
  const why = refusal === undefined ? "" : ` (${refusal})`;
  return [
    ...removalsOf(state, ["functions"])
      .map(still)
      .map((one) => ({ ...one, what: `${one.what}${why}` })),
    ...removalsOf(state, othersThanFunctions).map(still),
  ];
}

/**
 * Runs `work` with a connection.
 *
 * @param action the failed action, to follow "could not"
 * @throws HawserError `store_failed` and `schema_missing`; `transaction_pooler`; errors of `work`
 */
async function withInstaller<T>(
  databaseUrl: string | undefined,
  action: string,
  work: (client: pg.Client, place: InstallationTarget, address: DatabaseAddress) => Promise<T>,
): Promise<T> {
  const address = DatabaseAddress.of(databaseUrl);
  const session = await openSession(address).catch((cause) => {
    throw storeFailure(action, cause);
  });
  const { client } = session;
  try {
    // The session must be direct: a superuser may run it, and its search_path keeps it from calling objects of other
    // roles.
    await refuseTransactionPooler(address, session);
    const { rows } = await client.query<InstallationTarget>(
      "SELECT current_database() AS database, current_user AS role",
    );
    return await work(client, rows[0]!, address);
  } catch (cause) {
    throw await explainRefusal(client, action, cause);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Formats a transaction for psql. */
function transactionText(what: string, sql: string): string {
  return `-- ${what}\nBEGIN;\n${sql.trim()}\nCOMMIT;\n`;
}
