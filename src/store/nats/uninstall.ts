/**
 * Taking the NATS half out of a database. What peers have in the schema `hawser` stays.
 */
import pg from "pg";
import { StoreError } from "../../errors/index.js";
import { type Place, transactionText, withInstaller } from "../installer.js";
import { tryTransaction } from "../role-transaction.js";
import { lookAtSchema } from "../schema-trust.js";
import type { Shortfall } from "../shortfalls.js";
import { storeFailure } from "../store-failure.js";
import { takeTurn } from "../turn.js";
import { bareDblinkFunctions } from "./bare-dblink.js";
import { foreignDataFunctions } from "./foreign-data.js";
import { type Dblink, inspectNats, type NatsState } from "./inspect.js";
import {
  dblinkSchema,
  defaultFunctionsSchema,
  foreignDataSchema,
  runSchema,
  subscriptionsSchema,
  subscriptionsView,
} from "./objects.js";

/** What was removed, or would be. */
export interface UninstallReport extends Place {
  /** How many SQL functions. */
  readonly functions: number;
  readonly wrappers: readonly string[];
  readonly eventTriggers: readonly string[];
  /** The extension dblink and its schema. */
  readonly dblink: boolean;
  /** Those of the functions that NATS reaches, and of the view of what is subscribed. */
  readonly schemas: readonly string[];
  /** The login that has called those functions, which stays: all databases share roles. Null: there is none, or it is not known. */
  readonly login: string | null;
  /** What is still there because this role may not remove it, or something else uses it. */
  readonly shortfalls: readonly Shortfall[];
  /** What removes the rest: the schema `hawser` with everything that peers have stored. */
  readonly rest: string;
  /** The SQL, for a dry run; psql runs it as it is. */
  readonly sql?: string;
}

const rest = "DROP SCHEMA hawser CASCADE";

/**
 * Removes the SQL functions from whatever schema they are in, the event triggers, the foreign data wrappers, and dblink
 * where `hawser init` made it. It may be run again at any time. Nothing is dropped together with what depends on it.
 *
 * @throws StoreError `name_occupied` if a foreign server, a view or the like still uses something of it, named in the
 * message, or if the schema `hawser` is not Hawser's; nothing is removed then
 */
export async function uninstall(options: {
  readonly databaseUrl?: string | undefined;
  readonly dryRun?: boolean | undefined;
  /** As of `install`. */
  readonly onWait?: ((line: string) => void) | undefined;
}): Promise<UninstallReport> {
  return withInstaller(options.databaseUrl, "take NATS out of the database", async (client, place) => {
    if (options.dryRun !== true) await takeTurn(client, options.onWait ?? (() => undefined));
    await lookAtSchema(client);
    const state = await inspectNats(client, defaultFunctionsSchema);
    refuseServers(state);
    refuseHandlers(state);
    const removal = [functionsRemoval(state), objectsRemoval(state)].filter((piece) => piece !== undefined);
    if (options.dryRun === true) {
      const sql = removal.map(({ what, sql }) => transactionText(what, sql)).join("\n");
      return { ...place, ...difference(state, undefined), shortfalls: [], rest, sql };
    }
    let refusal: string | undefined;
    for (const { what, sql } of removal) refusal = (await carryOut(client, what, sql)) ?? refusal;
    const after = await inspectNats(client, defaultFunctionsSchema);
    return { ...place, ...difference(state, after), shortfalls: remaining(after, refusal), rest };
  });
}

function refuseServers({ servers, wrappers }: NatsState): void {
  const ours = new Set(wrappers.filter(({ isOurs }) => isOurs).map(({ name }) => name));
  const used = servers.filter(({ wrapper }) => ours.has(wrapper));
  if (used.length === 0) return;
  const named = used.map(({ name, wrapper }) => `"${name}" (${wrapper})`).join(", ");
  const drops = used.map(({ name }) => `DROP SERVER ${pg.escapeIdentifier(name)} CASCADE`).join("; ");
  throw new StoreError(
    "name_occupied",
    `foreign servers still say which NATS server is used: ${named}. ${drops}; then run \`hawser init --uninstall\` again`,
  );
}

function refuseHandlers({ handlers: { reached } }: NatsState): void {
  if (reached.length === 0) return;
  const named = reached.slice(0, 5).map((one) => `"${one}"`);
  const more = reached.length > named.length ? ` and ${reached.length - named.length} more` : "";
  throw new StoreError(
    "name_occupied",
    `NATS still reaches functions: ${named.join(", ")}${more}. End that with nats_unsubscribe and ` +
      `litmus_pgnats_unregister_responder, or all of it with DROP SCHEMA ${runSchema} CASCADE; then run ` +
      "`hawser init --uninstall` again",
  );
}

interface Removal {
  readonly what: string;
  readonly sql: string;
}

function functionsRemoval(state: NatsState): Removal | undefined {
  const signatures = ours(state).map(({ signature }) => signature);
  if (signatures.length === 0) return undefined;
  const internal = "DROP FUNCTION IF EXISTS hawser.gateway_call(text), hawser.next_message_id();";
  return {
    what: "SQL functions",
    sql: [`DROP FUNCTION\n  ${signatures.join(",\n  ")};`, ...(state.owner === null ? [] : [internal])].join("\n"),
  };
}

