/**
 * What a database has of the NATS half, and what the present role may do about it.
 */
import type pg from "pg";
import { trustedRoles } from "../schema-trust.js";
import { bareDblinkPlaceSql } from "./bare-dblink.js";
import { type FunctionDefinition, publicFunctions } from "./function-text.js";
import { type HandlersState, inspectHandlers } from "./inspect-handlers.js";
import {
  dblinkMark,
  dblinkSchema,
  eventTriggerFunction,
  eventTriggers,
  foreignDataSchema,
  harmlessDblinkSymbols,
  nativeExtensions,
  readTables,
  usedDblinkFunctions,
  wrapperNames,
  wrapperValidator,
} from "./objects.js";

/** The role and the database. */
interface Situation {
  readonly role: string;
  readonly superuser: boolean;
  readonly encoding: string;
  /** The owner of the schema `hawser`; null where there is none yet. */
  readonly owner: string | null;
  /** The native extension that has the same functions, if it is installed. */
  readonly native: string | null;
  /** Whether dblink could be installed at all. */
  readonly dblinkAvailable: boolean;
  /** Whom the schema {@link dblinkSchema} belongs to, if it is there; and whether that is a superuser or one of us. */
  readonly dblinkSchemaOwner: string | null;
  readonly dblinkSchemaTrusted: boolean | null;
  /** The schema {@link foreignDataSchema} is there. */
  readonly hasForeignDataSchema: boolean;
  /** Who is no superuser and has it, or a function in it, which superusers are to run; null if nobody. */
  readonly foreignDataStranger: string | null;
  /** A superuser would not touch the schema `hawser`, because of whom it belongs to. */
  readonly ownerIsStranger: boolean;
}

/** The schema of the functions. */
interface FunctionsSchema {
  /** The role may make functions in it. */
  readonly creatable: boolean;
  /** `hawser_nats` may use it; null where that role is missing. */
  readonly usable: boolean | null;
}

/** dblink, where it is installed. */
export interface Dblink {
  readonly schema: string;
  /** Made by `hawser init`, or by our extension. */
  readonly isOurs: boolean;
  /** Not the extension dblink, but some functions of its library. */
  readonly isBare: boolean;
  /** The present role may use all that the functions use. */
  readonly usable: boolean;
}

/** A function of dblink's library that every role may call. */
interface OpenFunction {
  readonly signature: string;
  /** It is one of the extension dblink. */
  readonly isMember: boolean;
}

/** A function with one of our names, wherever it is. */
export interface FoundFunction extends FunctionDefinition {
  /** As DROP FUNCTION names it. */
  readonly signature: string;
  readonly schema: string;
  readonly owner: string;
  /** Made by `hawser init`, and in hands that may replace it. */
  readonly isOurs: boolean;
  /** What its owner lacks of what the function reads: `USAGE on …`; empty if nothing. */
  readonly lacking: readonly string[];
  /** Its owner may use all that it uses of dblink. */
  readonly reachesDblink: boolean;
}

/** A foreign data wrapper with one of our names. */
interface Wrapper {
  readonly name: string;
  readonly validator: string | null;
  readonly handler: string | null;
  readonly isOurs: boolean;
}

/** An event trigger with one of our names. */
interface FoundEventTrigger {
  readonly name: string;
  readonly calls: string;
  readonly isOurs: boolean;
  /** It has the event and the tags of this version. */
  readonly isCurrent: boolean;
  readonly enabled: boolean;
}

/** A foreign server of ours. */
interface ForeignServer {
  readonly name: string;
  readonly wrapper: string;
  /** The names of its options, which every role can read with their values. */
  readonly options: readonly string[];
}

/** All of it. */
export interface NatsState extends Situation {
  /** Undefined if there is no such schema. */
  readonly functionsSchema: FunctionsSchema | undefined;
  readonly dblink: Dblink | undefined;
  readonly openFunctions: readonly OpenFunction[];
  /** Other roles, not everybody, that may call functions of dblink's library. */
  readonly dblinkUsers: readonly string[];
  readonly functions: readonly FoundFunction[];
  readonly wrappers: readonly Wrapper[];
  readonly eventTriggers: readonly FoundEventTrigger[];
  readonly servers: readonly ForeignServer[];
  readonly handlers: HandlersState;
}

