/**
 * What a superuser has to run for a role that may not, all of it at once: what the next installation would ask for, too.
 */
import pg from "pg";
import { mayExecute, type NatsState } from "./nats/inspect.js";
import { usedDblinkFunctions } from "./nats/objects.js";
import { newDblinkSql, usageSql } from "./nats/shortfalls.js";

const { escapeIdentifier: identifier } = pg;
const owner = "hawser_owner";

/** Rights of a role that is not there yet are those of everybody. */
const roleSql = (name: string) =>
  `coalesce((SELECT r.rolname FROM pg_roles AS r WHERE r.rolname = '${name}'), 'public')`;

const rightsSql = `
  SELECT current_user AS role, current_database() AS database,
         has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('hawser') IS NOT NULL AS "makesSchema",
         r.rolsuper AS superuser, r.rolsuper OR r.rolcreaterole AS "makesRoles",
         ARRAY(SELECT w.name FROM unnest($1::text[]) WITH ORDINALITY AS w (name, nth)
                WHERE NOT EXISTS (SELECT FROM pg_roles AS x WHERE x.rolname = w.name) ORDER BY w.nth) AS missing,
         coalesce(
           (SELECT pg_has_role(current_user, o.oid, 'USAGE') OR pg_has_role(current_user, o.oid, 'USAGE WITH ADMIN OPTION')
                   OR r.rolcreaterole AND current_setting('server_version_num')::integer < 160000
              FROM pg_roles AS o WHERE o.rolname = '${owner}'),
           r.rolsuper OR r.rolcreaterole) AS joins
    FROM pg_roles AS r WHERE r.rolname = current_user`;

/** Who may pass a right on does so in the installation. */
const placesSql = `
  SELECT coalesce(has_schema_privilege(${roleSql(owner)}, f.oid, 'CREATE') AND has_schema_privilege(${roleSql(owner)}, f.oid, 'USAGE'), true) AS "ownerCreates",
         coalesce(has_schema_privilege(${roleSql("hawser_nats")}, f.oid, 'USAGE'), true)
           OR has_schema_privilege(f.oid, 'USAGE WITH GRANT OPTION') AS "callersUse",
         has_schema_privilege(${roleSql(owner)}, d.oid, 'USAGE') AND ${mayExecute(roleSql(owner), "d.oid", "$3")}
           OR has_schema_privilege(d.oid, 'USAGE WITH GRANT OPTION') AS "ownerUsesDblink"
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS f ON f.nspname = $1
    LEFT JOIN pg_namespace AS d ON d.nspname = $2`;

/** What the present role may do about the schema and the roles of Hawser. */
interface RoleRights {
  readonly role: string;
  readonly database: string;
  /** It may make the schema `hawser`, or that is there. */
  readonly makesSchema: boolean;
  readonly superuser: boolean;
  readonly makesRoles: boolean;
  /** The roles of Hawser that are not there. */
  readonly missing: readonly string[];
  /** The role is in hawser_owner with its rights, or the installation makes it a member. */
  readonly joins: boolean;
}

/** Looks at the present role. The path of the session is pg_catalog and nothing before it. */
export async function roleRights(client: pg.Client, roles: readonly string[]): Promise<RoleRights> {
  return (await client.query<RoleRights>(rightsSql, [roles])).rows[0]!;
}

/**
 * Statements, each with its semicolon, in their order. After them `hawser init` lacks only what superusers alone may make
 * and no statement gives: the foreign data wrappers and the event triggers.
 *
 * @param nats what there is of NATS from SQL, and the schema of its functions; undefined if it is not wanted
 */
export async function superuserErrands(
  client: pg.Client,
  roles: readonly string[],
  nats: { readonly state: NatsState; readonly schema: string } | undefined,
): Promise<string[]> {
  const { role, database, superuser, makesSchema, makesRoles, missing, joins } = await roleRights(client, roles);
  if (superuser) return [];
  return [
    ...(makesSchema ? [] : [`GRANT CREATE ON DATABASE ${identifier(database)} TO ${identifier(role)};`]),
    ...(makesRoles ? [] : missing.map((name) => `CREATE ROLE ${name} NOLOGIN;`)),
    ...(joins ? [] : [`GRANT ${owner} TO ${identifier(role)};`]),
    ...(nats === undefined ? [] : await natsErrands(client, nats.state, nats.schema)),
  ];
}

async function natsErrands(client: pg.Client, state: NatsState, schema: string): Promise<string[]> {
  const { dblink, dblinkAvailable } = state;
  const { rows } = await client.query<{ ownerCreates: boolean; callersUse: boolean; ownerUsesDblink: boolean | null }>(
    placesSql,
    [schema, dblink?.schema ?? null, usedDblinkFunctions],
  );
  const { ownerCreates, callersUse, ownerUsesDblink } = rows[0]!;
  const place = identifier(schema);
  const toUseDblink = (): string => {
    if (dblink === undefined) return dblinkAvailable ? newDblinkSql(state, owner) : "";
    return ownerUsesDblink === true ? "" : usageSql(identifier(dblink.schema), owner);
  };
  return [
    ...(ownerCreates ? [] : [`GRANT USAGE, CREATE ON SCHEMA ${place} TO ${owner};`]),
    ...(callersUse ? [] : [`GRANT USAGE ON SCHEMA ${place} TO hawser_nats;`]),
    ...toUseDblink()
      .split("; ")
      .filter((statement) => statement !== "")
      .map((statement) => `${statement};`),
  ];
}
