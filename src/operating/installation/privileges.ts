/**
 * Privileges: the grants of the spec, missing grants of roles, and excess grants, made by hand or by an earlier ALTER
 * DEFAULT PRIVILEGES.
 */
import { tables as natsTables } from "../../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../../generated/ts/rows/peer.js";
import { type Grant, grants, grantsSql, ownSchemaNames, ownSchemas } from "../../jobs-and-peers/migrations/index.js";
import { runSchema } from "./binding-sql.js";
import { bindingsGrants, subscriptionsSchema, subscriptionsView } from "./bindings.js";
import { dblinkSchema } from "./dblink.js";
import { foreignDataSchema } from "./foreign-data.js";
import { functionsGrants } from "./functions.js";
import { type InstalledObject, identifier, type RunQuery, someOf, textArray } from "./object.js";
import { inspectSearchPaths } from "./search-paths.js";
import type { ExcessFault, Fault, FunctionsState, PrivilegesState } from "./state.js";

/** Grants that are required in the current state. */
function wantedGrants({ found }: FunctionsState, schema: string): readonly Grant[] {
  const hasFunctions = found.some((fn) => fn.isOurs && fn.schema === schema);
  return [...grants, ...(hasFunctions ? functionsGrants(schema) : []), ...bindingsGrants];
}

/**
 * Query: required grants with the oids of their objects. The oid is null if the object does not exist or cannot be
 * seen, because lookups of relations and functions by name fail for a role without USAGE on their schema. Parameters:
 * arrays of role, privilege, kind and object.
 */
const wantedSql = `
  SELECT g.role, g.privilege, g.kind, g.object, g.nth, CASE
           WHEN g.kind = 'SCHEMA' THEN to_regnamespace(g.object)::oid
           WHEN g.kind <> 'FUNCTION' THEN c.oid
           WHEN EXISTS (
             SELECT FROM pg_namespace AS n
              WHERE (starts_with(g.object, n.nspname || '.') OR starts_with(g.object, format('"%s".', n.nspname)))
                AND has_schema_privilege(n.oid, 'USAGE')
           ) THEN to_regprocedure(g.object)::oid
         END AS oid
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS g (role, privilege, kind, object, nth)
    LEFT JOIN (SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace) AS c
      ON c.name = g.object`;

const lackingSql = `
  SELECT g.role, g.privilege, g.kind, g.object
    FROM (${wantedSql}) AS g JOIN pg_roles AS r ON r.rolname = g.role
   WHERE NOT coalesce(CASE g.kind
     WHEN 'SCHEMA' THEN has_schema_privilege(r.oid, g.oid, g.privilege)
     WHEN 'TABLE' THEN has_table_privilege(r.oid, g.oid, g.privilege)
     WHEN 'SEQUENCE' THEN has_sequence_privilege(r.oid, g.oid, g.privilege)
     ELSE has_function_privilege(r.oid, g.oid, g.privilege)
   END, true)
   ORDER BY g.nth`;

/**
 * Tables with secrets. Access to them allows taking over other logins or redirecting NATS, so they are reported first.
 */
const secretTables: readonly string[] = [
  natsTables.gatewaySecret,
  natsTables.executorLogin,
  natsTables.natsHandler,
  natsTables.natsServer,
  peerTables.meshSecret,
  natsTables.gateway,
];

/** Name of a table with its schema. */
const tableName = /^hawser\w*_data\./;

/** Roles of the executor. If they can read too much, `hawser serve` runs no subscribed function. */
const executors = /^hawser_executor(_[0-9a-f]{12})?$/;

/** Functions of the schema hawser that code of applications calls, and that a role may execute without being `hawser_peer`. */
const callersFunctions = [
  ...["enqueue", "enqueue_batch", "enqueue_unique", "enqueue_after", "cancel", "job", "keep_result"],
  ...["schedule", "unschedule"],
];

/** Inspected schemas. The schema of the SQL functions is excluded, because operators grant those individually. */
const schemas = [...ownSchemas, dblinkSchema, foreignDataSchema, runSchema, subscriptionsSchema];

