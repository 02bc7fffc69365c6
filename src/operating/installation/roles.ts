/**
 * Roles of Hawser, which all databases of a server share, its schemas and their objects, and the privileges of
 * the current role on them.
 */
import { plural } from "../../foundation/errors/index.js";
import { grantedRoles, ownSchemaNames, ownSchemas } from "../../jobs-and-peers/migrations/index.js";
import { againText, type InstalledObject, identifier, type RunQuery, someOf } from "./object.js";
import type { Fault, RolesState } from "./state.js";

const owner = "hawser_owner";

const stateSql = `
  WITH owned AS (
    SELECT 'schema' AS kind, nspowner AS owner FROM pg_namespace WHERE nspname IN ${ownSchemaNames}
    UNION ALL
    SELECT 'relation', c.relowner FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ${ownSchemaNames} AND c.relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT 'function', proowner FROM pg_proc WHERE pronamespace = to_regnamespace('hawser')
  )
  SELECT current_user AS role, current_database() AS database, r.rolsuper AS superuser, r.rolsuper OR r.rolcreaterole AS "makesRoles",
         has_database_privilege(current_database(), 'CREATE') OR (SELECT count(*) = ${ownSchemas.length} FROM pg_namespace AS n WHERE n.nspname IN ${ownSchemaNames}) AS "makesSchema",
         (SELECT pg_get_userbyid(h.nspowner) FROM pg_namespace AS h WHERE h.nspname = 'hawser') AS owner,
         EXISTS (
           SELECT FROM pg_namespace AS h JOIN pg_roles AS x ON x.oid = h.nspowner
            WHERE h.nspname = 'hawser' AND NOT x.rolsuper AND NOT coalesce(pg_has_role(x.oid, w.oid, 'MEMBER'), false)
         ) AS "ownerIsUntrusted",
         ARRAY(SELECT g.name FROM unnest($1::text[]) WITH ORDINALITY AS g (name, nth)
                WHERE NOT EXISTS (SELECT FROM pg_roles AS x WHERE x.rolname = g.name) ORDER BY g.nth) AS missing,
         CASE WHEN w.oid IS NULL THEN r.rolsuper OR r.rolcreaterole
              ELSE pg_has_role(current_user, w.oid, 'USAGE') OR pg_has_role(current_user, w.oid, 'USAGE WITH ADMIN OPTION')
                   OR r.rolcreaterole AND current_setting('server_version_num')::integer < 160000 END AS joins,
         coalesce(pg_has_role(current_user, w.oid, 'MEMBER'), false) AS "isMember",
         coalesce((SELECT bool_and(pg_has_role(current_user, o.owner, 'USAGE')) FROM owned AS o), true) AS "ownsAll",
         coalesce((SELECT bool_and(o.kind <> 'schema' OR pg_get_userbyid(o.owner) = '${owner}') FROM owned AS o), true)
           OR has_database_privilege(current_database(), 'CREATE') AS "movesSchema",
         (SELECT coalesce(json_agg(g ORDER BY g.owner), '[]') FROM (
            SELECT pg_get_userbyid(o.owner) AS owner, count(*) AS objects FROM owned AS o
             WHERE pg_get_userbyid(o.owner) <> '${owner}' GROUP BY 1) AS g) AS "otherOwners"
    FROM pg_roles AS r LEFT JOIN pg_roles AS w ON w.rolname = '${owner}' WHERE r.rolname = current_user`;

/** Query: members of Hawser's roles, except hawser_owner, whose members are reported separately. */
const membersSql = `
  SELECT g.rolname AS role, array_agg(DISTINCT m.rolname::text ORDER BY m.rolname::text) AS members
    FROM pg_auth_members AS a JOIN pg_roles AS g ON g.oid = a.roleid JOIN pg_roles AS m ON m.oid = a.member
   WHERE g.rolname = ANY ($1) AND g.rolname <> '${owner}'
     AND m.rolname <> current_user AND NOT m.rolsuper AND m.rolname !~ '^hawser_(executor_[0-9a-f]{12}|bridge)$'
   GROUP BY 1 ORDER BY 1`;