/** A role that may do as the owner of the schema `hawser` anyway, who is trusted too; `owner` is an expression of its oid. */
const trusted = (owner: string) => `(
  ${owner} IN ${trustedRoles}
  OR EXISTS (
    SELECT FROM pg_namespace AS h
     WHERE h.nspname = 'hawser' AND h.nspowner IN ${trustedRoles} AND pg_has_role(${owner}, h.nspowner, 'MEMBER')))`;

const superusers = "(SELECT s.oid FROM pg_roles AS s WHERE s.rolsuper)";

/**
 * A role may call all of the functions of the schema. By the catalogs: to_regprocedure and its like fail for those who may
 * not use the schema.
 */
export const mayExecute = (role: string, schema: string, signatures: string) => `(
  SELECT count(*) = cardinality(${signatures}::text[]) AND coalesce(bool_and(has_function_privilege(${role}, x.oid, 'EXECUTE')), true)
    FROM pg_proc AS x
   WHERE x.pronamespace = ${schema}
     AND x.proname || '(' || pg_get_function_identity_arguments(x.oid) || ')' = ANY (${signatures}::text[]))`;

const situationSql = `
  SELECT current_user AS role, r.rolsuper AS superuser, pg_encoding_to_char(d.encoding) AS encoding,
         (SELECT pg_get_userbyid(h.nspowner) FROM pg_namespace AS h WHERE h.nspname = 'hawser') AS owner,
         (
           SELECT coalesce(max(e.extname::text), max(p.probin))
             FROM pg_proc AS p
             JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
             LEFT JOIN pg_depend AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid AND m.deptype = 'e'
             LEFT JOIN pg_extension AS e ON e.oid = m.refobjid AND e.extname = ANY ($1)
            WHERE e.oid IS NOT NULL OR p.probin ~ 'pgnats[^/]*$'
         ) AS native,
         EXISTS (SELECT FROM pg_available_extensions AS a WHERE a.name = 'dblink') AS "dblinkAvailable",
         pg_get_userbyid(n.nspowner) AS "dblinkSchemaOwner", ${trusted("n.nspowner")} AS "dblinkSchemaTrusted",
         EXISTS (SELECT FROM pg_namespace AS w WHERE w.nspname = '${foreignDataSchema}') AS "hasForeignDataSchema",
         (
           SELECT pg_get_userbyid(min(o.owner)) FROM (
             SELECT w.nspowner FROM pg_namespace AS w WHERE w.nspname = '${foreignDataSchema}'
             UNION ALL
             SELECT p.proowner FROM pg_proc AS p JOIN pg_namespace AS w ON w.oid = p.pronamespace WHERE w.nspname = '${foreignDataSchema}'
           ) AS o (owner) WHERE o.owner NOT IN ${superusers}
         ) AS "foreignDataStranger",
         EXISTS (
           SELECT FROM pg_namespace AS h JOIN pg_roles AS x ON x.oid = h.nspowner
            WHERE h.nspname = 'hawser' AND NOT x.rolsuper AND NOT EXISTS (
              SELECT FROM pg_roles AS o WHERE o.rolname = 'hawser_owner' AND pg_has_role(x.oid, o.oid, 'MEMBER'))
         ) AS "ownerIsStranger"
    FROM pg_database AS d
    JOIN pg_roles AS r ON r.rolname = current_user
    LEFT JOIN pg_namespace AS n ON n.nspname = $2
   WHERE d.datname = current_database()`;

const functionsSchemaSql = `
  SELECT has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE') AS creatable,
         (SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_roles AS r WHERE r.rolname = 'hawser_nats') AS usable
    FROM pg_namespace AS n WHERE n.nspname = $1`;

