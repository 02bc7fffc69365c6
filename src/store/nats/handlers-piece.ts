/**
 * Where the functions live that NATS reaches: the schema of their wrappers, the login that calls these, and the view by which
 * operators look at subscriptions.
 */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import { grantsIn } from "../grants.js";
import { newSchemaSql } from "../new-schema.js";
import { trustedRoles } from "../schema-trust.js";
import { closeSubscriptionsViewSql } from "./closed-objects.js";
import { runSchema, subscriptionsSchema, subscriptionsView } from "./objects.js";
import { functionNameSql, wrapperJoinSql } from "./wrapper-join.js";

const { escapeLiteral: literal } = pg;
const { scramIterations } = gatewayConstants;

/** Branches of PL/pgSQL for a schema of ours: made, taken as it is, or refused because its owner could put things into it. */
function schemaSql(name: string, comment: string): string {
  return `
  IF to_regnamespace(${literal(name)}) IS NULL THEN
    EXECUTE $new$${newSchemaSql(name)}$new$;
    COMMENT ON SCHEMA ${name} IS ${literal(comment)};
  ELSIF EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = ${literal(name)} AND n.nspowner NOT IN ${trustedRoles}) THEN
    RAISE EXCEPTION USING
      ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
      MESSAGE = 'the schema ${name} belongs to somebody else',
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

function whereThere(role: string, statements: string): string {
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
${schemaSql(runSchema, "The wrappers of the functions that NATS reaches. Each belongs to the role that it runs as.")}
${schemaSql(subscriptionsSchema, "What is subscribed, for operators.")}
  REVOKE ALL ON SCHEMA ${runSchema}, ${subscriptionsSchema} FROM PUBLIC;
${whereThere("hawser_nats", `GRANT USAGE, CREATE ON SCHEMA ${runSchema} TO hawser_nats;\n    GRANT USAGE ON SCHEMA ${subscriptionsSchema} TO hawser_nats;`)}
${whereThere("hawser_executor", `GRANT USAGE ON SCHEMA ${runSchema} TO hawser_executor;`)}
${whereThere("hawser_bridge", `GRANT USAGE ON SCHEMA ${subscriptionsSchema} TO hawser_bridge;`)}
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the schema ${runSchema} is not ready: %', SQLERRM;
END
$handlers$;`;

/** By the catalogs: to_regclass fails for those who may not use the schema. */
const viewSql = `SELECT c.relkind, c.relowner FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.nspname || '.' || c.relname = ${literal(subscriptionsView)}`;

/** A subscription is there as long as its wrapper is. The view reads as its owner, who owns the table. */
const view = `DO $handlers$
DECLARE
  is_new CONSTANT boolean := NOT EXISTS (SELECT FROM (${viewSql}) AS v);
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
  CREATE OR REPLACE VIEW ${subscriptionsView} WITH (security_barrier) AS
    SELECT h.subject, ${functionNameSql} AS callback
      FROM ${tables.natsHandler} AS h
    ${wrapperJoinSql("JOIN")}
     WHERE h.kind = 'subscription';
  COMMENT ON VIEW ${subscriptionsView} IS 'The subjects that functions are subscribed to.';
  IF is_new THEN
    ${closeSubscriptionsViewSql}
  END IF;
${whereThere("hawser_nats", `GRANT SELECT ON TABLE ${subscriptionsView} TO hawser_nats;`)}
${whereThere("hawser_bridge", `GRANT SELECT ON TABLE ${subscriptionsView} TO hawser_bridge;`)}
  EXECUTE format('ALTER VIEW ${subscriptionsView} OWNER TO %I', owner_name);
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the view ${subscriptionsView} is not ready: %', SQLERRM;
END
$handlers$;`;

/**
 * HMAC-SHA-256 (RFC 2104) of SQL expressions.
 *
 * @param inner the key with ipad, and what it is of
 * @param outer the key with opad
 */
function hmac(inner: string, outer: string): string {
  return `sha256(${outer} || sha256(${inner}))`;
}

/**
 * The password stays in the table: statements are logged and counted with their text, and what they set is a verifier
 * (RFC 5803), from which nobody gets it. A function that runs as the login can change its password and its settings: both are
 * put right.
 */
const login = `DO $handlers$
DECLARE
  login record;
  salt CONSTANT bytea := uuid_send(gen_random_uuid());
  -- A key shorter than a block of 64 bytes has zeros behind it; \\x36 and \\x5c are the pads.
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
  -- So that a process that takes over may end the sessions of the one before.
  IF NOT pg_has_role('hawser_bridge', login.user_name, 'MEMBER') THEN
    EXECUTE format('GRANT %I TO hawser_bridge', login.user_name);
  END IF;
  IF NOT has_database_privilege(login.user_name, current_database(), 'CONNECT') THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login.user_name);
  END IF;
EXCEPTION
  -- Roles belong to the whole cluster: an installation in another database may have made it meanwhile.
  WHEN duplicate_object OR unique_violation THEN NULL;
  WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'the login that calls the functions is not ready: %', SQLERRM;
END
$handlers$;`;

/** All of it, to be run where the schema `hawser` and its roles are there. */
export const handlersPiece = {
  what: "the schema of what NATS calls, and its login",
  sql: ["SET LOCAL search_path = pg_catalog, pg_temp;", schemas, view, login].join("\n"),
};

/** What it grants. */
export const handlersGrants = grantsIn(handlersPiece.sql);
