/**
 * Installs dblink where other roles cannot use it. The owner of the SQL functions uses it to reach the gateway.
 *
 * `hawser init` installs the extension dblink in a schema of its own, or uses the one that an operator has installed.
 * The script of an extension cannot create another extension, so it creates the few C functions in use one by one
 * ("bare").
 */
import { errorTable } from "../../foundation/errors/index.js";
import { trustedRoles } from "../../jobs-and-peers/migrations/index.js";
import {
  againText,
  functionsOf,
  type InstalledObject,
  identifier,
  literal,
  literals,
  normalizePrivilegesSql,
  ownerDeclaration,
  pinnedPath,
  type RunQuery,
  someOf,
  textArray,
} from "./object.js";
import type { DblinkState, Fault, State } from "./state.js";

/** Schema created for dblink. Only the owner of the functions may use it. */
export const dblinkSchema = "hawser_dblink";

/** Comment that identifies {@link dblinkSchema} as created by `hawser init`. */
const mark = "dblink for Hawser, made by hawser init. Nobody else may use it.";

/**
 * Declarations of the dblink functions that `hawser.gateway_call` uses, as in the extension. All are in its library.
 */
const declarations: Readonly<Record<string, string>> = {
  "dblink_get_connections()":
    "RETURNS text[] AS '$libdir/dblink', 'dblink_get_connections' LANGUAGE c PARALLEL RESTRICTED",
  "dblink_is_busy(text)": "RETURNS integer AS '$libdir/dblink', 'dblink_is_busy' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_get_notify(text)":
    "RETURNS SETOF record AS '$libdir/dblink', 'dblink_get_notify' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_error_message(text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_error_message' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_connect(text, text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_connect' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink_disconnect(text)":
    "RETURNS text AS '$libdir/dblink', 'dblink_disconnect' LANGUAGE c STRICT PARALLEL RESTRICTED",
  "dblink(text, text)":
    "RETURNS SETOF record AS '$libdir/dblink', 'dblink_record' LANGUAGE c STRICT PARALLEL RESTRICTED",
};

/** Declarations with parameter names and OUT parameters, where the extension has them, by signature. */
const namedParameters: Readonly<Record<string, string>> = {
  "dblink_get_notify(text)":
    "dblink_get_notify(conname text, OUT notify_name text, OUT be_pid integer, OUT extra text)",
};

/** Signatures of the dblink functions in use. */
export const usedDblinkFunctions: readonly string[] = Object.keys(declarations);

/** Functions of dblink's library that use no connection. */
const harmlessSymbols = [
  "dblink_fdw_validator",
  "dblink_get_pkey",
  "dblink_build_sql_insert",
  "dblink_build_sql_update",
  "dblink_build_sql_delete",
  "dblink_current_query",
];

/**
 * SQL expression: schema that contains all bare functions; null if none does. Only superusers can create C functions,
 * so no other role can have put them there. Uses the catalogs, because to_regprocedure fails for roles without USAGE on
 * the schema.
 */
const barePlaceSql = `(
  SELECT min(n.nspname)
    FROM pg_proc AS p
    JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
   WHERE p.probin ~ '(^|/)dblink$' AND n.nspname = ${literal(dblinkSchema)}
     AND p.proname || '(' || oidvectortypes(p.proargtypes) || ')' = ANY (${textArray(usedDblinkFunctions)})
     AND NOT EXISTS (
       SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'dblink'
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  HAVING count(*) = ${usedDblinkFunctions.length})`;

/** SQL expression: schema of dblink; null if it is not installed. */
export const dblinkPlaceSql = `coalesce(${barePlaceSql},
      (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'dblink'))`;

/** SQL condition: a role may use all dblink functions in use. @param schema SQL expression of the schema's oid */
export const mayUseDblink = (role: string, schema: string): string => `(
  has_schema_privilege(${role}, ${schema}, 'USAGE') AND (
    SELECT count(*) = ${usedDblinkFunctions.length} AND coalesce(bool_and(has_function_privilege(${role}, x.oid, 'EXECUTE')), true)
      FROM pg_proc AS x
     WHERE x.pronamespace = ${schema}
       AND x.proname || '(' || oidvectortypes(x.proargtypes) || ')' = ANY (${textArray(usedDblinkFunctions)})))`;

/**
 * SQL condition: the role may act as the owner of the schema `hawser`, who is trusted. @param owner SQL expression of
 * the role's oid
 */