const attributesSql = `
  SELECT r.rolname AS role, ARRAY(
           SELECT a.name FROM (VALUES
             ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
             ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls), ('LOGIN', r.rolcanlogin)
           ) AS a (name, held) WHERE a.held
         ) AS attributes
    FROM pg_roles AS r WHERE r.rolname = ANY ($1) ORDER BY array_position($1, r.rolname::text)`;

/**
 * Memberships that are risks. `executor`: the executor's privileges limit what functions can reach, so it must not be
 * in any other role. `admin`: roles that can grant membership to others, except those that may act as Hawser's owner.
 * `owner`: members of hawser_owner, except superusers and the current role, which the installation makes a member.
 */
const membershipsSql = `
  SELECT k.kind, m.rolname AS member, g.rolname AS role
    FROM pg_auth_members AS a JOIN pg_roles AS m ON m.oid = a.member JOIN pg_roles AS g ON g.oid = a.roleid
    CROSS JOIN LATERAL (VALUES
      (1, 'executor', m.rolname ~ '^hawser_executor(_[0-9a-f]{12})?$'
        AND NOT (m.rolname ~ '^hawser_executor_' AND g.rolname = 'hawser_executor')),
      (2, 'admin', g.rolname = ANY ($1) AND g.rolname <> '${owner}' AND a.admin_option AND m.rolname <> '${owner}' AND NOT m.rolsuper
        AND NOT EXISTS (SELECT FROM pg_auth_members AS b JOIN pg_roles AS o ON o.oid = b.roleid AND o.rolname = '${owner}' WHERE b.member = m.oid)),
      (3, 'owner', g.rolname = '${owner}' AND NOT m.rolsuper)
    ) AS k (nth, kind, holds)
   WHERE k.holds AND m.rolname <> current_user
   GROUP BY k.nth, k.kind, m.rolname, g.rolname
   ORDER BY k.nth, CASE k.kind WHEN 'admin' THEN g.rolname END, m.rolname, g.rolname`;

interface Membership {
  readonly kind: "executor" | "admin" | "owner";
  readonly member: string;
  readonly role: string;
}

/** Inspects the current role and Hawser's roles. */
export async function inspectRoles(runQuery: RunQuery): Promise<RolesState> {
  const [state] = await runQuery<Omit<RolesState, "members" | "risks">>(stateSql, grantedRoles);
  const held = await runQuery<{ role: string; attributes: string[] }>(attributesSql, grantedRoles);
  const memberships = await runQuery<Membership>(membershipsSql, grantedRoles);
  return {
    ...state!,
    members: await runQuery<{ role: string; members: string[] }>(membersSql, grantedRoles),
    risks: [
      ...held.filter(({ attributes }) => attributes.length > 0).map(attributeRisk),
      ...memberships.map(membershipRisk),
    ],
  };
}

/** Fault for a Hawser role with unexpected attributes: another role created or changed it. */
function attributeRisk({ role, attributes }: { role: string; attributes: string[] }): Fault {
  return risk(
    `the role ${role}, which is for grants alone, has ${attributes.join(", ")}`,
    `ALTER ROLE ${role} ${attributes.map((attribute) => `NO${attribute}`).join(" ")}`,
  );
}

function membershipRisk({ kind, member, role }: Membership): Fault {
  switch (kind) {
    case "executor":
      return {
        ...risk(
          `functions that NATS reaches can act as "${member}", which is a member of "${role}", so each of them has the rights of "${role}"`,
          `REVOKE ${identifier(role)} FROM ${identifier(member)}`,
        ),
        subject: member,
      };
    case "admin":
      return risk(
        `"${member}" may put others into ${role}, and take its members out`,
        `REVOKE ADMIN OPTION FOR ${role} FROM ${identifier(member)}`,
      );
    case "owner":
      return {
        ...risk(
          `"${member}" is a member of hawser_owner, and may read all messages and the gateway's password, and replace the ` +
            "functions that others call. Unless it installs Hawser",
          `REVOKE hawser_owner FROM ${identifier(member)}`,
        ),
        // A role that installs without being a superuser must be a member of hawser_owner.
        severity: "note",
      };
  }
}

function risk(what: string, remedy: string): Fault {
  return { kind: "risk", what, remedy };
}

