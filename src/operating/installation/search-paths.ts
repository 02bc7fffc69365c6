/**
 * Finds schemas on the search_path of Hawser's logins in which other roles may create objects. Hawser's own statements
 * do not call objects there, but those of users may: in a handler with `message.client`, or in psql.
 */
import { identifier, type RunQuery, someOf } from "./object.js";
import type { Fault } from "./state.js";

/**
 * Query: logins that are not superusers and may connect, with their search_path. Excludes the login of bound functions,
 * whose sessions set their own path.
 */
const loginsSql = `
  SELECT r.rolname AS login, coalesce(own.path, theirs.path, here.path, fallback.path) AS path
    FROM pg_roles AS r
    LEFT JOIN LATERAL (${settingSql("(SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())", "r.oid")}) AS own ON true
    LEFT JOIN LATERAL (${settingSql("0", "r.oid")}) AS theirs ON true
    LEFT JOIN LATERAL (${settingSql("(SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())", "0")}) AS here ON true
    CROSS JOIN (
      -- The reset value of this session may be the login's own setting.
      SELECT CASE WHEN EXISTS (
               SELECT FROM pg_db_role_setting AS s JOIN pg_roles AS me ON me.oid = s.setrole
                WHERE me.rolname = session_user AND array_to_string(s.setconfig, ' ') ~ '\\msearch_path='
             ) THEN g.boot_val ELSE g.reset_val END AS path
        FROM pg_settings AS g WHERE g.name = 'search_path'
    ) AS fallback
   WHERE r.rolcanlogin AND NOT r.rolsuper AND has_database_privilege(r.oid, current_database(), 'CONNECT')
     AND r.rolname !~ '^hawser_executor_[0-9a-f]{12}$'
     AND EXISTS (
       SELECT FROM pg_roles AS g
        WHERE g.rolname IN ('hawser_bridge', 'hawser_peer', 'hawser_executor') AND pg_has_role(r.oid, g.oid, 'MEMBER')
     )
   ORDER BY 1`;

function settingSql(database: string, role: string): string {
  return `SELECT substr(c.line, length('search_path=') + 1) AS path
            FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c (line)
           WHERE s.setdatabase = ${database} AND s.setrole = ${role} AND c.line LIKE 'search\\_path=%'`;
}

/** Query: existing schemas of the paths. A trusted owner is no risk: its objects can do only what it can do itself. */
const schemasSql = `
  SELECT n.nspname AS name, o.rolname AS owner,
         EXISTS (
           SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
            WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'
         ) AS "isOpen",
         o.rolsuper OR EXISTS (
           SELECT FROM pg_roles AS h WHERE h.rolname = 'hawser_owner' AND pg_has_role(o.oid, h.oid, 'MEMBER')
         ) OR o.rolname = n.nspname AS "isTrusted"
    FROM pg_namespace AS n JOIN pg_roles AS o ON o.oid = n.nspowner
   WHERE n.nspname = ANY ($1) ORDER BY 1`;

interface FoundSchema {
  readonly name: string;
  readonly owner: string;
  /** True if every role may create objects in it. */
  readonly isOpen: boolean;
  /** True if its owner may act as Hawser, or is the login with the same name. */
  readonly isTrusted: boolean;
}

/** Login with the schemas on its search_path, in order. */
interface LoginPath {
  readonly login: string;
  readonly names: readonly string[];
}

/** Inspects the search paths, and returns their risks. */
export async function inspectSearchPaths(runQuery: RunQuery): Promise<Fault[]> {
  const rows = await runQuery<{ login: string; path: string }>(loginsSql);
  const logins = rows.map(({ login, path }): LoginPath => ({ login, names: namesOf(path, login) }));
  const named = [...new Set(logins.flatMap(({ names }) => names))];
  const schemas = await runQuery<FoundSchema>(schemasSql, named);
  return schemas
    .flatMap((schema) => {
      const has = logins.filter(({ names }) => names.includes(schema.name));
      if (schema.isOpen) return [openRisk(schema, has)];
      return schema.isTrusted
        ? []
        : has.filter(({ login }) => login === schema.name).map((one) => foreignRisk(schema, one));
    })
    .map(([what, remedy]) => ({ kind: "risk", what, remedy, check: "roles" }));
}

type RiskText = readonly [what: string, remedy: string];

function openRisk({ name }: FoundSchema, logins: readonly LoginPath[]): RiskText {
  const shown = someOf(
    logins.map(({ login }) => `"${login}"`),
    3,
  );
  return [
    `every role may create objects in the schema "${name}", which is on the search_path of ${shown}: statements of ` +
      `${logins.length === 1 ? "this login" : "these logins"} may call them`,
    `REVOKE CREATE ON SCHEMA ${identifier(name)} FROM PUBLIC`,
  ];
}

/** Risk of a schema with the name of a login, which comes first on that login's path. */
function foreignRisk({ name, owner }: FoundSchema, { login, names }: LoginPath): RiskText {
  const rest = names.filter((each) => each !== name).map(identifier);
  return [
    `the schema "${name}", which is on the search_path of the login of the same name, belongs to "${owner}": statements of ` +
      "this login may call the objects that this owner creates there",
    `ALTER ROLE ${identifier(login)} SET search_path = ${rest.length === 0 ? "pg_catalog" : rest.join(", ")}`,
  ];
}

/** Parses a search_path as printed by Postgres. */
function namesOf(path: string, login: string): string[] {
  const names = [...path.matchAll(/"((?:[^"]|"")*)"|[^,\s"]+/g)].map(([word, quoted]) =>
    quoted === undefined ? word.toLowerCase() : quoted.replaceAll('""', '"'),
  );
  return [...new Set(names.map((name) => (name === "$user" ? login : name)))];
}