/**
 * Query: access control entries that the spec does not grant. Excludes those of superusers, of the current role, of
 * roles that may act as the owner of the schema, and USAGE on the schema of the foreign data wrappers. Also excludes
 * what operators grant to roles of applications instead of `hawser_peer`: USAGE on the schema hawser, and EXECUTE on its
 * functions for those who enqueue.
 */
const excessSql = `
  WITH wanted AS (${wantedSql}
  ), objects AS (
    SELECT n.oid, 'SCHEMA' AS kind, quote_ident(n.nspname) AS object, n.nspowner AS owner, n.nspacl AS acl, NULL::name AS of_column
      FROM pg_namespace AS n WHERE n.nspname = ANY (${textArray(schemas)})
    UNION ALL
    SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner, c.relacl, NULL
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ${ownSchemaNames} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT c.oid, 'TABLE', '${subscriptionsView}', c.relowner, c.relacl, NULL
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '${subscriptionsView}' AND c.relkind = 'v'
    UNION ALL
    SELECT c.oid, 'TABLE', c.oid::regclass::text, c.relowner, t.attacl, t.attname
      FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ${ownSchemaNames}
    UNION ALL
    SELECT p.oid, 'FUNCTION', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), NULL
      FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('hawser')
  ), held AS (
    SELECT o.oid, o.kind, o.object, a.grantee, r.rolname AS role, a.is_grantable AS passable,
           a.privilege_type || coalesce(' (' || quote_ident(o.of_column) || ')', '') AS privilege,
           CASE WHEN a.grantor <> o.owner THEN pg_get_userbyid(a.grantor) END AS grantor
      FROM objects AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
     WHERE a.grantee <> o.owner AND to_regnamespace('hawser') IS NOT NULL
       AND NOT (o.kind = 'SCHEMA' AND o.object = '${foreignDataSchema}' AND a.privilege_type = 'USAGE')
       AND NOT coalesce(r.rolsuper OR r.rolname IN (current_user, 'hawser_owner') OR pg_has_role(r.oid, (
             SELECT h.nspowner FROM pg_namespace AS h WHERE h.nspname = 'hawser'), 'MEMBER'), false)
  )
  SELECT h.role, h.kind, h.object, h.privilege, h.passable, h.grantor, w.is_wanted AS "optionOnly"
    FROM held AS h CROSS JOIN LATERAL (
      SELECT EXISTS (SELECT FROM wanted AS v WHERE v.role = h.role AND v.oid = h.oid AND v.privilege = h.privilege) AS is_wanted
    ) AS w
   WHERE (h.passable OR NOT w.is_wanted)
     AND NOT (NOT h.passable AND h.grantor IS NULL AND h.role IS NOT NULL AND h.role !~ '${executors.source}'
       AND NOT coalesce(pg_has_role(h.grantee, to_regrole('hawser_executor'), 'MEMBER'), false)
       AND NOT EXISTS (SELECT FROM wanted AS v WHERE v.role = h.role)
       AND (h.kind = 'SCHEMA' AND h.object = 'hawser' AND h.privilege = 'USAGE'
         OR h.kind = 'FUNCTION' AND h.object ~ '^hawser\\.(${callersFunctions.join("|")})\\('))
   ORDER BY array_position(${textArray(secretTables)}, h.object), array_position('{SCHEMA,FUNCTION,TABLE,SEQUENCE}', h.kind), h.object,
            h.role, h.grantor, h.privilege`;

/** Privilege that the spec does not grant. */
interface Held {
  /** Null for PUBLIC. */
  readonly role: string | null;
  readonly kind: Grant["kind"];
  /** Object in the form that REVOKE expects. */
  readonly object: string;
  readonly privilege: string;
  /** True if it is held with GRANT OPTION. */
  readonly passable: boolean;
  /** Grantor, if it is not the owner. */
  readonly grantor: string | null;
  /** True if the spec grants the privilege, but not the GRANT OPTION. */
  readonly optionOnly: boolean;
}

/** Compares the privileges of roles with the required ones. */
export async function inspectPrivileges(
  runQuery: RunQuery,
  { schema, functions }: { readonly schema: string; readonly functions: FunctionsState },
): Promise<PrivilegesState> {
  const wanted = wantedGrants(functions, schema);
  const columns = (["role", "privilege", "kind", "object"] as const).map((name) => wanted.map((grant) => grant[name]));
  const lacking = await runQuery<Grant>(lackingSql, ...columns);
  return {
    wanted: wanted.length,
    lacking: grouped(lacking, ({ role }) => role),
    excess: excessOf(await runQuery<Held>(excessSql, ...columns)),
    paths: await inspectSearchPaths(runQuery),
  };
}