/** Privileges of a role's members in a database where Hawser is installed. */
const rightsOfMembers: Readonly<Record<string, string>> = {
  hawser_bridge: "read the gateway's password and the messages from NATS",
  hawser_peer: "read the mesh secret and all messages of peers",
  hawser_nats: "call the SQL functions that reach NATS",
  hawser_executor: "run the functions that NATS reaches",
  hawser_viewer: "see counts, names and ages of messages",
};

/**
 * Finds members that Hawser's roles have before the first installation in a database. The creator of the roles, or the
 * installation of another database, may have added them. The installation gives them access to the secrets of this
 * database.
 */
export function presentMembers(roles: RolesState): Fault[] {
  if (roles.owner !== null) return [];
  return roles.members.map(({ role, members }) =>
    risk(
      `the role ${role} was there before this installation, and ${someOf(
        members.map((member) => `"${member}"`),
        5,
      )} in it may now ${rightsOfMembers[role] ?? "use what it is granted"}. Unless that is intended`,
      `REVOKE ${role} FROM ${members.slice(0, 5).map(identifier).join(", ")}`,
    ),
  );
}

/** Consequence of the absence of a role. */
const meanings: Readonly<Record<string, string>> = {
  hawser_owner: "the schema belongs to the role that made it, and only that one can migrate it",
  hawser_peer: "no login can be given just the rights of a peer; peers run as the owner of the schema",
};

/** Schemas of functions and tables, created by the migrations of the store. */
export const hawserSchema: InstalledObject = {
  name: "schema",
  what: `the schemas ${ownSchemas.join(", ")}`,
  ofNats: false,
  faults: ({ roles: { role, database, makesSchema } }) =>
    makesSchema
      ? []
      : [
          {
            kind: "missing",
            what: `"${role}" may not create a schema in the database "${database}"`,
            meaning: "`hawser init` will fail",
            remedy: `as its owner or a superuser: GRANT CREATE ON DATABASE ${identifier(database)} TO ${identifier(role)}`,
            essential: true,
          },
        ],
  superuserStatements: ({ roles: { role, database, makesSchema } }) =>
    makesSchema ? [] : [`GRANT CREATE ON DATABASE ${identifier(database)} TO ${identifier(role)}`],
};

/** Roles and the ownership of the schema's objects. Created together with the privileges. */
export const roles: InstalledObject = {
  name: "roles",
  what: "roles and owners",
  ofNats: false,
  faults: ({ roles: state }) => [...missingRoles(state), ...foreignOwners(state), ...state.risks],
  superuserStatements: ({ roles: { role, makesRoles, missing, joins } }) => [
    ...(makesRoles ? [] : missing.map((name) => `CREATE ROLE ${name} NOLOGIN`)),
    ...(joins ? [] : [`GRANT ${owner} TO ${identifier(role)}`]),
  ],
};

function missingRoles({ missing, makesRoles }: RolesState): Fault[] {
  return missing.map((name) => ({
    kind: "missing",
    what: `the role ${name} is missing`,
    refused: "make roles",
    meaning: meanings[name] ?? "nobody can be given its rights",
    remedy: `as a superuser: CREATE ROLE ${name} NOLOGIN; ${againText}`,
    repairable: makesRoles,
    severity: "warning",
  }));
}

function foreignOwners(state: RolesState): Fault[] {
  const { role, missing, joins, isMember, ownsAll, movesSchema } = state;
  if (missing.includes(owner)) return [];
  const join = `as a superuser: GRANT ${owner} TO ${identifier(role)}; ${againText}`;
  const meaning = (name: string) => `only "${name}" and superusers can migrate them`;
  if (state.owner === null) {
    const what = `the objects of Hawser's schemas will belong to "${role}" and not to hawser_owner`;
    return [{ kind: "missing", what, meaning: meaning(role), remedy: join, repairable: joins }];
  }
  return state.otherOwners.map(({ owner: name, objects }) => ({
    kind: "missing",
    what: `${plural(objects, "object")} of Hawser's schemas belong${objects === 1 ? "s" : ""} to "${name}" and not to hawser_owner`,
    meaning: meaning(name),
    remedy:
      name === role && !isMember
        ? join
        : `run \`hawser init\` as "${name}" with membership of hawser_owner, or as a superuser`,
    repairable: joins && ownsAll && movesSchema,
    severity: "note",
  }));
}
