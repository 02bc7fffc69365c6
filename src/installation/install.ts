/**
 * `hawser init`: makes all objects, or says beforehand what would be made, and what the role may not do; and takes those of NATS
 * from SQL out again. Each is a fold over the list of objects.
 */
import type pg from "pg";
import { HawserError } from "../errors/index.js";
import { DatabaseAddress, insufficientPrivilege, openSession, refuseTransactionPooler } from "../postgres/index.js";
import {
  applyMissing,
  explainRefusal,
  grantedRoles,
  inspectSchema,
  migrationTransactions,
  missingSteps,
  Preparation,
  runSchema,
  scriptFailure,
  storeFailure,
  takeTurn,
  tryTransaction,
} from "../store/index.js";
import { subscriptionsSchema } from "./bindings.js";
import { defaultFunctionsSchema } from "./functions.js";
import type { InstalledObject, Removal } from "./object.js";
import { asking, type FoundFault, faultsOf, inspect, objects, refuseConflicts } from "./objects.js";
import { inspectRoles, presentMembers } from "./roles.js";
import { refuseLostTables } from "./schema-objects.js";
import type { Fault, State } from "./state.js";

/** Where something is installed, and as which role. */
interface Place {
  readonly database: string;
  readonly role: string;
}

/** Where NATS from SQL is installed, and at what risk. */
interface NatsInstallation {
  /** The schema of the SQL functions. */
  readonly schema: string;
  /** Goes on although every role may use dblink. */
  readonly sharedDblink: boolean;
}