/** One block for each: what one of them may not remove, another one's rights may suffice for. */
function objectsRemoval(state: NatsState): Removal | undefined {
  const triggers = state.eventTriggers.filter(({ isOurs }) => isOurs);
  const wrappers = state.wrappers.filter(({ isOurs }) => isOurs);
  const statements = [
    ...triggers.map(({ name }) => `DROP EVENT TRIGGER IF EXISTS ${name};`),
    ...wrappers.map(({ name }) => `DROP FOREIGN DATA WRAPPER IF EXISTS ${name};`),
    ...(hasForeignData(state) ? [foreignDataRemoval] : []),
    ...(state.handlers.hasRunSchema && state.handlers.occupied === null ? [runSchemaRemoval] : []),
    ...(state.handlers.hasSubscriptionsSchema && state.handlers.occupied === null ? [subscriptionsRemoval] : []),
    // Something else may have come to use dblink: then it stays.
    ...(state.dblink?.isOurs ? [dblinkRemoval(state.dblink)] : []),
  ];
  if (statements.length === 0) return undefined;
  return {
    what: "event triggers, foreign data wrappers, schemas, dblink",
    sql: statements.map(leftOutIfRefused).join("\n"),
  };
}

const foreignDataRemoval = `DROP FUNCTION IF EXISTS ${foreignDataFunctions.join(", ")};\n  DROP SCHEMA ${foreignDataSchema};`;

/** With what wrappers have left behind; not if one was made meanwhile. */
const runSchemaRemoval = `IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_proc AS w WHERE w.pronamespace = pg_catalog.to_regnamespace('${runSchema}') AND w.prosecdef
  ) THEN
    DROP SCHEMA ${runSchema} CASCADE;
  END IF;`;
const subscriptionsRemoval = `DROP VIEW IF EXISTS ${subscriptionsView};\n  DROP SCHEMA ${subscriptionsSchema};`;

function hasForeignData({ hasForeignDataSchema, foreignDataStranger }: NatsState): boolean {
  return hasForeignDataSchema && foreignDataStranger === null;
}

function dblinkRemoval({ isBare }: Dblink): string {
  const what = isBare ? `FUNCTION ${bareDblinkFunctions.join(", ")}` : "EXTENSION dblink";
  return `DROP ${what};\n  DROP SCHEMA ${dblinkSchema};`;
}

function leftOutIfRefused(statement: string): string {
  return `DO $do$
BEGIN
  ${statement}
EXCEPTION
  WHEN insufficient_privilege OR dependent_objects_still_exist THEN
    RAISE NOTICE 'it stays: %', SQLERRM;
END
$do$;`;
}

/** @returns why the role may not */
async function carryOut(client: pg.Client, what: string, sql: string): Promise<string | undefined> {
  const error = await tryTransaction(client, sql);
  if (error === undefined) return undefined;
  if (error.code === "42501") return error.message;
  if (error.code !== "2BP01") throw storeFailure(`remove ${what}`, error);
  throw new StoreError(
    "name_occupied",
    `SQL functions are in use: ${(error.detail ?? error.message).replaceAll("\n", "; ")}. Drop that first, then run ` +
      "`hawser init --uninstall` again",
    { cause: error },
  );
}

function ours({ functions }: NatsState) {
  return functions.filter(({ isOurs }) => isOurs);
}

/** What one state has of ours and a later one has not. */
function difference(before: NatsState, after: NatsState | undefined) {
  const gone = <Named extends { readonly name: string; readonly isOurs: boolean }>(
    were: readonly Named[],
    are: readonly Named[] = [],
  ) => were.filter(({ name, isOurs }) => isOurs && !are.some((one) => one.name === name)).map(({ name }) => name);
  return {
    functions: ours(before).length - (after === undefined ? 0 : ours(after).length),
    wrappers: gone(before.wrappers, after?.wrappers),
    eventTriggers: gone(before.eventTriggers, after?.eventTriggers),
    dblink: before.dblink?.isOurs === true && after?.dblink === undefined,
    schemas: [
      ...(before.handlers.hasRunSchema && !after?.handlers.hasRunSchema ? [runSchema] : []),
      ...(before.handlers.hasSubscriptionsSchema && !after?.handlers.hasSubscriptionsSchema
        ? [subscriptionsSchema]
        : []),
    ],
    login:
      before.handlers.hasRunSchema && !after?.handlers.hasRunSchema && before.handlers.login?.exists === true
        ? before.handlers.login.name
        : null,
  };
}

function remaining(state: NatsState, refusal: string | undefined): Shortfall[] {
  const { role, wrappers, eventTriggers, dblink } = state;
  const functions = ours(state);
  const triggers = eventTriggers.filter(({ isOurs }) => isOurs);
  const left = wrappers.filter(({ isOurs }) => isOurs);
  const again = "as a superuser: run `hawser init --uninstall` again";
  return [
    ...(functions.length === 0
      ? []
      : [
          {
            what: `${functions.length} SQL functions of "${functions[0]!.owner}" are still there, and "${role}" may not drop them${refusal === undefined ? "" : ` (${refusal})`}`,
            meaning: "they can be called as before",
            remedy: `run \`hawser init --uninstall\` as "${functions[0]!.owner}" or as a superuser`,
          },
        ]),
    ...[
      ...triggers.map(({ name }) => `the event trigger ${name}`),
      ...left.map(({ name }) => `the foreign data wrapper ${name}`),
      ...(hasForeignData(state) ? [`the schema ${foreignDataSchema}`] : []),
      ...(state.handlers.hasRunSchema ? [`the schema ${runSchema}`] : []),
      ...(state.handlers.hasSubscriptionsSchema ? [`the schema ${subscriptionsSchema}, or something in it`] : []),
    ].map((what) => ({
      what: `${what} is still there, and "${role}" may not drop it`,
      meaning: "it does no harm",
      remedy: again,
    })),
    ...(dblink?.isOurs
      ? [
          {
            what: `dblink is still there: something else uses it, or "${role}" may not drop it`,
            meaning: "it does no harm; nobody but its owner may use it",
            remedy: `as a superuser: ${dblinkRemoval(dblink).replace("\n  ", " ")}`,
          },
        ]
      : []),
  ];
}
