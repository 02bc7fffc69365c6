/**
 * dblink where nobody else can use it, and its use by the owner of the SQL functions, which reach the gateway through it.
 *
 * It is the extension dblink in a schema of its own or, where an operator has put it elsewhere, there. The script of an
 * extension may not create another extension: it makes the few C functions that are used, one by one ("bare").
 */
import { errorTable } from "../errors/index.js";
import { trustedRoles } from "../store/index.js";
import {
  type Ask,
  againText,
  closeSql,
  functionsOf,
  type InstalledObject,
  identifier,
  literal,
  literals,
  ownerDeclaration,
  pinnedPath,
  someOf,
  textArray,
} from "./object.js";
import type { DblinkState, Fault, State } from "./state.js";

/** The schema that is made for dblink, and closed to everybody but the owner of the functions. */
export const dblinkSchema = "hawser_dblink";

/** The comment on {@link dblinkSchema} by which it is known again as made by `hawser init`. */
const mark = "dblink for Hawser, made by hawser init. Nobody else may use it.";

/** What `hawser.gateway_call` uses of dblink, as the extension declares it; all are in its library. */
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

/** Parameters with their names and results, where the extension has them; by the signature. */
const namedParameters: Readonly<Record<string, string>> = {
  "dblink_get_notify(text)":
    "dblink_get_notify(conname text, OUT notify_name text, OUT be_pid integer, OUT extra text)",
};

/** The signatures of what is used. */
export const usedDblinkFunctions: readonly string[] = Object.keys(declarations);

/** Functions of dblink's library that touch no connection. */
const harmlessSymbols = [
  "dblink_fdw_validator",
  "dblink_get_pkey",
  "dblink_build_sql_insert",
  "dblink_build_sql_update",
  "dblink_build_sql_delete",
  "dblink_current_query",
];

/**
 * An expression: the schema that has all of the bare functions, null if there is none. Only superusers make functions in C, so
 * nobody else can have put them there. By the catalogs: to_regprocedure fails for those who may not use the schema.
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

/** An expression: the schema of dblink; null if it is not installed. */
export const dblinkPlaceSql = `coalesce(${barePlaceSql},
      (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'dblink'))`;

/** A condition: a role may use all that is used of dblink. @param schema the oid of its schema, as SQL */
export const mayUseDblink = (role: string, schema: string): string => `(
  has_schema_privilege(${role}, ${schema}, 'USAGE') AND (
    SELECT count(*) = ${usedDblinkFunctions.length} AND coalesce(bool_and(has_function_privilege(${role}, x.oid, 'EXECUTE')), true)
      FROM pg_proc AS x
     WHERE x.pronamespace = ${schema}
       AND x.proname || '(' || oidvectortypes(x.proargtypes) || ')' = ANY (${textArray(usedDblinkFunctions)})))`;

/** A condition: the role may do as the owner of the schema `hawser` anyway, who is trusted too. @param owner its oid, as SQL */
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

/** Functions by which a connection can be opened, used or read. */
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

/** Not those who may act as the owner of the schema: they can read the password anyway. */
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

/** Inspects dblink, and which roles may use it. */
export async function inspectDblink(ask: Ask): Promise<DblinkState> {
  const [place] = await ask<Pick<DblinkState, "available" | "hasSchema">>(placeSql);
  const [found] = await ask<NonNullable<DblinkState["found"]>>(foundSql);
  return {
    ...place!,
    found,
    open: await ask<DblinkState["open"][number]>(openSql),
    users: (await ask<{ role: string }>(usersSql)).map(({ role }) => role),
  };
}

/**
 * @param isBare makes the functions themselves instead of the extension, also where that is installed elsewhere: the script of
 * an extension may not create another one, and its grants on what others made would be missing in dumps
 */