export const isTrusted = (owner: string): string => `(
  ${owner} IN ${trustedRoles}
  OR EXISTS (
    SELECT FROM pg_namespace AS h
     WHERE h.nspname = 'hawser' AND h.nspowner IN ${trustedRoles} AND pg_has_role(${owner}, h.nspowner, 'MEMBER')))`;

const foundSql = `
  SELECT n.nspname AS schema, n.nspname = '${dblinkSchema}' AND obj_description(n.oid, 'pg_namespace') = ${literal(mark)} AS "isOurs",
         e.oid IS NULL AS "isBare", ${mayUseDblink("current_user", "n.oid")} AS usable,
         ${mayUseDblink(`coalesce((SELECT r.rolname FROM pg_roles AS r WHERE r.rolname = 'hawser_owner'), 'public')`, "n.oid")}
           OR has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION') AS "ownerUses"
    FROM pg_namespace AS n LEFT JOIN pg_extension AS e ON e.extnamespace = n.oid AND e.extname = 'dblink'
   WHERE n.nspname = ${dblinkPlaceSql}`;

/** Query: functions that can open, use or read a connection. */
const library = `
  SELECT p.oid, p.pronamespace
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'c'
   WHERE p.probin ~ '(^|/)dblink(\\.[a-z]+)?$' AND p.prosrc NOT IN (${literals(harmlessSymbols)})`;

const openSql = `
  SELECT p.oid::regprocedure::text AS signature, EXISTS (
           SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'dblink'
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
         ) AS "isMember"
    FROM (${library}) AS p
   WHERE has_function_privilege('public', p.oid, 'EXECUTE') AND has_schema_privilege('public', p.pronamespace, 'USAGE')
   ORDER BY 1`;

/**
 * Query: roles that may use dblink, without the roles that may act as the owner of the schema, because they can read
 * the password anyway.
 */
const usersSql = `
  SELECT r.rolname AS role
    FROM pg_roles AS r
   WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND NOT ${isTrusted("r.oid")}
     AND EXISTS (
       SELECT FROM (${library}) AS p
        WHERE has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_schema_privilege(r.oid, p.pronamespace, 'USAGE'))
   ORDER BY 1`;

const placeSql = `
  SELECT EXISTS (SELECT FROM pg_available_extensions AS a WHERE a.name = 'dblink') AS available,
         to_regnamespace('${dblinkSchema}') IS NOT NULL AS "hasSchema"`;

/** Inspects dblink and the roles that may use it. */
export async function inspectDblink(runQuery: RunQuery): Promise<DblinkState> {
  const [place] = await runQuery<Pick<DblinkState, "available" | "hasSchema">>(placeSql);
  const [found] = await runQuery<NonNullable<DblinkState["found"]>>(foundSql);
  return {
    ...place!,
    found,
    open: await runQuery<DblinkState["open"][number]>(openSql),
    users: (await runQuery<{ role: string }>(usersSql)).map(({ role }) => role),
  };
}

/**
 * SQL that installs dblink.
 *
 * @param isBare creates the functions instead of the extension, even if the extension is installed elsewhere. The
 * script of an extension cannot create another one, and its grants on existing objects would be missing in dumps
 */
export function dblinkSql({ isBare }: { readonly isBare: boolean }): string {
  const creations = isBare
    ? usedDblinkFunctions.map(
        (signature) =>
          `CREATE FUNCTION ${dblinkSchema}.${namedParameters[signature] ?? signature} ${declarations[signature]};`,
      )
    : [`CREATE EXTENSION dblink SCHEMA ${dblinkSchema};`];
  return `${pinnedPath}
DO $do$
DECLARE
  ${ownerDeclaration}
  place name := ${dblinkPlaceSql};
  routine text;
BEGIN
  IF place ${isBare ? `IS DISTINCT FROM ${literal(dblinkSchema)}` : "IS NULL"} THEN
    place := ${literal(dblinkSchema)};
    IF to_regnamespace(${literal(dblinkSchema)}) IS NULL THEN
      CREATE SCHEMA ${dblinkSchema};
      ${normalizePrivilegesSql(
        `SELECT 'SCHEMA ${dblinkSchema}' AS object, n.nspowner AS owner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
        FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)}`,
      )}
    ELSIF EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)} AND n.nspowner NOT IN ${trustedRoles}) THEN
      RAISE EXCEPTION USING
        ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
        MESSAGE = 'the schema ${dblinkSchema} belongs to another role',
        HINT = 'DROP SCHEMA ${dblinkSchema}';
    END IF;
    COMMENT ON SCHEMA ${dblinkSchema} IS ${literal(mark)};
    ${creations.join("\n    ")}
    ${normalizePrivilegesSql(functionsOf(dblinkSchema, "p.probin ~ '(^|/)dblink$'"))}
  END IF;
  IF place = ${literal(dblinkSchema)} THEN
    -- A connection belongs to the session and not to a role: no other role may use it, neither through the schema
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
  FOREACH routine IN ARRAY ${textArray(usedDblinkFunctions)} LOOP
    IF NOT has_function_privilege(owner, format('%I.%s', place, routine), 'EXECUTE') THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%s TO %I', place, routine, owner);
    END IF;
  END LOOP;${
    isBare
      ? ""
      : `
