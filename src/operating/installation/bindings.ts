/**
 * Objects for bound functions, which NATS messages invoke: the schema of their wrappers, the login that calls these,
 * and the view of subscriptions for operators.
 */
import { tables } from "../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../foundation/errors/index.js";
import { grantsIn, newSchemaSql, trustedRoles } from "../../jobs-and-peers/migrations/index.js";
import { functionNameSql, runSchema, tokenTypeSql, wrapperJoinSql } from "./binding-sql.js";
import { type InstalledObject, literal, normalizePrivilegesSql, pinnedPath, type RunQuery, someOf } from "./object.js";
import type { BindingsState, Fault, State } from "./state.js";

/** Schema of the view of subscriptions. The native extension uses the same name. */
export const subscriptionsSchema = "pgnats";

export const subscriptionsView = `${subscriptionsSchema}.subscriptions`;

/** Iterations of the SCRAM verifier that is made for the login: the default of Postgres. */
const scramIterations = 4_096;
const schemaComments = {
  [runSchema]: "The wrappers of the functions that NATS reaches. Each belongs to the role that it runs as.",
  [subscriptionsSchema]: "What is subscribed, for operators.",
};

/**
 * PL/pgSQL that creates one of our schemas, accepts an existing one, or fails if its owner could put objects into it.
 */
function schemaSql(name: string, comment: string): string {
  return `
  IF to_regnamespace(${literal(name)}) IS NULL THEN
    EXECUTE $new$${newSchemaSql(name)}$new$;
    COMMENT ON SCHEMA ${name} IS ${literal(comment)};
  ELSIF EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = ${literal(name)} AND n.nspowner NOT IN ${trustedRoles}) THEN
    RAISE EXCEPTION USING
      ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
      MESSAGE = 'the schema ${name} belongs to another role',
      HINT = 'DROP SCHEMA ${name}';
  END IF;
  IF (SELECT n.nspowner <> owner_oid FROM pg_namespace AS n WHERE n.nspname = ${literal(name)}) THEN
    BEGIN
      EXECUTE format('ALTER SCHEMA ${name} OWNER TO %I', owner_name);
    EXCEPTION
      WHEN insufficient_privilege THEN NULL;
    END;
  END IF;`;
}

function ifRoleExists(role: string, statements: string): string {
  return `
  IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = ${literal(role)}) THEN
    ${statements}
  END IF;`;
}

const schemas = `DO $handlers$
DECLARE
  owner_name CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');
  owner_oid CONSTANT oid := (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'hawser');
BEGIN
${Object.entries(schemaComments)
  .map(([name, comment]) => schemaSql(name, comment))
  .join("\n")}
  REVOKE ALL ON SCHEMA ${runSchema}, ${subscriptionsSchema} FROM PUBLIC;
${ifRoleExists("hawser_nats", `GRANT USAGE, CREATE ON SCHEMA ${runSchema} TO hawser_nats;\n    GRANT USAGE ON SCHEMA ${subscriptionsSchema} TO hawser_nats;`)}
${ifRoleExists("hawser_executor", `GRANT USAGE ON SCHEMA ${runSchema} TO hawser_executor;`)}
${ifRoleExists("hawser_bridge", `GRANT USAGE ON SCHEMA ${subscriptionsSchema} TO hawser_bridge;`)}
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the schema ${runSchema} is not ready: %', SQLERRM;
END
$handlers$;`;

/** Exists only while {@link view} runs. */
const comparedView = `${subscriptionsView}_compared`;

/** Query: the view in the catalogs, because to_regclass fails for roles without USAGE on the schema. */
const viewSql = `SELECT c.relkind, c.relowner FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.nspname || '.' || c.relname = ${literal(subscriptionsView)}`;

const createViewSql = (name: string): string => `VIEW ${name} WITH (security_barrier) AS
    SELECT h.subject, ${functionNameSql} AS callback
      FROM ${tables.natsHandler} AS h
    ${wrapperJoinSql("JOIN")}
     WHERE h.kind = 'subscription'`;

/**
 * Creates the view of subscriptions. A subscription exists as long as its wrapper does. The view reads with the
 * privileges of its owner, who owns the table. CREATE OR REPLACE waits for all readers of the view, including pg_dump,
 * so a current view is not replaced. Comparing it with a second view of the same text shows whether it is current.
 */
