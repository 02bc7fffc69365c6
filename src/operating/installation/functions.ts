/**
 * SQL functions that call NATS. They belong to the owner of the schema `hawser` and run with its privileges. Their text
 * is generated for the schema that the operator chooses.
 */
import { natsFunctions, natsFunctionsGrantsSql, natsFunctionsSql } from "../../../generated/ts/nats-functions/sql.js";
import { tables } from "../../../generated/ts/rows/nats.js";
import { errorsGrantsSql } from "../../../generated/ts/sql/errors-schema.js";
import type { Grant } from "../../jobs-and-peers/migrations/index.js";
import { dblinkPlaceSql, isTrusted, mayUseDblink, plannedSchema } from "./dblink.js";
import {
  againText,
  type InstalledObject,
  identifier,
  literal,
  literals,
  pinnedPath,
  type RunQuery,
  someOf,
  textArray,
} from "./object.js";
import type { Fault, FoundFunction, FunctionsState, State } from "./state.js";

/** Default schema of the functions. */
export const defaultFunctionsSchema = "public";

/** Schemas of the functions and of dblink. */
export interface FunctionPlaces {
  readonly schema: string;
  readonly dblinkSchema: string;
}

/**
 * Name that is valid in a quoted identifier, a string and a dollar-quoted body; as a regular expression of JavaScript
 * and of Postgres.
 */
