/**
 * The list of all that an installation makes, in the order in which it is made; and one inspection of it.
 */
import type pg from "pg";
import { HawserError } from "../errors/index.js";
import { bindings, inspectBindings } from "./bindings.js";
import { dblink, dblinkSchema, inspectDblink } from "./dblink.js";
import { eventTriggersObject, foreignData, inspectForeignData } from "./foreign-data.js";
import { functions, inspectFunctions } from "./functions.js";
import type { Ask, InstalledObject } from "./object.js";
import { inspectPrivileges, privileges } from "./privileges.js";
import { hawserSchema, inspectRoles, roles } from "./roles.js";
import { inspectSchemaObjects, schemaObjects } from "./schema-objects.js";
import type { Fault, State } from "./state.js";

/** All of them, in the order in which they are made. */
export const objects: readonly InstalledObject[] = [
  hawserSchema,
  schemaObjects,
  roles,
  privileges,
  dblink,
  functions,
  bindings,
  foreignData,
  eventTriggersObject,
];

/** Queries on a connection. */
export const asking =
  (client: pg.Client): Ask =>
  async <Row extends object>(text: string, ...values: unknown[]) =>
    (await client.query<Row>(text, values)).rows;

/**
 * Reads the catalogs of the database as it is. The path of the session is pg_catalog and nothing before it, and it is known
 * that the schema `hawser` is Hawser's.
 *
 * @param schema where the SQL functions are to be; undefined: where they are
 */
export async function inspect(
  client: pg.Client,
  schema?: string,
  refusals: ReadonlyMap<string, string> = new Map(),
): Promise<State> {
  const ask = asking(client);
  const { schema: place, functions: foundFunctions } = await inspectFunctions(ask, schema);
  const foundDblink = await inspectDblink(ask);
  return {
    schema: place,
    refusals,
    schemaObjects: await inspectSchemaObjects(client, ask),
    roles: await inspectRoles(ask),
    privileges: await inspectPrivileges(ask, {
      schema: place,
      dblink: foundDblink.found?.schema ?? dblinkSchema,
      functions: foundFunctions,
    }),
    dblink: foundDblink,
    functions: foundFunctions,
    bindings: await inspectBindings(ask),
    foreignData: await inspectForeignData(ask),
  };
}

/** A fault, and the check of `hawser doctor` that reports it. */
export interface FoundFault extends Fault {
  readonly check: string;
  readonly ofNats: boolean;
}

/** What is not as it should be, object after object. */
export function faultsOf(state: State, list: readonly InstalledObject[] = objects): FoundFault[] {
  return list.flatMap(({ name, ofNats, faults }) => faults(state).map((fault) => ({ check: name, ofNats, ...fault })));
}

/**
 * A query with one row for each thing that is in the way of an installation, the most telling first: `code`, `what` and `remedy`.
 * Its text is ASCII, so that a database in any encoding takes it.
 *
 * @param place the schema of the SQL functions; `shared`: every role may use dblink; `scripted`: the script of the extension asks;
 * all of them as SQL
 */
export function conflictsSql(place: string, shared: string, scripted: string): string {
  const found = objects.flatMap(({ conflicts }) => conflicts ?? []);
  return `WITH input AS (SELECT ${place} AS place, ${shared} AS shared, ${scripted} AS scripted)
  SELECT c.code, c.what, c.remedy FROM (${found.join("\n  UNION ALL")}) AS c ORDER BY c.nth LIMIT 1`;
}

/** Why NATS from SQL cannot be installed. */
const conflictQuery = conflictsSql("$1::text", "$2::boolean", "false");

/**
 * Finds what is in the way, before anything is done.
 *
 * @param sharedDblink goes on although every role may use dblink
 * @throws HawserError `not_supported` (encoding), `native_extension`, `dblink_shared`, `name_occupied`, `invalid_argument`
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

/** Whether NATS from SQL was installed, or was to be; else the database is for peers alone. */
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