const view = `DO $handlers$
DECLARE
  is_new CONSTANT boolean := NOT EXISTS (SELECT FROM (${viewSql}) AS v);
  is_current boolean := false;
  owner_name CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');
BEGIN
  IF to_regnamespace(${literal(subscriptionsSchema)}) IS NULL THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM (${viewSql}) AS v WHERE v.relkind <> 'v' OR v.relowner NOT IN ${trustedRoles}
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
      MESSAGE = '${subscriptionsView} is not the view of Hawser',
      HINT = 'Rename or drop it.';
  END IF;
  IF NOT is_new THEN
    CREATE ${createViewSql(comparedView)};
    is_current := (
      SELECT pg_get_viewdef(v.oid) = pg_get_viewdef(c.oid) AND v.reloptions IS NOT DISTINCT FROM c.reloptions
        FROM pg_class AS v, pg_class AS c
       WHERE v.oid = to_regclass(${literal(subscriptionsView)}) AND c.oid = to_regclass(${literal(comparedView)}));
    DROP VIEW ${comparedView};
  END IF;
  IF is_current IS NOT TRUE THEN
    CREATE OR REPLACE ${createViewSql(subscriptionsView)};
  END IF;
  COMMENT ON VIEW ${subscriptionsView} IS 'The subjects that functions are subscribed to.';
  IF is_new THEN
    ${normalizePrivilegesSql(
      `SELECT 'TABLE ${subscriptionsView}' AS object, c.relowner AS owner, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
        FROM pg_class AS c WHERE c.oid = to_regclass(${literal(subscriptionsView)})`,
    )}
  END IF;
${ifRoleExists("hawser_nats", `GRANT SELECT ON TABLE ${subscriptionsView} TO hawser_nats;`)}
${ifRoleExists("hawser_bridge", `GRANT SELECT ON TABLE ${subscriptionsView} TO hawser_bridge;`)}
  IF EXISTS (SELECT FROM (${viewSql}) AS v WHERE pg_get_userbyid(v.relowner) <> owner_name) THEN
    EXECUTE format('ALTER VIEW ${subscriptionsView} OWNER TO %I', owner_name);
  END IF;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the view ${subscriptionsView} is not ready: %', SQLERRM;
END
$handlers$;`;

/**
 * HMAC-SHA-256 (RFC 2104) of SQL expressions.
 *
 * @param inner key with ipad, followed by the message
 * @param outer key with opad
 */
function hmac(inner: string, outer: string): string {
  return `sha256(${outer} || sha256(${inner}))`;
}

/**
 * Creates the login. Its password stays in the table, because statements are logged with their text: they contain only
 * a verifier (RFC 5803), from which the password cannot be computed. A function that runs as the login can change its
 * password and settings; both are restored.
 */