const plainName = /^[^"'$\\@\p{Cc}]+$/u;
const unplainName = `'["''$\\\\@[:cntrl:]]'`;

/** Schemas of Postgres and of Hawser. */
const reservedSchemas = /^(pg_.*|information_schema|hawser|hawser_run|pgnats|hawser_dblink|hawser_fdw)$/;

function filled(text: string, { schema, dblinkSchema: dblink }: FunctionPlaces): string {
  for (const name of [schema, dblink]) {
    if (!plainName.test(name))
      throw new Error(`the schema name ${JSON.stringify(name)} cannot be put into the functions`);
  }
  return text.replaceAll("@extschema@", () => identifier(schema)).replaceAll("@dblink@", () => identifier(dblink));
}

const signatureOf = ({ name, types }: { readonly name: string; readonly types: string }) => `${name}(${types})`;

/** Functions outside the schema `hawser`, by signature. */
const publicFunctions = new Map(
  natsFunctions.filter(({ schema }) => schema !== "hawser").map((fn) => [signatureOf(fn), fn]),
);

/** Number of functions outside the schema `hawser`. */
export const publicFunctionCount = publicFunctions.size;

/** Grants of the functions that {@link functionsText} makes. */
export function functionsGrants(schema: string): Grant[] {
  return [...publicFunctions.keys()].map((signature) => ({
    role: "hawser_nats",
    kind: "FUNCTION",
    object: `${identifier(schema)}.${signature}`,
    privilege: "EXECUTE",
  }));
}

/** Functions in the schema hawser that the public functions call. */
const internalFunctions = natsFunctions
  .filter(({ schema }) => schema === "hawser")
  .map((fn) => `hawser.${signatureOf(fn)}`);
const gatewayCall = "hawser.gateway_call(text)";

export const dropInternalFunctions = `DROP FUNCTION IF EXISTS ${internalFunctions.join(", ")};`;

/**
 * Query: functions with the names of Hawser's. Hawser's own ones are recognised by their fixed search_path and the
 * functions that they call, and not by their comments, which may change with any version.
 */
export const foundFunctionsSql = `
  WITH owners AS MATERIALIZED (
    SELECT o.oid, ${isTrusted("o.oid")} AS is_trusted,
           coalesce((SELECT ${mayUseDblink("o.oid", "b.oid")} FROM pg_namespace AS b WHERE b.nspname = ${dblinkPlaceSql}), false) AS reaches,
           ARRAY(
             SELECT 'USAGE on schema hawser' FROM pg_namespace AS h WHERE h.nspname = 'hawser' AND NOT has_schema_privilege(o.oid, h.oid, 'USAGE')
             UNION ALL
             SELECT 'EXECUTE on function hawser.gateway_call' FROM pg_proc AS g JOIN pg_namespace AS h ON h.oid = g.pronamespace
              WHERE h.nspname = 'hawser' AND g.proname = 'gateway_call' AND NOT has_function_privilege(o.oid, g.oid, 'EXECUTE')
             UNION ALL
             SELECT 'SELECT on table ' || h.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS h ON h.oid = c.relnamespace
              WHERE h.nspname || '.' || c.relname IN (${literals([tables.natsServer, tables.gateway, tables.gatewaySecret])})
                AND NOT has_table_privilege(o.oid, c.oid, 'SELECT')
           ) AS lacking
      FROM (SELECT DISTINCT p.proowner AS oid FROM pg_proc AS p WHERE p.proname ~ '^(nats|pgnats|litmus_pgnats)_') AS o
  )
  SELECT p.oid::regprocedure::text AS signature, n.nspname AS schema, p.proname AS name, p.prosrc AS body,
         pg_get_userbyid(p.proowner) AS owner,
         array_to_string(ARRAY(SELECT format_type(t.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, nth)
                                ORDER BY t.nth), ', ') AS types,
         pg_get_function_arguments(p.oid) AS arguments, coalesce(pg_get_function_result(p.oid), '') AS result,
         p.prokind = 'f' AND ('search_path=pg_catalog, pg_temp' = ANY (p.proconfig) AND p.prosrc ~ '\\mhawser\\.'
             OR p.proconfig IS NULL AND p.prosrc ~ '\\mhawser\\.((un)?bind_handler|request_seek)\\(')
           AND o.is_trusted AS "isOurs", o.lacking, o.reaches AS "reachesDblink"
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN owners AS o ON o.oid = p.proowner
   WHERE n.nspname NOT IN ('hawser', 'hawser_fdw') AND p.proname ~ '^(nats|pgnats|litmus_pgnats)_'
     AND (p.proname = ANY (${textArray([...new Set([...publicFunctions.values()].map(({ name }) => name))])})
          OR p.prosrc ~ '\\mhawser\\.(gateway_call|enqueue_nats)\\(')
   ORDER BY 1`;

/** SQL expression: name of the role, or `public` if the role does not exist yet. */
const roleSql = (name: string) =>
  `coalesce((SELECT r.rolname FROM pg_roles AS r WHERE r.rolname = '${name}'), 'public')`;

const schemaSql = `
  SELECT (SELECT p.prosrc FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('hawser') AND p.proname = 'gateway_call') AS "gatewayCall",
         coalesce(has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE'), false) AS creatable,
         coalesce((SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_roles AS r WHERE r.rolname = 'hawser_nats'), true) AS usable,
         coalesce(has_schema_privilege(${roleSql("hawser_owner")}, n.oid, 'CREATE') AND has_schema_privilege(${roleSql("hawser_owner")}, n.oid, 'USAGE'), true) AS "ownerCreates",
         coalesce(has_schema_privilege(${roleSql("hawser_nats")}, n.oid, 'USAGE') OR has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION'), true) AS "callersUse"
    FROM (SELECT) AS one LEFT JOIN pg_namespace AS n ON n.nspname = $1`;

/**
 * Inspects the functions.
 *
 * @param schema intended schema; undefined for their current schema
 */
export async function inspectFunctions(
  runQuery: RunQuery,
  schema: string | undefined,
): Promise<{ readonly schema: string; readonly functions: FunctionsState }> {
  const found = await runQuery<FoundFunction>(foundFunctionsSql);
  const place = schema ?? found.find(({ isOurs }) => isOurs)?.schema ?? defaultFunctionsSchema;
  const [state] = await runQuery<Omit<FunctionsState, "found">>(schemaSql, place);
  return { schema: place, functions: { ...state!, found } };
}

/** DROP statements for our functions that this version does not have, or declares with other names or results. */
function outdated({ functions: { found }, schema }: State): string[] {
  return found
    .filter((fn) => {
      const now = publicFunctions.get(signatureOf(fn));
      const isCurrent = now !== undefined && now.arguments === fn.arguments && now.result === fn.result;
      return fn.isOurs && fn.schema === schema && !isCurrent;
    })
    .map(({ signature }) => `DROP FUNCTION ${signature};`);
}

/**
 * SQL of the functions, their owner and grants. Existing functions keep the grants of operators. Functions may stay
 * with the installing role, which is a member of their owner; the owner need not be a member of that role.
 *
 * @param before statements that drop outdated functions
 */
export function functionsText(places: FunctionPlaces, before: readonly string[] = []): string {
  return [
    pinnedPath,
    ...before,
    filled(natsFunctionsSql, places),
    filled(natsFunctionsGrantsSql, places),
    `DO $do$
DECLARE
  owner CONSTANT text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'hawser');
BEGIN
${internalFunctions.map((each) => `  EXECUTE pg_catalog.format('ALTER FUNCTION ${each} OWNER TO %I', owner);`).join("\n")}
EXCEPTION
  WHEN insufficient_privilege THEN NULL;
END
$do$;
DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hawser_nats')
    AND NOT pg_catalog.has_schema_privilege('hawser_nats', ${literal(places.schema)}, 'USAGE')
  THEN
    GRANT USAGE ON SCHEMA ${identifier(places.schema)} TO hawser_nats;
  END IF;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'hawser_nats may not use the schema of the functions, and % may not let it', current_user;
END
$do$;
`,
    errorsGrantsSql,
  ].join("\n");
}

const conflicts = `
  SELECT 1 AS nth, 'invalid_argument' AS code,
         format('%I cannot be the schema of the SQL functions: its name must be without quotes, $, @, \\ and control characters, and it must belong neither to Postgres nor to Hawser', input.place) AS what,
         'CREATE EXTENSION litmus_pgnats SCHEMA public' AS remedy
    FROM input WHERE input.place ~ ${literal(reservedSchemas.source)} OR input.place ~ ${unplainName}
  UNION ALL
  SELECT 2, 'invalid_argument', format('the schema "%s" for the SQL functions does not exist', input.place),
         format('CREATE SCHEMA %I, or name another one', input.place)
    FROM input WHERE NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = input.place)
  UNION ALL
  SELECT 10, 'not_supported',
         format('the database''s encoding is %s, and NATS from SQL needs UTF8', pg_encoding_to_char(d.encoding)), 'use a database with that encoding'
    FROM pg_database AS d WHERE d.datname = current_database() AND pg_encoding_to_char(d.encoding) <> 'UTF8'
  UNION ALL
  SELECT 11, 'native_extension',
         format('the native extension (%s) is installed in this database, and its functions have the same names', coalesce(max(e.extname::text), max(p.probin))),
         'DROP EXTENSION first, or use another database'
    FROM pg_proc AS p
    JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
    LEFT JOIN pg_depend AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid AND m.deptype = 'e'
    LEFT JOIN pg_extension AS e ON e.oid = m.refobjid AND e.extname IN ('pgnats', 'litmus_pgnats')
   WHERE e.oid IS NOT NULL OR p.probin ~ 'pgnats[^/]*$' HAVING count(*) > 0
  UNION ALL
  SELECT 20, 'name_occupied', format('the SQL functions are installed in the schema "%s"', min(f.schema)),
         CASE WHEN input.scripted THEN format('CREATE EXTENSION litmus_pgnats SCHEMA %I', min(f.schema)) ELSE 'name that one with --schema' END
           || ', or run \`hawser uninstall\` first'
    FROM (${foundFunctionsSql}) AS f CROSS JOIN input WHERE f."isOurs" AND f.schema <> input.place GROUP BY input.scripted HAVING count(*) > 0
  UNION ALL
  SELECT 21, 'name_occupied',
         format('functions that are not Hawser''s have the names of its functions: %s%s', string_agg(format('%s of "%s"', f.signature, f.owner), ', ') FILTER (WHERE f.nth <= 5),
                CASE WHEN count(*) > 5 THEN format(' and %s more', count(*) - 5) END),
         'rename or drop them, or choose another schema'
    FROM (
      SELECT f.signature, f.owner, row_number() OVER (ORDER BY f.signature) AS nth FROM (${foundFunctionsSql}) AS f CROSS JOIN input
       WHERE NOT f."isOurs" AND f.schema = input.place AND format('%s(%s)', f.name, f.types) = ANY (${textArray([...publicFunctions.keys()])})
    ) AS f HAVING count(*) > 0`;

export const functions: InstalledObject = {
  name: "functions",
  what: "the SQL functions",
  ofNats: true,
  create: (state, dryRun) => {
    const place = dryRun ? plannedSchema(state) : state.dblink.found?.schema;
    if (place === undefined || (dryRun && !state.functions.creatable)) return undefined;
    return functionsText({ schema: state.schema, dblinkSchema: place }, outdated(state));
  },
  conflicts,
  faults: (state) => {
    const { found } = state.dblink;
    // Without dblink there are no functions; the object dblink reports this fault.
    if (found === undefined) return [];
    const wrong = differences(state, { schema: state.schema, dblinkSchema: found.schema });
    // While functions are missing, ownership does not matter yet, but missing privileges of the existing ones do.
    if (wrong.length > 0) return [...wrong, ...lackingFaults(state)];
    return [...ownerFaults(state), ...lackingFaults(state), ...callerFaults(state)];
  },
  superuserStatements: ({ schema, functions: { ownerCreates, callersUse } }) => [
    ...(ownerCreates ? [] : [`GRANT USAGE, CREATE ON SCHEMA ${identifier(schema)} TO hawser_owner`]),
    ...(callersUse ? [] : [`GRANT USAGE ON SCHEMA ${identifier(schema)} TO hawser_nats`]),
  ],
  removals: ({ functions: { found }, roles }) => {
    const ours = found.filter(({ isOurs }) => isOurs);
    if (ours.length === 0) return [];
    const { owner } = ours[0]!;
    const drop = `DROP FUNCTION\n  ${ours.map(({ signature }) => signature).join(",\n  ")};`;
    return [
      {
        what: "SQL functions",
        sql: [drop, ...(roles.owner === null ? [] : [dropInternalFunctions])].join("\n"),
        left: {
          what: `${ours.length} SQL functions of "${owner}" are still there, and "${roles.role}" may not drop them`,
          meaning: "they can be called as before",
          remedy: `run \`hawser uninstall\` as "${owner}" or as a superuser`,
        },
      },
    ];
  },
};

/** Function that returns the version of the SQL functions. */
const versionFunction = "litmus_pgnats_version";

/** Extracts the version from the body of {@link versionFunction}, or from the statement that creates it. */
const versionIn = (text = "") => /'(\d[^']*)'::text/.exec(text)?.[1];

