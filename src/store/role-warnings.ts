/**
 * Roles that carry Hawser's names and were made by somebody else, or changed: what they may do beyond what they are for.
 */
import pg from "pg";

const { escapeIdentifier: identifier } = pg;

const attributesSql = `
  SELECT r.rolname AS role, ARRAY(
           SELECT a.name FROM (VALUES
             ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
             ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls), ('LOGIN', r.rolcanlogin)
           ) AS a (name, held) WHERE a.held
         ) AS attributes
    FROM pg_roles AS r WHERE r.rolname = ANY ($1) ORDER BY array_position($1, r.rolname::text)`;

/** Not the role that runs it, which is made a member, nor superusers, who need not be. */
const ownersSql = `
  SELECT m.rolname AS role
    FROM pg_auth_members AS a
    JOIN pg_roles AS o ON o.oid = a.roleid AND o.rolname = 'hawser_owner'
    JOIN pg_roles AS m ON m.oid = a.member
   WHERE m.rolname <> current_user AND NOT m.rolsuper
   GROUP BY m.rolname ORDER BY m.rolname`;

/** What a function can reach beyond its owner's rights is what the executor can: it is in no other role. */
const executorSql = `
  SELECT m.rolname AS member, g.rolname AS role
    FROM pg_auth_members AS a JOIN pg_roles AS m ON m.oid = a.member JOIN pg_roles AS g ON g.oid = a.roleid
   WHERE m.rolname <> current_user AND NOT (m.rolname ~ '^hawser_executor_' AND g.rolname = 'hawser_executor')
     AND (m.rolname = 'hawser_executor' OR m.rolname ~ '^hawser_executor_[0-9a-f]{12}$')
   GROUP BY 1, 2 ORDER BY 1, 2`;

/** Who may let others in, beside those who act as the owner of Hawser already. */
const adminsSql = `
  SELECT g.rolname AS role, m.rolname AS member
    FROM pg_auth_members AS a JOIN pg_roles AS g ON g.oid = a.roleid JOIN pg_roles AS m ON m.oid = a.member
   WHERE g.rolname = ANY ($1) AND g.rolname <> 'hawser_owner' AND a.admin_option
     AND m.rolname <> current_user AND m.rolname <> 'hawser_owner' AND NOT m.rolsuper
     AND NOT EXISTS (
       SELECT FROM pg_auth_members AS b JOIN pg_roles AS o ON o.oid = b.roleid AND o.rolname = 'hawser_owner' WHERE b.member = m.oid
     )
   GROUP BY 1, 2 ORDER BY 1, 2`;

/** Not hawser_owner, whose members are told each time. */
const membersSql = `
  SELECT g.rolname AS role, array_agg(DISTINCT m.rolname::text ORDER BY m.rolname::text) AS members
    FROM pg_auth_members AS a JOIN pg_roles AS g ON g.oid = a.roleid JOIN pg_roles AS m ON m.oid = a.member
   WHERE g.rolname = ANY ($1) AND g.rolname <> 'hawser_owner'
     AND m.rolname <> current_user AND NOT m.rolsuper AND m.rolname !~ '^hawser_(executor_[0-9a-f]{12}|bridge)$'
   GROUP BY 1 ORDER BY 1`;

/** What the members of a role have of a database where Hawser is installed. */
const rightsOfMembers: Readonly<Record<string, string>> = {
  hawser_bridge: "read the gateway's password and what NATS carries",
  hawser_peer: "read the secret of the mesh and all messages of peers",
  hawser_nats: "reach NATS by the SQL functions",
  hawser_executor: "run what NATS reaches",
};

/**
 * Roles belong to the whole cluster: whoever made them, or another database's installation, may have put somebody into them.
 * To be asked before the first installation in a database, which gives its secrets to them.
 *
 * @param roles the roles that an installation makes where they are missing
 * @returns one line for each role that has members already, with what to do
 */
export async function presentMembers(client: pg.Client, roles: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ role: string; members: string[] }>(membersSql, [roles]);
  return rows.map(({ role, members }) => {
    const shown = members.slice(0, 5).map((member) => `"${member}"`);
    const more = members.length > shown.length ? ` and ${members.length - shown.length} more` : "";
    return (
      `the role ${role} was there before this installation, and ${shown.join(", ")}${more} in it may now ` +
      `${rightsOfMembers[role] ?? "use what it is granted"}. Where that is not meant: ` +
      `REVOKE ${role} FROM ${members
        .map((member) => identifier(member))
        .slice(0, 5)
        .join(", ")}`
    );
  });
}

/**
 * One line each, with what to do. The path of the session is pg_catalog and nothing before it.
 *
 * @param roles the roles that an installation makes where they are missing
 */
export async function roleWarnings(client: pg.Client, roles: readonly string[]): Promise<string[]> {
  const { rows: found } = await client.query<{ role: string; attributes: string[] }>(attributesSql, [roles]);
  const { rows: executors } = await client.query<{ member: string; role: string }>(executorSql);
  const { rows: owners } = await client.query<{ role: string }>(ownersSql);
  const { rows: admins } = await client.query<{ role: string; member: string }>(adminsSql, [roles]);
  return [
    ...found
      .filter(({ attributes }) => attributes.length > 0)
      .map(
        ({ role, attributes }) =>
          `the role ${role}, which is for grants alone, has ${attributes.join(", ")}: ` +
          `ALTER ROLE ${role} ${attributes.map((attribute) => `NO${attribute}`).join(" ")}`,
      ),
    ...executors.map(
      ({ member, role }) =>
        `"${member}", as which functions can act that NATS reaches, is a member of "${role}", and so each of them has its ` +
        `rights: REVOKE ${identifier(role)} FROM ${identifier(member)}`,
    ),
    ...admins.map(
      ({ role, member }) =>
        `"${member}" may put others into ${role}, and take its members out: ` +
        `REVOKE ADMIN OPTION FOR ${role} FROM ${identifier(member)}`,
    ),
    ...owners.map(
      ({ role }) =>
        `"${role}" is a member of hawser_owner, and may read all messages and the gateway's password and replace what ` +
        `others call. Where it does not install Hawser: REVOKE hawser_owner FROM ${identifier(role)}`,
    ),
  ];
}