const login = `DO $handlers$
DECLARE
  login record;
  salt CONSTANT bytea := uuid_send(gen_random_uuid());
  -- A key shorter than a block of 64 bytes is padded with zeros; \\x36 and \\x5c are the pads.
  inner_pad bytea := decode(repeat('36', 64), 'hex');
  outer_pad bytea := decode(repeat('5c', 64), 'hex');
  password bytea;
  turn bytea;
  mixed bit(256);
  salted bytea;
  client_key bytea;
  server_key bytea;
BEGIN
  SELECT l.user_name, l.password INTO login FROM ${tables.executorLogin} AS l;
  IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = login.user_name) THEN
    EXECUTE format('CREATE ROLE %I LOGIN', login.user_name);
    EXECUTE format('COMMENT ON ROLE %I IS %L', login.user_name, 'Calls the functions that NATS reaches, for hawser serve.');
  END IF;
  password := convert_to(login.password, 'UTF8');
  IF length(password) > 64 THEN
    password := sha256(password);
  END IF;
  FOR i IN 0 .. length(password) - 1 LOOP
    inner_pad := set_byte(inner_pad, i, get_byte(password, i) # 54);
    outer_pad := set_byte(outer_pad, i, get_byte(password, i) # 92);
  END LOOP;
  turn := ${hmac("inner_pad || salt || '\\x00000001'::bytea", "outer_pad")};
  mixed := ('x' || encode(turn, 'hex'))::bit(256);
  FOR i IN 2 .. ${scramIterations} LOOP
    turn := ${hmac("inner_pad || turn", "outer_pad")};
    mixed := mixed # ('x' || encode(turn, 'hex'))::bit(256);
  END LOOP;
  salted := decode((
    SELECT string_agg(lpad(to_hex(substring(mixed FROM 1 + 32 * part FOR 32)::bit(32)::integer), 8, '0'), '' ORDER BY part)
      FROM generate_series(0, 7) AS part
  ), 'hex');
  inner_pad := decode(repeat('36', 64), 'hex');
  outer_pad := decode(repeat('5c', 64), 'hex');
  FOR i IN 0 .. 31 LOOP
    inner_pad := set_byte(inner_pad, i, get_byte(salted, i) # 54);
    outer_pad := set_byte(outer_pad, i, get_byte(salted, i) # 92);
  END LOOP;
  client_key := ${hmac("inner_pad || convert_to('Client Key', 'UTF8')", "outer_pad")};
  server_key := ${hmac("inner_pad || convert_to('Server Key', 'UTF8')", "outer_pad")};
  EXECUTE format(
    'ALTER ROLE %I LOGIN PASSWORD %L', login.user_name,
    'SCRAM-SHA-256$${scramIterations}:' || encode(salt, 'base64') || '$'
      || encode(sha256(client_key), 'base64') || ':' || encode(server_key, 'base64')
  );
  EXECUTE format('ALTER ROLE %I RESET ALL', login.user_name);
  EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', login.user_name, current_database());
  IF NOT pg_has_role(login.user_name, 'hawser_executor', 'MEMBER') THEN
    EXECUTE format('GRANT hawser_executor TO %I', login.user_name);
  END IF;
  -- Lets a new leader end the sessions of the previous one.
  IF NOT pg_has_role('hawser_bridge', login.user_name, 'MEMBER') THEN
    EXECUTE format('GRANT %I TO hawser_bridge', login.user_name);
  END IF;
  IF NOT has_database_privilege(login.user_name, current_database(), 'CONNECT') THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login.user_name);
  END IF;
EXCEPTION
  -- Roles belong to the whole cluster: a concurrent installation in another database may have created it.
  WHEN duplicate_object OR unique_violation THEN NULL;
  WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'the login that calls the functions is not ready: %', SQLERRM;
END
$handlers$;`;

const create = [pinnedPath, schemas, view, login].join("\n");

/** Grants that {@link create} makes. */
export const bindingsGrants = grantsIn(create);

/** Query: objects that have the name of an object of Hawser, but belong to another role or are of another kind. */
const occupiedSql = `
  SELECT o.* FROM (
    SELECT 1 AS nth, 'SCHEMA ' || n.nspname AS what, n.nspowner AS owner, true AS kind
      FROM pg_namespace AS n WHERE n.nspname IN ('${runSchema}', '${subscriptionsSchema}')
    UNION ALL
    SELECT 2, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                WHEN 'S' THEN 'SEQUENCE' WHEN 'i' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END || ' ${subscriptionsView}',
           c.relowner, c.relkind = 'v'
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '${subscriptionsView}'
  ) AS o WHERE NOT o.kind OR o.owner NOT IN ${trustedRoles}`;

const stateSql = `
  SELECT to_regnamespace('${runSchema}') IS NOT NULL AS "hasRunSchema",
         to_regnamespace('${subscriptionsSchema}') IS NOT NULL AS "hasSubscriptionsSchema",
         EXISTS (
           SELECT FROM pg_class AS v JOIN pg_namespace AS n ON n.oid = v.relnamespace
            WHERE n.nspname || '.' || v.relname = '${subscriptionsView}' AND v.relkind = 'v') AS "hasSubscriptionsView",
         NOT EXISTS (SELECT FROM (${occupiedSql}) AS o) AS "isOurs",
         ARRAY(
           SELECT left(w.proname, ${-1 - bridgeConstants.wrapperRandomLength}) FROM pg_proc AS w
             JOIN pg_type AS t ON t.oid = w.proargtypes[0] AND t.typnamespace = w.pronamespace AND t.typname = ${tokenTypeSql("w.proname")}
            WHERE w.pronamespace = to_regnamespace('${runSchema}') ORDER BY 1) AS reached,
         (
           SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname || '.' || c.relname = '${tables.executorLogin}' AND c.relkind = 'r'
         ) AS "readsLogin"`;

const loginSql = `
  SELECT l.user_name AS name, r.oid IS NOT NULL AS "exists",
         coalesce(pg_has_role(r.oid, x.oid, 'MEMBER') AND pg_has_role(b.oid, r.oid, 'MEMBER'), false) AS joined
    FROM ${tables.executorLogin} AS l
    LEFT JOIN pg_roles AS r ON r.rolname = l.user_name
    LEFT JOIN pg_roles AS x ON x.rolname = 'hawser_executor'
    LEFT JOIN pg_roles AS b ON b.rolname = 'hawser_bridge'`;

