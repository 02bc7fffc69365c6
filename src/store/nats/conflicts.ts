/**
 * Why the NATS half cannot be installed in a database: found out before anything is done.
 */
import pg from "pg";
import { StoreError } from "../../errors/index.js";
import { isPlainName, publicFunctions } from "./function-text.js";
import type { FoundFunction, NatsState } from "./inspect.js";
import { dblinkSchema, eventTriggerFunction, foreignDataSchema, wrapperValidator } from "./objects.js";

const withoutNats = "or run `hawser init --no-nats`, which installs peers alone";

/** Schemas that belong to Postgres or to us. */
export const reservedSchemas = /^(pg_.*|information_schema|hawser|hawser_run|pgnats|hawser_dblink|hawser_fdw)$/;

/**
 * @param sharedDblink goes on although every role may use dblink
 * @throws StoreError `not_supported` (encoding), `native_extension`, `dblink_shared`, `name_occupied`, `invalid_argument`
 */
export function refuseConflicts(state: NatsState, schema: string, sharedDblink: boolean): void {
  if (state.functionsSchema === undefined) {
    throw new StoreError(
      "invalid_argument",
      `the schema "${schema}" for the SQL functions does not exist: CREATE SCHEMA ${pg.escapeIdentifier(schema)}, or name another one`,
    );
  }
  if (state.encoding !== "UTF8") {
    throw new StoreError(
      "not_supported",
      `the database's encoding is ${state.encoding}, and NATS from SQL needs UTF8: use a database with that encoding, ${withoutNats}`,
    );
  }
  if (state.native !== null) {
    throw new StoreError(
      "native_extension",
      `the native extension (${state.native}) is installed in this database, and its functions have the same names: ` +
        `DROP EXTENSION first, use another database, ${withoutNats}`,
    );
  }
  refuseFunctions(state, schema);
  refuseWrappers(state);
  refuseHandlers(state);
  refuseDblink(state, sharedDblink);
}

/** @throws StoreError `invalid_argument` if no function could be made in a schema of that name */
export function refuseSchemaName(schema: string): void {
  if (!isPlainName(schema) || reservedSchemas.test(schema)) {
    throw new StoreError(
      "invalid_argument",
      `"${schema}" cannot be the schema of the SQL functions: it must have a name of 1 to 63 bytes without quotes, $, @, \\ ` +
        "and control characters, and belong neither to Postgres nor to Hawser",
    );
  }
}

function refuseFunctions({ functions }: NatsState, schema: string): void {
  const elsewhere = functions.find((fn) => fn.isOurs && fn.schema !== schema);
  if (elsewhere !== undefined) {
    throw new StoreError(
      "name_occupied",
      `the SQL functions are installed in the schema "${elsewhere.schema}": name that one with --schema, or run ` +
        "`hawser init --uninstall` first",
    );
  }
  const foreign = foreignFunctions(functions, schema);
  if (foreign.length > 0) {
    const named = foreign.slice(0, 5).map(({ signature, owner }) => `${signature} of "${owner}"`);
    const more = foreign.length > named.length ? ` and ${foreign.length - named.length} more` : "";
    throw new StoreError(
      "name_occupied",
      `functions that are not Hawser's stand where its own would: ${named.join(", ")}${more}. Rename or drop them, or ` +
        "choose another schema with --schema",
    );
  }
}

/** Those with the very name and arguments of one of ours. */
function foreignFunctions(functions: readonly FoundFunction[], schema: string): FoundFunction[] {
  const ours = new Set(publicFunctions({ schema, dblinkSchema }).map(({ name, types }) => `${name}(${types})`));
  return functions.filter((fn) => !fn.isOurs && fn.schema === schema && ours.has(`${fn.name}(${fn.types})`));
}

