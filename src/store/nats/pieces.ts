/**
 * The NATS half as SQL, in pieces that stand for themselves: each is one transaction, may be run again, and leaves out with
 * a NOTICE what its role may not do.
 */
import pg from "pg";
import { errorsGrantsSql } from "../../../generated/ts/sql/errors-schema.js";
import { errorTable } from "../../errors/index.js";
import { trustedRoles } from "../schema-trust.js";
import { bareDblinkPlaceSql } from "./bare-dblink.js";
import { closeDblinkFunctionsSql, closeDblinkSchemaSql } from "./closed-objects.js";
import { foreignDataSql } from "./foreign-data.js";
import { type FunctionPlaces, functionsGrantsSql, functionsSql, publicFunctions } from "./function-text.js";
import type { FoundFunction, NatsState } from "./inspect.js";
import {
  dblinkMark,
  dblinkSchema,
  eventTriggerFunction,
  eventTriggers,
  usedDblinkFunctions,
  wrapperNames,
  wrapperValidator,
} from "./objects.js";

const { escapeLiteral: literal } = pg;

/** One transaction of the installation. */
export interface Piece {
  /** What it makes, in a few words. */
  readonly what: string;
  readonly sql: string;
}

/** Nothing that others have put on the path comes before what is meant. */
const pinnedPath = "SET LOCAL search_path = pg_catalog, pg_temp;";

/** A branch of PL/pgSQL: the schema for dblink was made by others, who could put functions beside it. */
export const elseOccupiedDblinkSql = `ELSIF EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)} AND n.nspowner NOT IN ${trustedRoles}) THEN
      RAISE EXCEPTION USING
        ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
        MESSAGE = 'the schema ${dblinkSchema} belongs to somebody else',
        HINT = 'DROP SCHEMA ${dblinkSchema}';`;

/** dblink where nobody else can use it, and its use by the owner of the functions. */
export const dblinkPiece: Piece = {
  what: "dblink",
  sql: `${pinnedPath}
DO $do$
DECLARE
  owner CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');
  place name := coalesce(
    ${bareDblinkPlaceSql},
    (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'dblink'));
  routine text;
BEGIN
  IF place IS NULL THEN
    place := ${literal(dblinkSchema)};
    IF to_regnamespace(${literal(dblinkSchema)}) IS NULL THEN
      CREATE SCHEMA ${dblinkSchema};
      ${closeDblinkSchemaSql}
    ${elseOccupiedDblinkSql}
    END IF;
    COMMENT ON SCHEMA ${dblinkSchema} IS ${literal(dblinkMark)};
    CREATE EXTENSION dblink SCHEMA ${dblinkSchema};
    ${closeDblinkFunctionsSql}
  END IF;
  IF place = ${literal(dblinkSchema)} THEN
    -- A connection belongs to the session and not to a role: nobody else may reach it, neither through the schema
    -- nor, should that be opened one day, through a function.
    REVOKE ALL ON SCHEMA ${dblinkSchema} FROM PUBLIC;
    FOR routine IN
      SELECT p.oid::regprocedure FROM pg_proc AS p
      WHERE p.pronamespace = to_regnamespace(${literal(dblinkSchema)}) AND p.probin ~ '(^|/)dblink$'
        AND has_function_privilege('public', p.oid, 'EXECUTE')
    LOOP
      EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
    END LOOP;
  END IF;
  IF NOT has_schema_privilege(owner, place, 'USAGE') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, owner);
  END IF;
  FOREACH routine IN ARRAY ARRAY[${usedDblinkFunctions.map(literal).join(", ")}] LOOP
    IF NOT has_function_privilege(owner, format('%I.%s', place, routine), 'EXECUTE') THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%s TO %I', place, routine, owner);
    END IF;
  END LOOP;
EXCEPTION
  -- Postgres without its contrib modules has no dblink.
  WHEN insufficient_privilege OR feature_not_supported OR undefined_file THEN
    RAISE NOTICE 'dblink is not ready for Hawser: %', SQLERRM;
END
$do$;`,
};

/**
 * The SQL functions, their owner and grants. What an earlier version declared otherwise goes first. Functions that are there
 * keep what an operator has granted on them.
 */
