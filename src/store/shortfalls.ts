/**
 * What an installation lacks because the role that made it was not allowed to, and how it gets it.
 */
import pg from "pg";
import type { Grant } from "./grants.js";
import { lackingGrants } from "./lacking-grants.js";
import { roleRights } from "./superuser-errands.js";

/** Something that the installing role may not do. */
export interface Shortfall {
  /** What is not as it should be. */
  readonly what: string;
  /** What that means for who uses the database. */
  readonly meaning: string;
  /** What to do about it. */
  readonly remedy: string;
}

const { escapeIdentifier: identifier } = pg;
const againText = "then run `hawser init` again";

const rolesSql = `
  SELECT r.name, p.oid IS NOT NULL AS "exists",
         p.oid IS NOT NULL AND pg_has_role(current_user, p.oid, 'MEMBER') AS member
    FROM unnest($1::text[]) WITH ORDINALITY AS r (name, nth) LEFT JOIN pg_roles AS p ON p.rolname = r.name ORDER BY r.nth`;

/** Everything in the schema with the owner, other than sequences, indexes and row types, which go with their tables. */
const ownersSql = `
  SELECT pg_get_userbyid(owner) AS owner, count(*)::integer AS objects
    FROM (
      SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'hawser'
      UNION ALL
      SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('hawser') AND relkind IN ('r', 'p', 'v')
      UNION ALL
      SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace('hawser')
    ) AS owned
   WHERE pg_get_userbyid(owner) <> 'hawser_owner'
   GROUP BY 1 ORDER BY 1`;

/** What the grants need: the role acts as each of the owners, and gives the schema away only with CREATE on the database. */
const ownsSql = `
  SELECT coalesce(bool_and(pg_has_role(current_user, o.owner, 'USAGE')), true) AS grants,
         coalesce(bool_and(o.kind <> 'schema' OR pg_get_userbyid(o.owner) = 'hawser_owner'), true)
           OR has_database_privilege(current_database(), 'CREATE') AS "movesSchema"
    FROM (
      SELECT 'schema' AS kind, nspowner AS owner FROM pg_namespace WHERE nspname = 'hawser'
      UNION ALL
      SELECT 'relation', relowner FROM pg_class WHERE relnamespace = to_regnamespace('hawser') AND relkind IN ('r', 'p', 'v')
      UNION ALL
      SELECT 'function', proowner FROM pg_proc WHERE pronamespace = to_regnamespace('hawser')
    ) AS o`;

/** What each role is for, as far as its absence matters. */
const meanings: Readonly<Record<string, string>> = {
  hawser_owner: "the schema belongs to whoever made it, and only that role can migrate it",
  hawser_peer: "no login can be given just the rights of a peer; peers run as the owner of the schema",
};

/**
 * Looks at the database as it is.
 *
 * @param options.refusal why the grants were refused altogether
 */
export async function findShortfalls(
  client: pg.Client,
  options: {
    readonly roles: readonly string[];
    readonly grants: readonly Grant[];
    readonly refusal?: string | undefined;
  },
): Promise<Shortfall[]> {
  const { rows: who } = await client.query<{ role: string }>("SELECT current_user AS role");
  const me = who[0]!.role;
  const roles = await rolesOf(client, options.roles);
  const found = missingRoles(roles, me);
  const owner = roles.find(({ name }) => name === "hawser_owner");
  if (owner?.exists === true) found.push(...(await foreignOwners(client, me, owner.member)));
  found.push(...(await missingGrants(client, options, me)));
  return found;
}

/** Why the installation would fail, by the role; empty if it would not. */
export async function foreseeFailure(client: pg.Client, roles: readonly string[]): Promise<Shortfall[]> {
  const { role, database, makesSchema } = await roleRights(client, roles);
  if (makesSchema) return [];
  return [
    {
      what: `"${role}" may not make a schema in the database "${database}"`,
      meaning: "`hawser init` will fail",
      remedy: `as its owner or a superuser: GRANT CREATE ON DATABASE ${identifier(database)} TO ${identifier(role)}`,
    },
  ];
}

/**
 * Looks at the role before anything is done: what it may do is not lacking, whatever there is by now.
 *
 * @param options.migrated the schema is there, as this version has it
 */
export async function foreseeShortfalls(
  client: pg.Client,
  options: { readonly roles: readonly string[]; readonly grants: readonly Grant[]; readonly migrated: boolean },
): Promise<Shortfall[]> {
  const { superuser, role: me, makesRoles, missing, joins } = await roleRights(client, options.roles);
  if (superuser) return [];
  const found: Shortfall[] = [];
  if (!makesRoles) found.push(...missingRoles(await rolesOf(client, options.roles), me));
  const owns = (await client.query<{ grants: boolean; movesSchema: boolean }>(ownsSql)).rows[0]!;
  const hasOwner = makesRoles || !missing.includes("hawser_owner");
  if (options.migrated) {
    if (hasOwner && !(joins && owns.grants && owns.movesSchema))
      found.push(...(await foreignOwners(client, me, joins)));
    if (!owns.grants) found.push(...(await missingGrants(client, options, me)));
  } else if (hasOwner && !joins) {
    found.push({
      what: `the objects of the schema hawser will belong to "${me}" and not to hawser_owner`,
      meaning: `only "${me}" and superusers can migrate them`,
      remedy: `as a superuser: GRANT hawser_owner TO ${identifier(me)}; ${againText}`,
    });
  }
  return found;
}

interface Role {
  readonly name: string;
  readonly exists: boolean;
  /** Whether the present role is a member. */
  readonly member: boolean;
}

async function rolesOf(client: pg.Client, names: readonly string[]): Promise<Role[]> {
  return (await client.query<Role>(rolesSql, [names])).rows;
}

function missingRoles(roles: readonly Role[], me: string): Shortfall[] {
  return roles
    .filter(({ exists }) => !exists)
    .map(({ name }) => ({
      what: `the role ${name} is missing, and "${me}" may not make roles`,
      meaning: meanings[name] ?? "nobody can be given its rights",
      remedy: `as a superuser: CREATE ROLE ${name} NOLOGIN; ${againText}`,
    }));
}

async function foreignOwners(client: pg.Client, me: string, member: boolean): Promise<Shortfall[]> {
  const { rows } = await client.query<{ owner: string; objects: number }>(ownersSql);
  return rows.map(({ owner, objects }) => ({
    what: `${objects} object${objects === 1 ? "" : "s"} of the schema hawser belong${objects === 1 ? "s" : ""} to "${owner}" and not to hawser_owner`,
    meaning: `only "${owner}" and superusers can migrate them`,
    remedy:
      owner === me && !member
        ? `as a superuser: GRANT hawser_owner TO ${identifier(me)}; ${againText}`
        : `run \`hawser init\` as "${owner}" with membership of hawser_owner, or as a superuser`,
  }));
}

async function missingGrants(
  client: pg.Client,
  { grants, refusal }: { readonly grants: readonly Grant[]; readonly refusal?: string | undefined },
  me: string,
): Promise<Shortfall[]> {
  return (await lackingGrants(client, grants)).map((lacking) => {
    const { role, privilege, kind, object } = lacking[0]!;
    const more = lacking.length === 1 ? "" : ` and ${lacking.length - 1} more`;
    const why = refusal === undefined ? "" : ` (${refusal})`;
    return {
      what: `${role} lacks ${privilege} on ${kind.toLowerCase()} ${object}${more}, and "${me}" may not grant it${why}`,
      meaning: `a login that has only ${role} cannot do its work`,
      remedy: "run `hawser init` as the owner of the schema hawser, or as a superuser",
    };
  });
}