export function dblinkSql({ isBare }: { readonly isBare: boolean }): string {
  const making = isBare
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
      ${closeSql(
        `SELECT 'SCHEMA ${dblinkSchema}' AS object, n.nspowner AS owner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
        FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)}`,
      )}
    ELSIF EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)} AND n.nspowner NOT IN ${trustedRoles}) THEN
      RAISE EXCEPTION USING
        ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
        MESSAGE = 'the schema ${dblinkSchema} belongs to somebody else',
        HINT = 'DROP SCHEMA ${dblinkSchema}';
    END IF;
    COMMENT ON SCHEMA ${dblinkSchema} IS ${literal(mark)};
    ${making.join("\n    ")}
    ${closeSql(functionsOf(dblinkSchema, "p.probin ~ '(^|/)dblink$'"))}
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

/** To a schema of its own, unless functions of ours are, or will be, there already. */
const moveRemedy = `CASE WHEN input.scripted OR ${barePlaceSql} IS NOT NULL THEN ${literal(moveTo("dblink").join("; "))}
              ELSE ${literal(moveTo(dblinkSchema).join("; "))} END`;

const conflicts = `
  SELECT 60 AS nth, 'name_occupied' AS code,
         format('the schema ${dblinkSchema}, where dblink goes, belongs to "%s", who could put functions of their own beside it', pg_get_userbyid(n.nspowner)) AS what,
         'DROP SCHEMA ${dblinkSchema}' AS remedy
    FROM pg_namespace AS n CROSS JOIN input
   WHERE n.nspname = '${dblinkSchema}' AND NOT ${isTrusted("n.nspowner")} AND (input.scripted OR ${dblinkPlaceSql} IS NULL)
  UNION ALL
  SELECT 61, 'name_occupied', format('dblink is in a schema with the name %I, which cannot stand in a function', n.nspname),
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

/** The object. */
export const dblink: InstalledObject = {
  name: "dblink",
  what: "dblink",
  ofNats: true,
  create: dblinkSql({ isBare: false }),
  conflicts,
  foresee(state) {
    const { found, available } = state.dblink;
    if (found !== undefined || !available || !state.roles.superuser) return state;
    const made = { schema: dblinkSchema, isOurs: true, isBare: false, usable: true, ownerUses: true };
    return { ...state, dblink: { ...state.dblink, found: made } };
  },
  faults: (state) => [...missing(state), ...risks(state)],
  superuserStatements({ dblink: { found, available, hasSchema } }) {
    if (found === undefined) return available ? newStatements(hasSchema, "hawser_owner") : [];
    return found.ownerUses ? [] : useStatements(found.schema, "hawser_owner");
  },
  removals: ({ dblink: { found }, roles: { role } }) =>
    found?.isOurs ? [removal(role, found.isBare ? bareFunctions : "EXTENSION dblink")] : [],
};

const bareFunctions = `FUNCTION ${usedDblinkFunctions.map((signature) => `${dblinkSchema}.${signature}`).join(", ")}`;

/** Something else may have come to use it: then it stays. */
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

/** Statements that install it for one role alone. */
function newStatements(hasSchema: boolean, who: string): string[] {
  return [
    ...(hasSchema ? [] : [`CREATE SCHEMA ${dblinkSchema}`]),
    `CREATE EXTENSION dblink SCHEMA ${dblinkSchema}`,
    `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ${dblinkSchema} FROM PUBLIC`,
    ...useStatements(dblinkSchema, who),
  ];
}

/** Statements that let a role use it. */
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
        mendable: available && roles.superuser,
        essential: true,
        code: "not_supported",
      },
    ];
  }
  const ours = functions.found.filter(({ isOurs }) => isOurs);
  const cutOff = ours.filter(({ reachesDblink }) => !reachesDblink).map((fn) => fn.owner);
  // Where they could not be made, that is to be mended first.
  if (ours.length === 0 && !refusals.has("functions") && !found.usable && !found.ownerUses) cutOff.push(owner);
  return [...new Set(cutOff)].map((name) => ({
    kind: "missing",
    what: `"${name}", whom the SQL functions belong to, may not use dblink in the schema "${found.schema}"`,
    meaning: "the SQL functions fail: they reach the gateway through dblink",
    remedy: `as a superuser: ${useStatements(found.schema, name).join("; ")}`,
    mendable: found.usable,
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