export function functionsPiece(state: Pick<NatsState, "functions">, places: FunctionPlaces): Piece {
  const drops = outdated(state.functions, places).map(({ signature }) => `DROP FUNCTION ${signature};`);
  return {
    what: `SQL functions in the schema ${places.schema}`,
    sql: [
      pinnedPath,
      ...drops,
      functionsSql(places),
      functionsGrantsSql(places),
      ownInternalFunctionsSql,
      callersSchemaSql(places.schema),
      errorsGrantsSql,
    ].join("\n"),
  };
}

/** Those of ours that this version does not have, or declares with other names or results. */
function outdated(functions: readonly FoundFunction[], places: FunctionPlaces): FoundFunction[] {
  const wanted = new Map(publicFunctions(places).map((fn) => [`${fn.name}(${fn.types})`, fn]));
  return functions.filter((found) => {
    if (!found.isOurs || found.schema !== places.schema) return false;
    const now = wanted.get(`${found.name}(${found.types})`);
    return now === undefined || now.arguments !== found.arguments || now.result !== found.result;
  });
}

/** Where the functions stay with whoever installs, who is a member of the owner, this one need not. */
const ownInternalFunctionsSql = `DO $do$
DECLARE
  owner CONSTANT text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'hawser');
BEGIN
  EXECUTE pg_catalog.format('ALTER FUNCTION hawser.gateway_call(text) OWNER TO %I', owner);
  EXECUTE pg_catalog.format('ALTER FUNCTION hawser.next_message_id() OWNER TO %I', owner);
EXCEPTION
  WHEN insufficient_privilege THEN NULL;
END
$do$;
`;

function callersSchemaSql(schema: string): string {
  return `DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hawser_nats')
    AND NOT pg_catalog.has_schema_privilege('hawser_nats', ${literal(schema)}, 'USAGE')
  THEN
    GRANT USAGE ON SCHEMA ${pg.escapeIdentifier(schema)} TO hawser_nats;
  END IF;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'hawser_nats may not use the schema of the functions, and % may not let it', current_user;
END
$do$;
`;
}

/** The foreign data wrappers for CREATE SERVER. */
export const wrappersPiece: Piece = {
  what: "foreign data wrappers",
  sql: `${pinnedPath}
${foreignDataSql}
DO $do$
DECLARE
  owner CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');
  wrapper text;
BEGIN
  FOREACH wrapper IN ARRAY ARRAY[${wrapperNames.map(literal).join(", ")}] LOOP
    IF NOT EXISTS (SELECT FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = wrapper) THEN
      EXECUTE format('CREATE FOREIGN DATA WRAPPER %I NO HANDLER VALIDATOR ${wrapperValidator}', wrapper);
      EXECUTE format('COMMENT ON FOREIGN DATA WRAPPER %I IS %L', wrapper, 'The NATS server that Hawser uses.');
    ELSIF EXISTS (SELECT FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = wrapper AND w.fdwvalidator = 0) THEN
      EXECUTE format('ALTER FOREIGN DATA WRAPPER %I VALIDATOR ${wrapperValidator}', wrapper);
    END IF;
    IF NOT has_foreign_data_wrapper_privilege(owner, wrapper, 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', wrapper, owner);
    END IF;
  END LOOP;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the foreign data wrappers are not ready: %', SQLERRM;
END
$do$;`,
};

/** The event triggers that tell of changes of the server. */
export const eventTriggersPiece: Piece = {
  what: "event triggers",
  sql: `${pinnedPath}
DO $do$
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
    RAISE NOTICE 'event triggers are left to superusers';
    RETURN;
  END IF;
${eventTriggers.map(eventTriggerSql).join("\n")}
END
$do$;`,
};

function eventTriggerSql({ name, event, tags }: (typeof eventTriggers)[number]): string {
  const list = tags.map(literal).join(", ");
  return `  IF NOT EXISTS (
    SELECT FROM pg_event_trigger AS t
    WHERE t.evtname = ${literal(name)} AND t.evtevent = ${literal(event)} AND t.evtfoid = ${literal(eventTriggerFunction)}::regprocedure
      AND t.evttags @> ARRAY[${list}] AND t.evttags <@ ARRAY[${list}]
  ) THEN
    DROP EVENT TRIGGER IF EXISTS ${name};
    CREATE EVENT TRIGGER ${name} ON ${event}
    WHEN TAG IN (${list})
    EXECUTE FUNCTION ${eventTriggerFunction};
  END IF;`;
}