function refuseWrappers({ wrappers, eventTriggers, superuser, foreignDataStranger }: NatsState): void {
  // Nobody else makes anything in it.
  if (superuser && foreignDataStranger !== null) {
    throw new StoreError(
      "name_occupied",
      `the schema ${foreignDataSchema}, whose functions superusers run, or a function in it belongs to "${foreignDataStranger}", ` +
        `who is no superuser: DROP SCHEMA ${foreignDataSchema} CASCADE`,
    );
  }
  for (const { name, validator, handler, isOurs } of wrappers) {
    // One that was made beforehand, without anything, is given its validator.
    if (isOurs || (validator === null && handler === null)) continue;
    const has = validator === null ? `the handler ${handler}` : `the validator ${validator}`;
    throw new StoreError(
      "name_occupied",
      `the foreign data wrapper ${name} has ${has} instead of ${wrapperValidator} alone: it is another program's; ` +
        `rename or drop it, ${withoutNats}`,
    );
  }
  for (const { name, calls, isOurs } of eventTriggers) {
    if (isOurs) continue;
    throw new StoreError(
      "name_occupied",
      `the event trigger ${name} calls ${calls} instead of ${eventTriggerFunction}: rename or drop it, ${withoutNats}`,
    );
  }
}

function refuseHandlers({ handlers: { occupied } }: NatsState): void {
  if (occupied === null) return;
  throw new StoreError(
    "name_occupied",
    `${occupied.what} of "${occupied.owner}", which is not Hawser's, stands where its own would: rename it or ${occupied.drop}, ${withoutNats}`,
  );
}

function refuseDblink(state: NatsState, sharedDblink: boolean): void {
  const { dblink, dblinkSchemaOwner, dblinkSchemaTrusted } = state;
  if (dblink === undefined && dblinkSchemaTrusted === false) {
    throw new StoreError(
      "name_occupied",
      `the schema ${dblinkSchema}, where dblink goes, belongs to "${dblinkSchemaOwner}", who could put functions of their ` +
        `own beside it: DROP SCHEMA ${dblinkSchema}`,
    );
  }
  if (dblink !== undefined && !isPlainName(dblink.schema)) {
    throw new StoreError(
      "name_occupied",
      `dblink is in a schema with the name ${pg.escapeIdentifier(dblink.schema)}, which cannot stand in a function: ${moveDblink}`,
    );
  }
  if (!sharedDblink) refuseSharedDblink(state);
}

/** @throws StoreError `dblink_shared` if every role may call functions that reach a session's dblink connections */
export function refuseSharedDblink({ dblink, openFunctions }: NatsState): void {
  if (openFunctions.length === 0) return;
  const others = openFunctions.filter(({ isMember }) => !isMember).map(({ signature }) => signature);
  const remedies = [
    ...(openFunctions.some(({ isMember }) => isMember) ? [dblink?.isBare ? moveOtherDblink : moveDblink] : []),
    ...(others.length > 0 ? [`REVOKE EXECUTE ON FUNCTION ${others.join(", ")} FROM PUBLIC`] : []),
  ];
  const where = dblink === undefined || dblink.isBare ? "" : ` in the schema "${dblink.schema}"`;
  throw new StoreError(
    "dblink_shared",
    `every role may call dblink${where} (${openFunctions[0]!.signature}), and with it use or replace the gateway's ` +
      `connection of a session that it shares. Close it: ${remedies.join("; ")}. Whoever used it there needs the new name ` +
      "and the right. Or accept the risk with --shared-dblink",
  );
}

const moveDblink =
  `CREATE SCHEMA IF NOT EXISTS ${dblinkSchema}; REVOKE ALL ON SCHEMA ${dblinkSchema} FROM PUBLIC; ` +
  `ALTER EXTENSION dblink SET SCHEMA ${dblinkSchema}`;

/** Where functions of ours are in {@link dblinkSchema} already. */
export const moveOtherDblink =
  "CREATE SCHEMA IF NOT EXISTS dblink; REVOKE ALL ON SCHEMA dblink FROM PUBLIC; ALTER EXTENSION dblink SET SCHEMA dblink";