/** Inspects the schemas, the view, the login and the bound functions. */
export async function inspectBindings(runQuery: RunQuery): Promise<BindingsState> {
  const [row] = await runQuery<Omit<BindingsState, "login"> & { readonly readsLogin: boolean | null }>(stateSql);
  const { readsLogin, ...state } = row!;
  const [found] = readsLogin === true ? await runQuery<NonNullable<BindingsState["login"]>>(loginSql) : [];
  return { ...state, login: found ?? null };
}

export const bindings: InstalledObject = {
  name: "bindings",
  what: "the schema of the wrappers, the view of subscriptions, and the login that calls bound functions",
  ofNats: true,
  create,
  conflicts: `
  SELECT 40 + o.nth AS nth, 'name_occupied' AS code,
         format('%s of "%s" has the name of an object of Hawser', o.what, pg_get_userbyid(o.owner)) AS what,
         'DROP ' || o.what AS remedy
    FROM (${occupiedSql}) AS o`,
  faults: (state) => [...schemaFaults(state), ...loginFaults(state)],
  inUse({ bindings: { reached } }) {
    if (reached.length === 0) return undefined;
    const named = someOf(
      reached.map((one) => `"${one}"`),
      5,
    );
    return (
      `functions are still bound to subjects: ${named}. Unbind them with nats_unsubscribe and litmus_pgnats_unregister_responder, or all ` +
      `of them with DROP SCHEMA ${runSchema} CASCADE`
    );
  },
  removals: ({ bindings: { hasRunSchema, hasSubscriptionsSchema, isOurs } }) => [
    ...(hasRunSchema && isOurs ? [{ what: `the schema ${runSchema}`, sql: runSchemaRemoval }] : []),
    ...(hasSubscriptionsSchema && isOurs
      ? [
          {
            what: `the schema ${subscriptionsSchema}, or something in it`,
            sql: `DROP VIEW IF EXISTS ${subscriptionsView};\n  DROP SCHEMA ${subscriptionsSchema};`,
          },
        ]
      : []),
  ],
};

/**
 * Removes the schema of the wrappers with the types that dropped wrappers left, unless a wrapper was created in
 * between.
 */
const runSchemaRemoval = `IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_proc AS w WHERE w.pronamespace = pg_catalog.to_regnamespace('${runSchema}') AND w.prosecdef
  ) THEN
    DROP SCHEMA ${runSchema} CASCADE;
  END IF;`;

function schemaFaults({ bindings: { hasRunSchema, hasSubscriptionsView } }: State): Fault[] {
  const fault = (what: string, meaning: string): Fault => ({
    kind: "missing",
    what: `${what} is missing`,
    refused: "make it",
    meaning,
    remedy: "as the owner of the database or a superuser: run `hawser init`",
    repairable: true,
    check: "bound-functions",
  });
  return [
    ...(hasRunSchema ? [] : [fault(`the schema ${runSchema}`, "no function can be subscribed, or answer requests")]),
    ...(hasSubscriptionsView
      ? []
      : [
          fault(
            `the view ${subscriptionsView}`,
            "the list of subscriptions cannot be read under the name that it has in the native extension",
          ),
        ]),
  ];
}

/**
 * Faults of the login, which `hawser doctor` tests in more detail. The name of the login is unknown while the table
 * does not exist.
 */
function loginFaults({ bindings: { login: found, hasRunSchema }, roles: { makesRoles } }: State): Fault[] {
  if (found === null ? hasRunSchema : found.exists && found.joined) return [];
  const name = found === null ? "the login that" : `the login "${found.name}", which`;
  const isThere = found?.exists === true;
  return [
    {
      kind: "missing",
      what: isThere
        ? `"${found.name}", the login that calls functions for NATS, is not in hawser_executor, or hawser_bridge not in it`
        : `${name} calls functions for NATS${found === null ? "" : ","} is missing`,
      refused: isThere ? "grant that" : found === null ? "make roles" : "make it",
      meaning: "functions can be subscribed, but `hawser serve` cannot call them",
      remedy:
        "as a role that may make roles: run `hawser init`; or name another login in hawser_executor with `hawser serve --executor-url`",
      repairable: makesRoles || isThere,
      check: "executor-login",
    },
  ];
}