/** Something that the installing role may not do. */
export interface MissingPrivilege {
  /** What is not as it should be. */
  readonly what: string;
  /** What that means for the users of the database. */
  readonly meaning: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** What there is of NATS from SQL. */
interface NatsReport {
  /** The schema of the SQL functions. */
  readonly schema: string;
  /** Null if dblink is not installed. */
  readonly dblinkSchema: string | null;
  /** How many SQL functions of Hawser are in the schema. */
  readonly functions: number;
  /** The foreign data wrappers that CREATE SERVER can name. */
  readonly wrappers: readonly string[];
  /** Changes of the server are followed at once. */
  readonly eventTriggers: boolean;
  /** What works and is not as safe as it could be, one line each. */
  readonly warnings: readonly string[];
}

/** What was done, or would be. */
export interface InstallReport extends Place {
  /** The migrations that were applied, or would be. */
  readonly migrations: readonly { readonly id: number; readonly name: string }[];
  /** What there is of NATS from SQL, for a dry run: what there was; null if it was not wanted. */
  readonly nats: NatsReport | null;
  /** What this role may not do, one entry for each; first what keeps NATS from SQL from working. Everything else works. */
  readonly missingPrivileges: readonly MissingPrivilege[];
  /** NATS from SQL was wanted, and its functions are missing or fail; for a dry run: would be. */
  readonly partial: boolean;
  /**
   * What a superuser has to run for this role, one statement each: also what would be lacking only after some of them. Empty
   * for a superuser. It makes neither the foreign data wrappers and the event triggers nor the login that calls functions for
   * NATS: a superuser's `hawser init` does.
   */
  readonly superuserStatements: readonly string[];
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
  /** Is told which session it waits for, if that takes longer than 5 s: another installation, or one that has a lock. */
  readonly onWait?: ((line: string) => void) | undefined;
}

/** SQLSTATE of a DROP of what others use. */
const dependentObjects = "2BP01";

/**
 * Brings the schema to this version and makes its roles, grants and owners; then NATS from SQL: dblink in a schema of its own, the
 * SQL functions, the foreign data wrappers, the event triggers that follow the server. It may be run again at any time, and by
 * many at once: they take turns.
 *
 * Nothing of the schema `hawser` is touched before its owner is known to be trusted.
 *
 * @throws HawserError as `migrate`; `schema_missing` where a table was dropped or renamed. Before anything is done: `not_supported` (encoding), `native_extension`, `dblink_shared`,
 * `name_occupied` and `invalid_argument`, of NATS from SQL alone
 */
export async function install(options: InstallOptions): Promise<InstallReport> {
  const { databaseUrl, dryRun = false, nats = {}, onWait = () => undefined } = options;
  const wanted = nats === false ? undefined : { schema: defaultFunctionsSchema, sharedDblink: false, ...nats };
  const list = objects.filter(({ ofNats }) => wanted !== undefined || !ofNats);
  return withInstaller(databaseUrl, "prepare the database", async (client, place, address) => {
    if (!dryRun) await takeTurn(client, onWait);
    await inspectSchema(client);
    if (wanted !== undefined) await refuseConflicts(client, wanted.schema, wanted.sharedDblink);
    await refuseLostTables(client, asking(client));
    const before = dryRun ? await inspect(client, wanted?.schema) : undefined;
    const present = presentMembers(before?.roles ?? (await inspectRoles(asking(client))));
    const { steps, isNew, makesSchema } = await missingSteps(client);
    const state = before ?? (await make(new Preparation(client, { address, tell: onWait }), list, wanted, onWait));
    const faults = faultsOf(state, list).filter(({ mendable }) => !(dryRun && mendable));
    const { excess, paths } = state.privileges;
    // Of an older schema: programs of its version run with what it gave to Hawser's roles, and the steps take that back.
    const isOld = dryRun && steps.length > 0;
    const risks = faults.filter(({ kind }) => kind === "risk");
    return {
      ...place,
      migrations: steps.map(({ id, name }) => ({ id, name })),
      nats: wanted === undefined ? null : natsReport(state, risks),
      missingPrivileges: missingPrivileges(state, faults),
      partial: wanted !== undefined && faults.some(({ essential }) => essential),
      superuserStatements: superuserStatements(state, list),
      warnings: [
        ...excess.filter(({ role }) => !(isOld && role !== null && grantedRoles.includes(role))),
        ...paths,
        ...risks.filter(({ check }) => check === "schema-objects"),
      ].map(lineOf),
      roleWarnings: [...present, ...state.roles.risks].map(lineOf),
      ...(dryRun && {
        sql: [
          ...steps.flatMap((step, n) =>
            migrationTransactions(step, { isNew, makesSchema: makesSchema && n === 0 }).map(
              ({ sql, isTransaction }) => {
                const what = `migration ${step.id}: ${step.name}`;
                return isTransaction ? transactionText(what, sql) : `-- ${what}\n${sql.trim()}\n`;
              },
            ),
          ),
          ...planned(state, list),
        ].join("\n"),
      }),
    };
  });
}

/** @returns the state afterwards */
async function make(
  preparation: Preparation,
  list: readonly InstalledObject[],
  nats: NatsInstallation | undefined,
  onWait: (line: string) => void,
): Promise<State> {
  const refusals = new Map<string, string>();
  const { client } = preparation;
  await applyMissing(preparation);
  // By its row, which may not have been there before.
  await takeTurn(client, onWait);
  for (const object of list) {
    let sql = object.create;
    if (typeof sql === "function") {
      // What was made by now must not be open to others either.
      if (nats !== undefined) await refuseConflicts(client, nats.schema, nats.sharedDblink);
      sql = sql(await inspect(client, nats?.schema), false);
    }
    if (sql === undefined) continue;
    const error = await tryTransaction(preparation, `make ${object.what}`, sql);
    if (error === undefined) continue;
    // Without its grants the schema works, for its owner.
    if (error.code === insufficientPrivilege || !object.ofNats) refusals.set(object.name, error.message);
    else throw error.code === dependentObjects ? inUse(error) : scriptFailure(`make ${object.what}`, sql, error);
  }
  return inspect(client, nats?.schema, refusals);
}

function inUse(error: pg.DatabaseError): HawserError {
  return new HawserError(
    "name_occupied",
    `a function that this version declares otherwise is in use: ${error.message}${error.detail ? ` (${error.detail})` : ""}. ` +
      "Drop what uses it, run `hawser init` again, and make it anew",
    { cause: error },
  );
}

/** The SQL of a dry run. */
function planned(state: State, list: readonly InstalledObject[]): string[] {
  const texts: string[] = [];
  let foreseen = state;
  for (const { what, create, foresee } of list) {
    const sql = typeof create === "function" ? create(foreseen, true) : create;
    if (sql !== undefined) texts.push(transactionText(what, sql));
    foreseen = foresee?.(foreseen) ?? foreseen;
  }
  return texts;
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

/** What was removed, or would be. */
export interface UninstallReport extends Place {
  /** How many SQL functions. */
  readonly functions: number;
  readonly wrappers: readonly string[];
  readonly eventTriggers: readonly string[];
  /** dblink and its schema. */
  readonly dblink: boolean;
  /** Those of the functions that NATS reaches, and of the view of what is subscribed. */
  readonly schemas: readonly string[];
  /** The login that has called those functions, which stays: all databases share roles. Null: there is none, or it is not known. */
  readonly login: string | null;
  /** What is still there because this role may not remove it, or something else uses it. */
  readonly missingPrivileges: readonly MissingPrivilege[];
  /** What removes the rest: the schema `hawser` with everything that peers have stored. */
  readonly rest: string;
  /** The SQL, for a dry run; psql runs it as it is. */
  readonly sql?: string;
}

/**
 * Removes the SQL functions from whatever schema they are in, the event triggers, the foreign data wrappers, and dblink
 * where `hawser init` made it. It may be run again at any time. Nothing is dropped together with what depends on it.
 *
 * @throws HawserError `name_occupied` if a foreign server, a view or the like still uses something of it, named in the
 * message, or if the schema `hawser` is not Hawser's; nothing is removed then
 */
export async function uninstall(
  options: Pick<InstallOptions, "databaseUrl" | "dryRun" | "onWait">,
): Promise<UninstallReport> {
  const { databaseUrl, dryRun = false, onWait = () => undefined } = options;
  return withInstaller(databaseUrl, "take NATS out of the database", async (client, place, address) => {
    if (!dryRun) await takeTurn(client, onWait);
    await inspectSchema(client);
    const before = await inspect(client);
    for (const object of objects.toReversed()) {
      const use = object.inUse?.(before);
      if (use !== undefined) throw new HawserError("name_occupied", `${use}; then run \`hawser uninstall\` again`);
    }
    // In one transaction what nothing may use; then, one block for each, the parts that another role may have to remove.
    const functions = removalsOf(before, ["functions"]);
    const others = removalsOf(before, othersThanFunctions);
    const transactions = [
      { what: "SQL functions", sql: functions.map(({ sql }) => sql).join("\n") },
      { what: "event triggers, foreign data wrappers, schemas, dblink", sql: others.map(leftOutIfRefused).join("\n") },
    ].filter(({ sql }) => sql !== "");
    const rest = "DROP SCHEMA hawser CASCADE";
    if (dryRun) {
      const sql = transactions.map((each) => transactionText(each.what, each.sql)).join("\n");
      return { ...place, ...removed(before, undefined), missingPrivileges: [], rest, sql };
    }
    let refusal: string | undefined;
    const preparation = new Preparation(client, { address, tell: onWait });
    for (const { what, sql } of transactions) refusal = (await remove(preparation, what, sql)) ?? refusal;
    const after = await inspect(client);
    return { ...place, ...removed(before, after), missingPrivileges: remaining(after, refusal), rest };
  });
}

const othersThanFunctions = objects.map(({ name }) => name).filter((name) => name !== "functions");

/** Of what depends on others first. */
function removalsOf(state: State, names: readonly string[]): Removal[] {
  return objects
    .toReversed()
    .filter(({ name }) => names.includes(name))
    .flatMap((object) => object.removals?.(state) ?? []);
}

function leftOutIfRefused({ sql }: Removal): string {
  return `DO $do$
BEGIN
  ${sql}
EXCEPTION
  WHEN insufficient_privilege OR dependent_objects_still_exist THEN
    RAISE NOTICE 'it stays: %', SQLERRM;
END
$do$;`;
}

/** @returns why the role may not; of the functions alone, since the other parts are left out one by one */
async function remove(preparation: Preparation, what: string, sql: string): Promise<string | undefined> {
  const error = await tryTransaction(preparation, `remove ${what}`, sql);
  if (error === undefined) return undefined;
  if (error.code === insufficientPrivilege) return error.message;
  if (error.code !== dependentObjects) throw storeFailure(`remove ${what}`, error);
  throw new HawserError(
    "name_occupied",
    `SQL functions are in use: ${(error.detail ?? error.message).replaceAll("\n", "; ")}. Drop that first, then run ` +
      "`hawser uninstall` again",
    { cause: error },
  );
}

/** What one state has of ours and a later one has not. */
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

/** @param refusal why the role may not drop the functions, in the words of Postgres */
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
 * Connects, works, and ends the connection.
 *
 * @param action what could not be done if it fails, to follow "could not"
 * @throws HawserError `store_failed` and `schema_missing`; `transaction_pooler`; and what `work` throws
 */
async function withInstaller<T>(
  databaseUrl: string | undefined,
  action: string,
  work: (client: pg.Client, place: Place, address: DatabaseAddress) => Promise<T>,
): Promise<T> {
  const address = DatabaseAddress.of(databaseUrl);
  const session = await openSession(address).catch((cause) => {
    throw storeFailure(action, cause);
  });
  const { client } = session;
  try {
    // A superuser may run it, and the path of the session keeps others' objects from being called.
    await refuseTransactionPooler(address, session);
    const { rows } = await client.query<Place>("SELECT current_database() AS database, current_user AS role");
    return await work(client, rows[0]!, address);
  } catch (cause) {
    throw await explainRefusal(client, action, cause);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A transaction as psql runs it. */
function transactionText(what: string, sql: string): string {
  return `-- ${what}\nBEGIN;\n${sql.trim()}\nCOMMIT;\n`;
}