/** Functions that are missing or of another version. */
function differences(inspected: State, places: FunctionPlaces): Fault[] {
  const { functions: state, schema, roles, refusals } = inspected;
  const present = new Map(oursIn(inspected).map((fn) => [signatureOf(fn), fn]));
  const missing: string[] = [];
  const others: string[] = [];
  const isCreatedBy = (statement: string, body: string) =>
    filled(statement, places).includes(`AS $function$${body}$function$;`);
  for (const [signature, { statement, result }] of publicFunctions) {
    const one = present.get(signature);
    if (one === undefined) missing.push(signature);
    else if (one.result !== result || !isCreatedBy(statement, one.body)) others.push(signature);
  }
  if (state.gatewayCall === null) missing.push(gatewayCall);
  else if (!isCreatedBy(natsFunctionsSql, state.gatewayCall)) others.push(gatewayCall);

  const refusal = refusals.get("functions");
  const isRefused = refusal !== undefined || !(state.creatable || state.ownerCreates);
  const fault = (what: string, of: readonly string[], remedy: string): Fault => ({
    kind: "missing",
    what,
    refused: `make ${of.length === 1 ? "it" : "them"}${refusal === undefined ? "" : ` (${refusal})`}`,
    meaning: "missing functions cannot be called",
    isPlain: true,
    remedy: isRefused
      ? `as the owner of the schema: GRANT USAGE, CREATE ON SCHEMA ${identifier(schema)} TO ${identifier(roles.owner ?? roles.role)}, or ` +
        `name a schema of your own with --schema; ${againText}`
      : remedy,
    repairable: state.creatable,
    essential: true,
  });
  const asOwner = "as the owner of the schema hawser, or as a superuser";
  const make = `run \`hawser init\` ${asOwner}; first rename functions of others that have these names`;
  if (present.size === 0) {
    const what = `the SQL functions in the schema "${schema}" are missing or of another version`;
    return [fault(what, [...publicFunctions.keys()], make)];
  }
  const named = (of: readonly string[]) => (of.length === 1 ? "the SQL function" : `${of.length} SQL functions`);
  const are = (of: readonly string[]) => (of.length === 1 ? "is" : "are");
  const own = versionIn(publicFunctions.get(`${versionFunction}()`)?.statement);
  const other = versionIn(present.get(`${versionFunction}()`)?.body);
  const version = other === undefined || other === own ? "another build of it" : `version ${other}`;
  return [
    ...(missing.length === 0
      ? []
      : [fault(`${named(missing)} ${someOf(missing, 3)} ${are(missing)} missing`, missing, make)]),
    ...(others.length === 0
      ? []
      : [
          {
            ...fault(
              `${named(others)} ${someOf(others, 3)} ${are(others)} of ${version}, and this program is version ${own}`,
              others,
              // Either version may be the newer one.
              `run \`hawser init\` of the newer version ${asOwner}, and let \`hawser serve\` be of the same version`,
            ),
            meaning: "calls may have other results than with this version",
            severity: others.includes(gatewayCall) ? ("error" as const) : ("warning" as const),
          },
        ]),
  ];
}