EXCEPTION
  -- Postgres without its contrib modules has no dblink.
  WHEN insufficient_privilege OR feature_not_supported OR undefined_file THEN
    RAISE NOTICE 'dblink is not ready for Hawser: %', SQLERRM;`
  }
END
$do$;`;
}

/** Statements that move the extension to a schema that only its owner may use. */
const moveTo = (schema: string) => [
  `CREATE SCHEMA IF NOT EXISTS ${schema}`,
  `REVOKE ALL ON SCHEMA ${schema} FROM PUBLIC`,
  `ALTER EXTENSION dblink SET SCHEMA ${schema}`,
];

/** Moves dblink to the schema {@link dblinkSchema}, unless that contains, or will contain, the bare functions. */
const moveRemedy = `CASE WHEN input.scripted OR ${barePlaceSql} IS NOT NULL THEN ${literal(moveTo("dblink").join("; "))}
              ELSE ${literal(moveTo(dblinkSchema).join("; "))} END`;

const conflicts = `
  SELECT 60 AS nth, 'name_occupied' AS code,
         format('the schema ${dblinkSchema}, where dblink goes, belongs to "%s", who could put functions into it', pg_get_userbyid(n.nspowner)) AS what,
         'DROP SCHEMA ${dblinkSchema}' AS remedy
    FROM pg_namespace AS n CROSS JOIN input
   WHERE n.nspname = '${dblinkSchema}' AND NOT ${isTrusted("n.nspowner")} AND (input.scripted OR ${dblinkPlaceSql} IS NULL)
  UNION ALL
  SELECT 61, 'name_occupied', format('dblink is in a schema with the name %I, which cannot be written into a function', n.nspname),
         ${moveRemedy}
    FROM pg_namespace AS n CROSS JOIN input WHERE n.nspname = ${dblinkPlaceSql} AND NOT input.scripted AND n.nspname ~ '["''$@[:cntrl:]\\\\]'
  UNION ALL
  SELECT 62, 'dblink_shared',
         format('every role may call dblink%s (%s), and with it use or replace the gateway''s connection of a session that it shares',
                (SELECT format(' in the schema "%s"', n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
                  WHERE e.extname = 'dblink' AND ${barePlaceSql} IS NULL), min(o.signature)),
         concat_ws('; ', CASE WHEN bool_or(o."isMember") THEN ${moveRemedy} END,
                   'REVOKE EXECUTE ON FUNCTION ' || string_agg(o.signature, ', ') FILTER (WHERE NOT o."isMember") || ' FROM PUBLIC')
    FROM (${openSql}) AS o CROSS JOIN input WHERE NOT input.shared GROUP BY input.scripted HAVING count(*) > 0
  UNION ALL
  SELECT 63, 'not_supported', 'this Postgres does not have dblink, by which the SQL functions reach the gateway',
         'install the contrib modules of Postgres, which it is one of (such as the package postgresql-contrib)'
    FROM input WHERE input.scripted AND NOT EXISTS (SELECT FROM pg_available_extensions AS a WHERE a.name = 'dblink')`;

/** Schema of dblink once an installation by the current role has made it; undefined if it cannot. */
export function plannedSchema({ dblink: { found, available }, roles }: State): string | undefined {
  return found?.schema ?? (available && roles.superuser ? dblinkSchema : undefined);
}

export const dblink: InstalledObject = {
  name: "dblink",
  what: "dblink",
  ofNats: true,
  create: dblinkSql({ isBare: false }),
  conflicts,
  faults: (state) => [...missing(state), ...risks(state)],
  superuserStatements({ dblink: { found, available, hasSchema } }) {
    if (found === undefined) return available ? newStatements(hasSchema, "hawser_owner") : [];
    return found.ownerUses ? [] : useStatements(found.schema, "hawser_owner");
  },
  removals: ({ dblink: { found }, roles: { role } }) =>
    found?.isOurs ? [removal(role, found.isBare ? bareFunctions : "EXTENSION dblink")] : [],
};

