/** List of the objects of an installation in the order of their creation, and their inspection. */
import type pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import { bindings, inspectBindings } from "./bindings.js";
import { dblink, inspectDblink } from "./dblink.js";
import { eventTriggersObject, foreignData, inspectForeignData } from "./foreign-data.js";
import { functions, inspectFunctions } from "./functions.js";
import type { InstalledObject, RunQuery } from "./object.js";
import { inspectPrivileges, privileges } from "./privileges.js";
import { hawserSchema, inspectRoles, roles } from "./roles.js";
import { inspectSchemaObjects, schemaObjects } from "./schema-objects.js";
import type { Fault, State } from "./state.js";
import { inspectTables, tables } from "./tables.js";

/** All objects, in the order of their creation. */
export const objects: readonly InstalledObject[] = [
  hawserSchema,
  tables,
  schemaObjects,
  roles,
  privileges,
  dblink,
  functions,
  bindings,
  foreignData,
  eventTriggersObject,
];

/** Runs queries on a connection. */
export const queryRunner =
  (client: pg.Client): RunQuery =>
  async <Row extends object>(text: string, ...values: unknown[]) =>
    (await client.query<Row>(text, values)).rows;

/**
 * Reads the state of the database from its catalogs. The search_path of the session must be pg_catalog only, and the
 * schema `hawser` must have been verified as Hawser's.
 *
 * @param schema intended schema of the SQL functions; undefined for their current schema
 */
export async function inspect(
  client: pg.Client,
  schema?: string,
  refusals: ReadonlyMap<string, string> = new Map(),
): Promise<State> {
  const runQuery = queryRunner(client);
  const { schema: place, functions: foundFunctions } = await inspectFunctions(runQuery, schema);
  return {
    schema: place,
    refusals,
    tables: await inspectTables(client),
    schemaObjects: await inspectSchemaObjects(client, runQuery),
    roles: await inspectRoles(runQuery),
    privileges: await inspectPrivileges(runQuery, { schema: place, functions: foundFunctions }),
    dblink: await inspectDblink(runQuery),
    functions: foundFunctions,
    bindings: await inspectBindings(runQuery),
    foreignData: await inspectForeignData(runQuery),
  };
}

/** Fault with the check of `hawser doctor` that reports it. */
export interface FoundFault extends Fault {
  readonly check: string;
  readonly ofNats: boolean;
}

/** Faults of all objects, in order. */
export function faultsOf(state: State, list: readonly InstalledObject[] = objects): FoundFault[] {
  return list.flatMap(({ name, ofNats, faults }) => faults(state).map((fault) => ({ check: name, ofNats, ...fault })));
}

/**
 * Query with one row per conflict of an installation, the most important first: `code`, `what` and `remedy`. Its text
 * is ASCII, so that it works in any database encoding.
 *
 * @param place SQL expression: schema of the SQL functions
 * @param shared SQL expression: true if every role may use dblink
 * @param scripted SQL expression: true if the script of the extension runs the query
 */
export function conflictsSql(place: string, shared: string, scripted: string): string {
  const found = objects.flatMap(({ conflicts }) => conflicts ?? []);
  return `WITH input AS (SELECT ${place} AS place, ${shared} AS shared, ${scripted} AS scripted)
  SELECT c.code, c.what, c.remedy FROM (${found.join("\n  UNION ALL")}) AS c ORDER BY c.nth LIMIT 1`;
}

/** Query for conflicts of NATS from SQL. */
const conflictQuery = conflictsSql("$1::text", "$2::boolean", "false");

/**
 * Fails if there is a conflict, before anything is changed.
 *
 * @param sharedDblink accepts that every role may use dblink
 * @throws HawserError `not_supported` (encoding), `native_extension`, `dblink_shared`, `name_occupied`,
 * `invalid_argument`
 */
export async function refuseConflicts(client: pg.Client, schema: string, sharedDblink: boolean): Promise<void> {
  const { rows } = await client.query<{ code: HawserError["code"]; what: string; remedy: string }>(conflictQuery, [
    schema,
    sharedDblink,
  ]);
  const [conflict] = rows;
  if (conflict === undefined) return;
  const { code, what, remedy } = conflict;
  throw new HawserError(
    code,
    code === "dblink_shared"
      ? `${what}. Close it: ${remedy}. Roles that used it there need the new name and the right. Or accept the risk with --shared-dblink`
      : `${what}: ${remedy}, or run \`hawser init --no-nats\`, which installs peers alone`,
  );
}

/** Returns true if NATS from SQL was installed, at least in part; false if the database is for peers only. */
export function hasNats({
  functions: { found, gatewayCall },
  bindings: of,
  dblink: { found: place },
  foreignData: fdw,
}: State) {
  const isOurs = (one: { readonly isOurs: boolean }) => one.isOurs;
  return (
    gatewayCall !== null || of.hasRunSchema || place?.isOurs === true || found.some(isOurs) || fdw.wrappers.some(isOurs)
  );
}