const dblinkSql = `
  SELECT n.nspname AS schema, n.nspname = $1 AND obj_description(n.oid, 'pg_namespace') = $2 AS "isOurs", e.oid IS NULL AS "isBare",
         has_schema_privilege(n.oid, 'USAGE') AND ${mayExecute("current_user", "n.oid", "$3")} AS usable
    FROM pg_namespace AS n
    LEFT JOIN pg_extension AS e ON e.extnamespace = n.oid AND e.extname = 'dblink'
   WHERE n.oid = coalesce(to_regnamespace(${bareDblinkPlaceSql})::oid,
           (SELECT i.extnamespace FROM pg_extension AS i WHERE i.extname = 'dblink'))`;

/** Functions by which a connection can be opened, used or looked at. */
const dblinkLibrary = `
  SELECT p.oid, p.pronamespace
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
   WHERE p.probin ~ '(^|/)dblink(\\.[a-z]+)?$' AND NOT p.prosrc = ANY ($1)`;

const openSql = `
  SELECT p.oid::regprocedure::text AS signature, EXISTS (
           SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'dblink'
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
         ) AS "isMember"
    FROM (${dblinkLibrary}) AS p
   WHERE has_function_privilege('public', p.oid, 'EXECUTE') AND has_schema_privilege('public', p.pronamespace, 'USAGE')
   ORDER BY 1`;

/** Who may act as the owner of the schema can read the password anyway. */
const dblinkUsersSql = `
  SELECT r.rolname AS role
    FROM pg_roles AS r
   WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND NOT ${trusted("r.oid")}
     AND EXISTS (
       SELECT FROM (${dblinkLibrary}) AS p
        WHERE has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_schema_privilege(r.oid, p.pronamespace, 'USAGE'))
   ORDER BY 1`;

/** By its pinned path and by what it calls, and not by its comment: that may change with any version. */
const functionsSql = `
  SELECT p.oid::regprocedure::text AS signature, n.nspname AS schema, p.proname AS name, p.prosrc AS body,
         pg_get_userbyid(p.proowner) AS owner,
         array_to_string(ARRAY(SELECT format_type(t.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, nth)
                                ORDER BY t.nth), ', ') AS types,
         pg_get_function_arguments(p.oid) AS arguments, coalesce(pg_get_function_result(p.oid), '') AS result,
         p.prokind = 'f' AND ('search_path=pg_catalog, pg_temp' = ANY (p.proconfig) AND p.prosrc ~ '\\mhawser\\.'
             OR p.proconfig IS NULL AND p.prosrc ~ '\\mhawser\\.(un)?bind_handler\\(')
           AND ${trusted("p.proowner")} AS "isOurs",
         ARRAY(
           SELECT 'USAGE on schema hawser' FROM pg_namespace AS h
            WHERE h.nspname = 'hawser' AND NOT has_schema_privilege(p.proowner, h.oid, 'USAGE')
           UNION ALL
           SELECT 'EXECUTE on function hawser.gateway_call' FROM pg_proc AS g JOIN pg_namespace AS h ON h.oid = g.pronamespace
            WHERE h.nspname = 'hawser' AND g.proname = 'gateway_call' AND NOT has_function_privilege(p.proowner, g.oid, 'EXECUTE')
           UNION ALL
           SELECT 'SELECT on table hawser.' || c.relname FROM pg_class AS c JOIN pg_namespace AS h ON h.oid = c.relnamespace
            WHERE h.nspname || '.' || c.relname = ANY ($2) AND NOT has_table_privilege(p.proowner, c.oid, 'SELECT')
         ) AS lacking,
         coalesce((
           SELECT has_schema_privilege(p.proowner, b.oid, 'USAGE') AND ${mayExecute("p.proowner", "b.oid", "$4")}
             FROM pg_namespace AS b WHERE b.nspname = $3
         ), false) AS "reachesDblink"
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
   WHERE n.nspname NOT IN ('hawser', '${foreignDataSchema}')
     AND (p.proname = ANY ($1) OR (p.proname ~ '^(nats|pgnats|litmus_pgnats)_' AND strpos(p.prosrc, 'hawser.gateway_call(') > 0))
   ORDER BY 1`;

