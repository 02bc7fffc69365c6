/**
 * What the NATS half of an installation lacks, and how it gets it.
 */
import pg from "pg";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import type { Shortfall } from "../shortfalls.js";
import { publicFunctions } from "./function-text.js";
import { foreseeHandlersShortfalls, handlersShortfalls } from "./handlers-shortfalls.js";
import type { FoundFunction, NatsState } from "./inspect.js";
import { dblinkSchema, eventTriggers, usedDblinkFunctions, wrapperNames, wrapperValidator } from "./objects.js";

const { escapeIdentifier: identifier } = pg;
const againText = "then run `hawser init` again";
const asSuperuser = "as a superuser: run `hawser init`, or";

/** Where the functions go, and why they could not be made. */
interface Functions {
  readonly schema: string;
  /** Postgres's own words. */
  readonly refusal?: string | undefined;
}

/** By what they cost. */
export interface NatsShortfalls {
  /** Because of these functions are missing, or fail. */
  readonly essential: readonly Shortfall[];
  readonly others: readonly Shortfall[];
}

/** Looks at a database after the installation. */
export function natsShortfalls(state: NatsState, functions: Functions): NatsShortfalls {
  return {
    essential: [...dblinkShortfalls(state), ...missingFunctions(state, functions)],
    others: [
      ...functionShortfalls(state, functions),
      ...handlersShortfalls(state),
      ...wrapperShortfalls(state),
      ...eventTriggerShortfalls(state),
    ],
  };
}

/** Looks at a database before, by what the role may do. */
export function foreseeNatsShortfalls(state: NatsState, schema: string): NatsShortfalls {
  const { dblink, dblinkAvailable, functionsSchema } = state;
  if (state.superuser) {
    return { essential: dblink === undefined && !dblinkAvailable ? dblinkShortfalls(state) : [], others: [] };
  }
  return {
    essential: [
      ...(dblink?.usable === false ? [unreachableDblink(dblink.schema, ownerOf(state))] : dblinkShortfalls(state)),
      ...(functionsSchema?.creatable === true ? [] : missingFunctions(state, { schema })),
    ],
    others: [...foreseeHandlersShortfalls(state), ...wrapperShortfalls(state), ...eventTriggerShortfalls(state)],
  };
}

/** Whom the functions will belong to: the owner of the schema `hawser`. */
function ownerOf({ owner, role }: NatsState): string {
  return owner ?? role;
}

function dblinkShortfalls(state: NatsState): Shortfall[] {
  const { dblink, role } = state;
  const owner = ownerOf(state);
  const who = identifier(owner);
  if (dblink === undefined) {
    return [
      {
        what: state.dblinkAvailable
          ? `dblink is not installed, and "${role}" may not install it`
          : "dblink is not installed, and Postgres does not have it: it is one of its contrib modules",
        meaning: "the SQL functions are left out: they reach the gateway through dblink",
        remedy: `as a superuser: ${newDblinkSql(state, who)}; ${againText}`,
      },
    ];
  }
  const cutOff = state.functions.filter((fn) => fn.isOurs && !fn.reachesDblink);
  return [...new Set(cutOff.map((fn) => fn.owner))].map((name) => unreachableDblink(dblink.schema, name));
}

function unreachableDblink(schema: string, owner: string): Shortfall {
  return {
    what: `"${owner}", whom the SQL functions belong to, may not use dblink in the schema "${schema}"`,
    meaning: "the SQL functions fail: they reach the gateway through dblink",
    remedy: `as a superuser: ${usageSql(identifier(schema), identifier(owner))}`,
  };
}

/** Statements that install dblink for one role alone, which is quoted already. */
export function newDblinkSql({ dblinkSchemaOwner }: NatsState, who: string): string {
  return [
    ...(dblinkSchemaOwner === null ? [`CREATE SCHEMA ${dblinkSchema}`] : []),
    `CREATE EXTENSION dblink SCHEMA ${dblinkSchema}`,
    `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ${dblinkSchema} FROM PUBLIC`,
    usageSql(dblinkSchema, who),
  ].join("; ");
}

/** Statements that let a role use dblink; both names are quoted already. */
export function usageSql(schema: string, who: string): string {
  const routines = usedDblinkFunctions.map((signature) => `${schema}.${signature}`).join(", ");
  return `GRANT USAGE ON SCHEMA ${schema} TO ${who}; GRANT EXECUTE ON FUNCTION ${routines} TO ${who}`;
}

function functionShortfalls(state: NatsState, functions: Functions): Shortfall[] {
  if (missingFunctions(state, functions).length > 0 || state.dblink === undefined) return [];
  const ours = state.functions.filter((fn) => fn.isOurs && fn.schema === functions.schema);
  return [...ownerShortfalls(state, ours), ...callerShortfalls(state, functions.schema)];
}