/** Number of missing grants up to which the remedy lists the statements. */
const mostStatements = 3;

/** Grants of the spec. Created together with the roles. */
export const privileges: InstalledObject = {
  name: "grants",
  what: "roles, grants and owners",
  ofNats: false,
  create: grantsSql,
  faults: ({ privileges: { lacking, excess, paths }, roles: { ownsAll }, refusals }) => [
    ...lacking.map((of) => lackingFault(of, ownsAll, refusals.get("grants"))),
    ...excess,
    ...paths,
  ],
};

function lackingFault(lacking: readonly Grant[], repairable: boolean, refusal: string | undefined): Fault {
  const { role, privilege, kind, object } = lacking[0]!;
  const more = lacking.length === 1 ? "" : ` and ${lacking.length - 1} more`;
  const statements = lacking.map((one) => `GRANT ${one.privilege} ON ${one.kind} ${one.object} TO ${one.role}`);
  return {
    kind: "missing",
    what: `${role} lacks ${privilege} on ${kind.toLowerCase()} ${object}${more}`,
    refused: `grant it${refusal === undefined ? "" : ` (${refusal})`}`,
    meaning: `a login that has only ${role} cannot do its work`,
    remedy:
      lacking.length > mostStatements
        ? "run `hawser init` as the owner of the schema hawser, or as a superuser"
        : `as the owner of the schema hawser: ${statements.join("; ")}`,
    repairable,
    code: "not_permitted",
  };
}

/**
 * Groups excess privileges into one risk per role and kind of privilege, with the statement that revokes them. Secrets
 * come first.
 */
function excessOf(rows: readonly Held[]): ExcessFault[] {
  const byObject = grouped(rows, ({ privilege: _privilege, passable: _passable, ...rest }) => JSON.stringify(rest));
  return grouped(byObject, (held) => {
    const privileges = held.map(({ privilege }) => privilege);
    return JSON.stringify({ ...held[0]!, object: "", privilege: privileges, passable: false });
  }).map(excessFault);
}

/** Groups items in the order of their first members. */
function grouped<Item>(items: readonly Item[], keyOf: (item: Item) => string): Item[][] {
  const groups = new Map<string, Item[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return [...groups.values()];
}

/** @param group privileges on each object, identical for all objects */
function excessFault(group: readonly (readonly Held[])[]): ExcessFault {
  const first = group[0]!;
  const { role, kind, object, grantor, optionOnly } = first[0]!;
  const privileges = first.map(({ privilege }) => privilege);
  const listed = privileges.join(", ");
  const objects = group.map(([held]) => held!.object);
  const cascade = group.flat().some(({ passable }) => passable) ? " CASCADE" : "";
  const revoke = `REVOKE ${optionOnly ? "GRANT OPTION FOR " : ""}${listed} ON ${kind} ${objects.join(", ")} FROM ${
    role === null ? "PUBLIC" : identifier(role)
  }${cascade}`;
  const isRead =
    kind === "TABLE" &&
    tableName.test(objects[0]!) &&
    !optionOnly &&
    (role === null || executors.test(role)) &&
    privileges.some((privilege) => privilege.startsWith("SELECT"));
  return {
    role,
    kind: "risk",
    what:
      `${role === null ? "every role" : `"${role}"`} ${optionOnly ? "may grant" : "has"} ${listed} on ${kind.toLowerCase()} ` +
      `${someOf(objects, 1)}${optionOnly ? " to others" : ""}, which Hawser did not grant`,
    // Only the grantor can revoke the grant.
    remedy: grantor === null ? revoke : `SET ROLE ${identifier(grantor)}; ${revoke}; RESET ROLE`,
    check: "excess-privileges",
    // The subject is set for a single object only: a check that reports more about one of several objects does not
    // cover the others.
    ...(objects.length === 1 && { subject: object }),
    ...(isRead && {
      meaning: "subscribed functions could read it, and so `hawser serve` calls none",
      severity: "error",
      code: "executor_login",
    }),
  };
}
