/**
 * What roles may do with the schema `hawser` beyond what the spec gives them: by hand, or by ALTER DEFAULT PRIVILEGES of a
 * time when nobody looked.
 */
import pg from "pg";
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import type { Grant } from "./grants.js";
import { handlersGrants } from "./nats/handlers-piece.js";
import { dblinkSchema, foreignDataSchema, runSchema, subscriptionsSchema, subscriptionsView } from "./nats/objects.js";

const { escapeIdentifier: identifier } = pg;

/** With these, other logins could be taken over or NATS turned elsewhere: they are named first. */
const secretTables: readonly string[] = [
  natsTables.gatewaySecret,
  natsTables.executorLogin,
  natsTables.natsHandler,
  natsTables.natsServer,
  peerTables.meshSecret,
  natsTables.gateway,
];

/**
 * Entries of access control lists that no grant of the spec is for. Not those of superusers, of who runs it, and of who may
 * act as the owner of the schema anyway.
 *
 * Parameters: role, privilege, kind and object of the spec's grants, one array each; the schemas of dblink and of the foreign
 * data wrappers, which everybody may use; the secret tables.
 */
const surplusSql = `
  WITH wanted AS (
    SELECT g.role, g.privilege, CASE g.kind
             WHEN 'SCHEMA' THEN to_regnamespace(g.object)::oid
             WHEN 'FUNCTION' THEN to_regprocedure(g.object)::oid
             ELSE to_regclass(g.object)::oid
           END AS oid
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS g (role, privilege, kind, object)
  ), objects AS (
    SELECT n.oid, 'SCHEMA' AS kind, quote_ident(n.nspname) AS object, n.nspowner AS owner, n.nspacl AS acl, NULL::name AS of_column
      FROM pg_namespace AS n WHERE n.nspname IN ('hawser', $5, $6, '${runSchema}', '${subscriptionsSchema}')
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
     WHERE a.grantee <> o.owner
       AND NOT (o.kind = 'SCHEMA' AND o.object = $6 AND a.privilege_type = 'USAGE')
       AND NOT coalesce(r.rolsuper OR r.rolname IN (current_user, 'hawser_owner') OR pg_has_role(r.oid, (
             SELECT h.nspowner FROM pg_namespace AS h WHERE h.nspname = 'hawser'), 'MEMBER'), false)
  )
  SELECT h.role, h.kind, h.object, h.privilege, h.passable, h.grantor, w.is_wanted AS "optionOnly"
    FROM held AS h CROSS JOIN LATERAL (
      SELECT EXISTS (SELECT FROM wanted AS v WHERE v.role = h.role AND v.oid = h.oid AND v.privilege = h.privilege) AS is_wanted
    ) AS w
   WHERE h.passable OR NOT w.is_wanted
   ORDER BY array_position($7::text[], h.object), array_position('{SCHEMA,FUNCTION,TABLE,SEQUENCE}', h.kind), h.object,
            h.role, h.grantor, h.privilege`;

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

/**
 * Looks for them: one line for each role and what it has in the same way, with the statement that takes it away. Secrets
 * come first.
 *
 * @param grants all that the spec grants in the schema `hawser`
 */
export async function surplusGrants(client: pg.Client, grants: readonly Grant[]): Promise<string[]> {
  const wanted = [...grants, ...handlersGrants];
  const columns = (["role", "privilege", "kind", "object"] as const).map((name) => wanted.map((grant) => grant[name]));
  const { rows } = await client.query<Held>(surplusSql, [...columns, dblinkSchema, foreignDataSchema, secretTables]);
  const byObject = grouped(rows, ({ privilege: _privilege, passable: _passable, ...rest }) => rest);
  return grouped(byObject, ([first, ...more]) => {
    const privileges = [first!, ...more].map(({ privilege }) => privilege);
    return { ...first!, object: "", privilege: privileges, passable: false };
  }).map(line);
}

/** Groups in the order of their first members. */
function grouped<Item>(items: readonly Item[], keyOf: (item: Item) => object): Item[][] {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = JSON.stringify(keyOf(item));
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()];
}

/** @param group the privileges on each object, which are the same on all */
function line(group: readonly (readonly Held[])[]): string {
  const first = group[0]!;
  const { role, kind, object, grantor, optionOnly } = first[0]!;
  const privileges = first.map(({ privilege }) => privilege).join(", ");
  const who = role === null ? "every role" : `"${role}"`;
  const more = group.length === 1 ? "" : ` and ${group.length - 1} more`;
  const what = `${privileges} on ${kind.toLowerCase()} ${object}${more}`;
  const objects = group.map(([held]) => held!.object).join(", ");
  const cascade = group.flat().some(({ passable }) => passable) ? " CASCADE" : "";
  const revoke = `REVOKE ${optionOnly ? "GRANT OPTION FOR " : ""}${privileges} ON ${kind} ${objects} FROM ${
    role === null ? "PUBLIC" : identifier(role)
  }${cascade}`;
  // Only who has granted it can take it back.
  const remedy = grantor === null ? revoke : `SET ROLE ${identifier(grantor)}; ${revoke}; RESET ROLE`;
  return `${who} ${optionOnly ? "may grant" : "has"} ${what}${optionOnly ? " to others" : ""}, which Hawser has not given: ${remedy}`;
}
