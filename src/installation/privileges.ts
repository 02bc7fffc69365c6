/**
 * Who may do what: the grants of the spec, which roles lack of them, and what roles may do beyond them, by hand, or by ALTER
 * DEFAULT PRIVILEGES of an earlier time.
 */
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { type Grant, grants, grantsIn, grantsSql, runSchema } from "../store/index.js";
import { bindingsGrants, subscriptionsSchema, subscriptionsView } from "./bindings.js";
import { dblinkSchema } from "./dblink.js";
import { foreignDataSchema } from "./foreign-data.js";
import { functionsGrantsSql } from "./functions.js";
import { type Ask, type InstalledObject, identifier, someOf, textArray } from "./object.js";
import { inspectSearchPaths } from "./search-paths.js";
import type { ExcessFault, Fault, FunctionsState, PrivilegesState } from "./state.js";

/** What is to be granted as things are. */
function wantedGrants({ found }: FunctionsState, schema: string, dblink: string): readonly Grant[] {
  const hasFunctions = found.some((fn) => fn.isOurs && fn.schema === schema);
  const ofFunctions = hasFunctions ? grantsIn(functionsGrantsSql({ schema, dblinkSchema: dblink })) : [];
  return [...grants, ...ofFunctions, ...bindingsGrants];
}

/**
 * The wanted grants with the oids of their objects, null where there is none, or none that could be seen: what finds relations
 * and functions by name fails for a role that may not use their schema. Parameters: role, privilege, kind and object, one array each.
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

/** With these, other logins could be taken over or NATS turned elsewhere: they are named first. */
const secretTables: readonly string[] = [
  natsTables.gatewaySecret,
  natsTables.executorLogin,
  natsTables.natsHandler,
  natsTables.natsServer,
  peerTables.meshSecret,
  natsTables.gateway,
];

/** The schemas that are inspected, beside the SQL functions': operators grant those one by one. */
const schemas = ["hawser", dblinkSchema, foreignDataSchema, runSchema, subscriptionsSchema];

/**
 * Entries of access control lists that no grant of the spec is for. Not those of superusers, of who runs it, and of who may
 * act as the owner of the schema anyway; nor that everybody may use the schema of the foreign data wrappers.
 */
const excessSql = `
  WITH wanted AS (${wantedSql}
  ), objects AS (
    SELECT n.oid, 'SCHEMA' AS kind, quote_ident(n.nspname) AS object, n.nspowner AS owner, n.nspacl AS acl, NULL::name AS of_column
      FROM pg_namespace AS n WHERE n.nspname = ANY (${textArray(schemas)})
    UNION ALL
    SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner, c.relacl, NULL
      FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT c.oid, 'TABLE', '${subscriptionsView}', c.relowner, c.relacl, NULL
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '${subscriptionsView}' AND c.relkind = 'v'
    UNION ALL
    SELECT c.oid, 'TABLE', c.oid::regclass::text, c.relowner, t.attacl, t.attname
      FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
     WHERE c.relnamespace = to_regnamespace('hawser')
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
   WHERE h.passable OR NOT w.is_wanted
   ORDER BY array_position(${textArray(secretTables)}, h.object), array_position('{SCHEMA,FUNCTION,TABLE,SEQUENCE}', h.kind), h.object,
            h.role, h.grantor, h.privilege`;

/** A privilege that the spec does not give. */
interface Held {
  /** Null: every role. */
  readonly role: string | null;
  readonly kind: Grant["kind"];
  /** As REVOKE names it. */
  readonly object: string;
  readonly privilege: string;
  /** It may be granted on to others. */
  readonly passable: boolean;
  /** Who has granted it, where that is not the owner. */
  readonly grantor: string | null;
  /** The privilege is the spec's, and only that it may be granted on is not. */
  readonly optionOnly: boolean;
}

/** Compares what roles have with what they are to have. */
export async function inspectPrivileges(
  ask: Ask,
  {
    schema,
    dblink,
    functions,
  }: { readonly schema: string; readonly dblink: string; readonly functions: FunctionsState },
): Promise<PrivilegesState> {
  const wanted = wantedGrants(functions, schema, dblink);
  const columns = (["role", "privilege", "kind", "object"] as const).map((name) => wanted.map((grant) => grant[name]));
  const lacking = await ask<Grant>(lackingSql, ...columns);
  return {
    wanted: wanted.length,
    lacking: grouped(lacking, ({ role }) => role),
    excess: excessOf(await ask<Held>(excessSql, ...columns)),
    paths: await inspectSearchPaths(ask),
  };
}

/** More than these are given by `hawser init` in one go. */
const mostStatements = 3;

/** Grants of the spec; made together with the roles. */
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

function lackingFault(lacking: readonly Grant[], mendable: boolean, refusal: string | undefined): Fault {
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
    mendable,
    code: "not_permitted",
  };
}

/** One risk for each role and what it has in the same way, with the statement that takes it away. Secrets come first. */
function excessOf(rows: readonly Held[]): ExcessFault[] {
  const byObject = grouped(rows, ({ privilege: _privilege, passable: _passable, ...rest }) => JSON.stringify(rest));
  return grouped(byObject, (held) => {
    const privileges = held.map(({ privilege }) => privilege);
    return JSON.stringify({ ...held[0]!, object: "", privilege: privileges, passable: false });
  }).map(excessFault);
}

/** Groups in the order of their first members. */
function grouped<Item>(items: readonly Item[], keyOf: (item: Item) => string): Item[][] {
  const groups = new Map<string, Item[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return [...groups.values()];
}

/** What subscribed functions could read: then `hawser serve` runs none. */
const executors = /^hawser_executor(_[0-9a-f]{12})?$/;

/** @param group the privileges on each object, which are the same on all */
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
    objects[0]!.startsWith("hawser.") &&
    !optionOnly &&
    (role === null || executors.test(role)) &&
    privileges.some((privilege) => privilege.startsWith("SELECT"));
  return {
    role,
    kind: "risk",
    what:
      `${role === null ? "every role" : `"${role}"`} ${optionOnly ? "may grant" : "has"} ${listed} on ${kind.toLowerCase()} ` +
      `${someOf(objects, 1)}${optionOnly ? " to others" : ""}, which Hawser has not given`,
    // Only the role that has granted it can take it back.
    remedy: grantor === null ? revoke : `SET ROLE ${identifier(grantor)}; ${revoke}; RESET ROLE`,
    check: "excess-privileges",
    // Of several none is named: what is told of one of them elsewhere says nothing of the others.
    ...(objects.length === 1 && { subject: object }),
    ...(isRead && {
      meaning: "subscribed functions could read it, and so `hawser serve` calls none",
      severity: "error",
      code: "executor_login",
    }),
  };
}