function missingFunctions({ role, dblink, functions }: NatsState, { schema, refusal }: Functions): Shortfall[] {
  // Without dblink there are none, and that has been said.
  if (dblink === undefined || areCurrent(functions, schema, dblink.schema)) return [];
  const why = refusal === undefined ? "" : ` (${refusal})`;
  return [
    {
      what: `the SQL functions in the schema "${schema}" are missing or of another version, and "${role}" may not make them${why}`,
      meaning: "what is missing cannot be called",
      remedy:
        `as the owner of the schema: GRANT USAGE, CREATE ON SCHEMA ${identifier(schema)} TO ${identifier(role)}, or name a schema ` +
        `of your own with --schema; ${againText}`,
    },
  ];
}

/** Whether all functions are there as this version has them. */
function areCurrent(functions: readonly FoundFunction[], schema: string, dblinkPlace: string): boolean {
  const ours = functions.filter((fn) => fn.isOurs && fn.schema === schema);
  const found = new Map(ours.map((fn) => [`${fn.name}(${fn.types})`, fn]));
  return publicFunctions({ schema, dblinkSchema: dblinkPlace }).every(({ name, types, body, result }) => {
    const one = found.get(`${name}(${types})`);
    return one?.body === body && one.result === result;
  });
}

function ownerShortfalls(state: NatsState, functions: readonly FoundFunction[]): Shortfall[] {
  const owner = ownerOf(state);
  const others = [...new Set(functions.map((fn) => fn.owner))].filter((name) => name !== owner);
  const { schema } = functions[0]!;
  const lacking = functions.find((fn) => fn.lacking.length > 0);
  return [
    ...others.map((name) => ({
      what: `SQL functions in the schema "${schema}" belong to "${name}" and not to "${owner}"`,
      meaning: `they work, and only "${name}" and superusers can bring them up to date`,
      remedy: `${asSuperuser} GRANT CREATE ON SCHEMA ${identifier(schema)} TO ${identifier(owner)}; ${againText}`,
    })),
    ...(lacking === undefined
      ? []
      : [
          {
            what: `"${lacking.owner}", whom SQL functions belong to, lacks ${lacking.lacking.join(", ")}`,
            meaning: "they fail",
            remedy: `as a superuser: GRANT ${identifier(owner)} TO ${identifier(lacking.owner)}`,
          },
        ]),
  ];
}

function callerShortfalls({ functionsSchema, role }: NatsState, schema: string): Shortfall[] {
  if (functionsSchema?.usable !== false) return [];
  return [
    {
      what: `hawser_nats may not use the schema "${schema}", and "${role}" may not let it`,
      meaning: "a login that has only hawser_nats cannot call the SQL functions",
      remedy: `as the owner of the schema: GRANT USAGE ON SCHEMA ${identifier(schema)} TO hawser_nats`,
    },
  ];
}

/** A superuser touches nothing of an owner who is not known to be trusted. */
function superuserRuns({ owner, ownerIsStranger }: NatsState): string {
  return `as a superuser: ${ownerIsStranger ? `GRANT hawser_owner TO ${identifier(owner!)}; ` : ""}run \`hawser init\``;
}

function wrapperShortfalls(state: NatsState): Shortfall[] {
  const { wrappers, role } = state;
  const missing = wrapperNames.filter((name) => !wrappers.some((wrapper) => wrapper.name === name && wrapper.isOurs));
  if (missing.length === 0) return [];
  return [
    {
      what: `the foreign data wrapper${missing.length === 1 ? "" : "s"} ${missing.join(" and ")} ${missing.length === 1 ? "is" : "are"} missing or without ${wrapperValidator}, and only superusers can change that, not "${role}"`,
      meaning: "CREATE SERVER cannot say which NATS server is used; SELECT hawser.set_nats_server('{…}') can",
      remedy: superuserRuns(state),
    },
  ];
}

function eventTriggerShortfalls(state: NatsState): Shortfall[] {
  const { eventTriggers: found, role } = state;
  const missing = eventTriggers.filter(({ name }) => !found.some((one) => one.name === name && one.isCurrent));
  if (missing.length === 0) return [];
  return [
    {
      what: `the event trigger${missing.length === 1 ? "" : "s"} ${missing.map(({ name }) => name).join(" and ")} ${missing.length === 1 ? "is" : "are"} missing, and only superusers can make them, not "${role}"`,
      meaning: `\`hawser serve\` notices changes of the foreign server within ${gatewayConstants.optionsPollMs / 1000} seconds instead of at once, and a second server is not refused when it is made`,
      remedy: superuserRuns(state),
    },
  ];
}
