/**
 * The NATS half of an installation: dblink, the SQL functions, the foreign data wrappers, the event triggers.
 */
import type pg from "pg";
import { natsFunctionsGrantsSql } from "../../../generated/ts/nats-functions/sql.js";
import { StoreError } from "../../errors/index.js";
import { type Grant, grantedRoles, grantsIn, rolesIn } from "../grants.js";
import { tryTransaction } from "../role-transaction.js";
import { storeFailure } from "../store-failure.js";
import { refuseConflicts, refuseSchemaName, refuseSharedDblink } from "./conflicts.js";
import { functionsGrantsSql } from "./function-text.js";
import { handlersGrants, handlersPiece } from "./handlers-piece.js";
import { inspectNats, type NatsState } from "./inspect.js";
import { dblinkSchema, runSchema, subscriptionsView, wrapperNames } from "./objects.js";
import { dblinkPiece, eventTriggersPiece, functionsPiece, type Piece, wrappersPiece } from "./pieces.js";
import { foreseeNatsShortfalls, type NatsShortfalls, natsShortfalls } from "./shortfalls.js";
import { natsWarnings } from "./warnings.js";

/** Where, and at what risk. */
export interface NatsInstallation {
  /** The schema of the SQL functions. */
  readonly schema: string;
  /** Goes on although every role may use dblink. */
  readonly sharedDblink: boolean;
}

/** What is there. */
export interface NatsReport {
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

/** A report with what belongs into the report of the whole. */
export interface NatsOutcome {
  readonly report: NatsReport;
  /** What it was made from. */
  readonly state: NatsState;
  readonly shortfalls: NatsShortfalls;
  /** What is to be granted as things are. */
  readonly grants: readonly Grant[];
}

/** The roles that it makes where they are missing, beside those of the schema `hawser`. */
export const natsRoles: readonly string[] = rolesIn(natsFunctionsGrantsSql).filter(
  (role) => !grantedRoles.includes(role),
);

/** SQLSTATEs. */
const insufficientPrivilege = "42501";
const dependentObjects = "2BP01";

/** Looks whether it can be installed at all. @throws StoreError as {@link refuseConflicts} */
export async function checkNats(client: pg.Client, { schema, sharedDblink }: NatsInstallation): Promise<NatsState> {
  refuseSchemaName(schema);
  const state = await inspectNats(client, schema);
  refuseConflicts(state, schema, sharedDblink);
  return state;
}

/**
 * Installs it, after the schema `hawser` and its grants. What the role may not do becomes a shortfall.
 *
 * @throws StoreError as {@link checkNats}; `name_occupied` also where something depends on a function that has changed
 */
export async function installNats(client: pg.Client, installation: NatsInstallation): Promise<NatsOutcome> {
  const { schema, sharedDblink } = installation;
  await carryOut(client, dblinkPiece);
  await carryOut(client, handlersPiece);
  const prepared = await inspectNats(client, schema);
  if (!sharedDblink) refuseSharedDblink(prepared);
  const refusal = await makeFunctions(client, prepared, schema);
  await carryOut(client, wrappersPiece);
  await carryOut(client, eventTriggersPiece);
  const state = await inspectNats(client, schema);
  const report = reportOf(state, schema);
  const places = { schema, dblinkSchema: state.dblink?.schema ?? dblinkSchema };
  return {
    report,
    state,
    shortfalls: natsShortfalls(state, { schema, refusal }),
    grants: [
      ...(report.functions === 0 ? [] : grantsIn(functionsGrantsSql(places))),
      ...handlersGrants.filter(({ object }) => hasObject(state, object)),
    ],
  };
}

/** Says beforehand what would be done, and by the rights of the role what would not. */
export function planNats(
  state: NatsState,
  { schema }: NatsInstallation,
): Omit<NatsOutcome, "grants"> & { readonly pieces: readonly Piece[] } {
  const { superuser, dblink, dblinkAvailable, functionsSchema } = state;
  const hasDblink = dblink !== undefined || (superuser && dblinkAvailable);
  const makesFunctions = hasDblink && functionsSchema?.creatable === true;
  const places = { schema, dblinkSchema: dblink?.schema ?? dblinkSchema };
  return {
    report: reportOf(state, schema),
    state,
    shortfalls: foreseeNatsShortfalls(state, schema),
    pieces: [
      dblinkPiece,
      handlersPiece,
      ...(makesFunctions ? [functionsPiece(state, places)] : []),
      wrappersPiece,
      eventTriggersPiece,
    ],
  };
}

/** @returns why the role may not make them */
async function makeFunctions(client: pg.Client, state: NatsState, schema: string): Promise<string | undefined> {
  if (state.dblink === undefined) return undefined;
  const piece = functionsPiece(state, { schema, dblinkSchema: state.dblink.schema });
  const error = await tryTransaction(client, piece.sql);
  if (error === undefined) return undefined;
  if (error.code === insufficientPrivilege) return error.message;
  if (error.code !== dependentObjects) throw storeFailure(`make ${piece.what}`, error);
  throw new StoreError(
    "name_occupied",
    `a function that this version declares otherwise is in use: ${error.message}${error.detail ? ` (${error.detail})` : ""}. ` +
      "Drop what uses it, run `hawser init` again, and make it anew",
    { cause: error },
  );
}

/** Such a piece takes no offence at what its role may not do. */
async function carryOut(client: pg.Client, { what, sql }: Piece): Promise<void> {
  const error = await tryTransaction(client, sql);
  if (error !== undefined) throw storeFailure(`make ${what}`, error);
}

function hasObject({ handlers }: NatsState, object: string): boolean {
  if (object === runSchema) return handlers.hasRunSchema;
  return object === subscriptionsView ? handlers.hasSubscriptionsView : handlers.hasSubscriptionsSchema;
}

function reportOf(state: NatsState, schema: string): NatsReport {
  const { dblink, functions, wrappers, eventTriggers } = state;
  return {
    schema,
    dblinkSchema: dblink?.schema ?? null,
    functions: functions.filter((fn) => fn.isOurs && fn.schema === schema).length,
    wrappers: wrapperNames.filter((name) => wrappers.some((wrapper) => wrapper.name === name && wrapper.isOurs)),
    eventTriggers: eventTriggers.filter(({ isCurrent, enabled }) => isCurrent && enabled).length === 2,
    warnings: natsWarnings(state),
  };
}