const wrappersSql = `
  SELECT w.fdwname AS name, nullif(w.fdwvalidator, 0)::regproc::text AS validator, nullif(w.fdwhandler, 0)::regproc::text AS handler,
         coalesce(nullif(w.fdwvalidator, 0)::regproc::text = $2 AND w.fdwhandler = 0, false) AS "isOurs"
    FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = ANY ($1) ORDER BY w.fdwname`;

const eventTriggersSql = `
  SELECT t.evtname AS name, t.evtfoid::regprocedure::text AS calls, t.evtevent AS event, coalesce(t.evttags, '{}') AS tags,
         t.evtenabled <> 'D' AS enabled
    FROM pg_event_trigger AS t WHERE t.evtname = ANY ($1) ORDER BY t.evtname`;

const serversSql = `
  SELECT s.srvname AS name, w.fdwname AS wrapper,
         ARRAY(SELECT o.option_name FROM pg_options_to_table(s.srvoptions) AS o ORDER BY 1) AS options
    FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
   WHERE w.fdwname = ANY ($1) AND (w.fdwvalidator = 0 OR w.fdwvalidator::regproc::text = $2)
   ORDER BY s.oid`;

/** The queries, with their parameters in order, for SQL that looks by itself. */
export const inspection = {
  /** `nativeExtensions`, `dblinkSchema` */
  situation: situationSql,
  /** `dblinkSchema`, `dblinkMark`, `usedDblinkFunctions` */
  dblink: dblinkSql,
  /** `harmlessDblinkSymbols` */
  openFunctions: openSql,
  /** names, `readTables`, the schema of dblink or null, `usedDblinkFunctions` */
  functions: functionsSql,
  /** `wrapperNames`, `wrapperValidator` */
  wrappers: wrappersSql,
  /** names */
  eventTriggers: eventTriggersSql,
} as const;

/** Looks at the database as it is. The path of the session is pg_catalog and nothing before it. */
export async function inspectNats(client: pg.Client, schema: string): Promise<NatsState> {
  const rows = async <Row extends object>(text: string, ...values: unknown[]): Promise<Row[]> =>
    (await client.query<Row>(text, values)).rows;
  const names = publicFunctions({ schema, dblinkSchema }).map(({ name }) => name);
  const [situation] = await rows<Situation>(situationSql, nativeExtensions, dblinkSchema);
  const [functionsSchema] = await rows<FunctionsSchema>(functionsSchemaSql, schema);
  const [dblink] = await rows<Dblink>(dblinkSql, dblinkSchema, dblinkMark, usedDblinkFunctions);
  const triggers = await rows<FoundTriggerRow>(
    eventTriggersSql,
    eventTriggers.map(({ name }) => name),
  );
  return {
    ...situation!,
    functionsSchema,
    dblink,
    openFunctions: await rows<OpenFunction>(openSql, harmlessDblinkSymbols),
    dblinkUsers: (await rows<{ role: string }>(dblinkUsersSql, harmlessDblinkSymbols)).map(({ role }) => role),
    functions: await rows<FoundFunction>(functionsSql, names, readTables, dblink?.schema ?? null, usedDblinkFunctions),
    wrappers: await rows<Wrapper>(wrappersSql, wrapperNames, wrapperValidator),
    eventTriggers: triggers.map(foundEventTrigger),
    servers: await rows<ForeignServer>(serversSql, wrapperNames, wrapperValidator),
    handlers: await inspectHandlers(client),
  };
}

interface FoundTriggerRow {
  readonly name: string;
  readonly calls: string;
  readonly event: string;
  readonly tags: readonly string[];
  readonly enabled: boolean;
}

function foundEventTrigger({ name, calls, event, tags, enabled }: FoundTriggerRow): FoundEventTrigger {
  const wanted = eventTriggers.find((trigger) => trigger.name === name)!;
  const isOurs = calls === eventTriggerFunction;
  const sameTags = [...tags].sort().join() === [...wanted.tags].sort().join();
  return { name, calls, enabled, isOurs, isCurrent: isOurs && event === wanted.event && sameTags };
}