const bareFunctions = `FUNCTION ${usedDblinkFunctions.map((signature) => `${dblinkSchema}.${signature}`).join(", ")}`;

/** Drops dblink, unless other objects use it. */
function removal(role: string, what: string) {
  return {
    what: "dblink",
    sql: `DROP ${what};\n  DROP SCHEMA ${dblinkSchema};`,
    left: {
      what: `dblink is still there: something else uses it, or "${role}" may not drop it`,
      meaning: "it does no harm; nobody but its owner may use it",
      remedy: `as a superuser: DROP ${what}; DROP SCHEMA ${dblinkSchema};`,
    },
  };
}

/** Statements that install dblink for one role only. */
function newStatements(hasSchema: boolean, who: string): string[] {
  return [
    ...(hasSchema ? [] : [`CREATE SCHEMA ${dblinkSchema}`]),
    `CREATE EXTENSION dblink SCHEMA ${dblinkSchema}`,
    `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ${dblinkSchema} FROM PUBLIC`,
    ...useStatements(dblinkSchema, who),
  ];
}

/** Statements that let a role use dblink. */
function useStatements(schema: string, who: string): string[] {
  const [place, role] = [identifier(schema), identifier(who)];
  const routines = usedDblinkFunctions.map((signature) => `${place}.${signature}`).join(", ");
  return [`GRANT USAGE ON SCHEMA ${place} TO ${role}`, `GRANT EXECUTE ON FUNCTION ${routines} TO ${role}`];
}

function missing({ dblink: { found, available, hasSchema }, functions, roles, refusals }: State): Fault[] {
  const owner = roles.owner ?? roles.role;
  if (found === undefined) {
    const statements = newStatements(hasSchema, owner).join("; ");
    return [
      {
        kind: "missing",
        what: `dblink is not installed${available ? "" : ", and Postgres does not have it: it is one of its contrib modules"}`,
        refused: available ? "install it" : undefined,
        meaning: "the SQL functions are left out: they reach the gateway through dblink",
        remedy: `${available ? "" : "install the contrib modules of Postgres; then, "}as a superuser: ${statements}; ${againText}`,
        repairable: available && roles.superuser,
        essential: true,
        code: "not_supported",
      },
    ];
  }
  const ours = functions.found.filter(({ isOurs }) => isOurs);
  const cutOff = ours.filter(({ reachesDblink }) => !reachesDblink).map((fn) => fn.owner);
  // Functions that could not be created must be repaired first.
  if (ours.length === 0 && !refusals.has("functions") && !found.usable && !found.ownerUses) cutOff.push(owner);
  return [...new Set(cutOff)].map((name) => ({
    kind: "missing",
    what: `"${name}", whom the SQL functions belong to, may not use dblink in the schema "${found.schema}"`,
    meaning: "the SQL functions fail: they reach the gateway through dblink",
    remedy: `as a superuser: ${useStatements(found.schema, name).join("; ")}`,
    repairable: found.usable,
    essential: true,
    code: "not_permitted",
  }));
}

function risks({ dblink: { found, open, users } }: State): Fault[] {
  const harm = "and with it use or replace the gateway's connection of a session that";
  if (open.length > 0) {
    const others = open.filter(({ isMember }) => !isMember).map(({ signature }) => signature);
    const where = found === undefined || found.isBare ? "" : ` in the schema "${found.schema}"`;
    const remedies = [
      ...(open.length > others.length ? moveTo(found?.isBare ? "dblink" : dblinkSchema) : []),
      ...(others.length > 0 ? [`REVOKE EXECUTE ON FUNCTION ${others.join(", ")} FROM PUBLIC`] : []),
    ];
    const remedy = `as a superuser: ${remedies.join("; ")}; ${againText}`;
    return [{ kind: "risk", what: `every role may call dblink${where}, ${harm} it shares`, remedy }];
  }
  if (users.length === 0) return [];
  const named = users.map((role) => `"${role}"`);
  const place = found === undefined ? "the schema that it is in" : `SCHEMA ${identifier(found.schema)}`;
  const remedy = `where it is not needed: REVOKE USAGE ON ${place} FROM ${users.map(identifier).join(", ")}`;
  return [{ kind: "risk", what: `${someOf(named, 5)} may call dblink, ${harm} is theirs`, remedy }];
}