/** Hawser's functions in the intended schema. */
const oursIn = ({ functions: { found }, schema }: State) => found.filter((fn) => fn.isOurs && fn.schema === schema);

function ownerFaults(state: State): Fault[] {
  const { schema, roles } = state;
  const owner = roles.owner ?? roles.role;
  const others = [...new Set(oursIn(state).map((fn) => fn.owner))].filter((name) => name !== owner);
  return others.map((name) => ({
    kind: "missing",
    what: `SQL functions in the schema "${schema}" belong to "${name}" and not to "${owner}"`,
    meaning: `they work, but only "${name}" and superusers can update them`,
    remedy: `as a superuser: run \`hawser init\`, or GRANT CREATE ON SCHEMA ${identifier(schema)} TO ${identifier(owner)}; ${againText}`,
    repairable: true,
    severity: "note",
  }));
}

function lackingFaults(state: State): Fault[] {
  const { roles } = state;
  const found = oursIn(state).find(({ lacking }) => lacking.length > 0);
  if (found === undefined) return [];
  return [
    {
      kind: "missing",
      what: `"${found.owner}", whom SQL functions belong to, lacks ${found.lacking.join(", ")}`,
      meaning: "they fail",
      remedy: `as a superuser: GRANT ${identifier(roles.owner ?? roles.role)} TO ${identifier(found.owner)}`,
      repairable: true,
      code: "not_permitted",
    },
  ];
}

function callerFaults({ functions: { usable }, schema }: State): Fault[] {
  if (usable) return [];
  return [
    {
      kind: "missing",
      what: `hawser_nats may not use the schema "${schema}"`,
      refused: "let it",
      meaning: "a login that has only hawser_nats cannot call the SQL functions",
      remedy: `as the owner of the schema: GRANT USAGE ON SCHEMA ${identifier(schema)} TO hawser_nats`,
      repairable: true,
      code: "not_permitted",
    },
  ];
}
