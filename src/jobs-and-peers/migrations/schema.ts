/**
 * Ownership check and creation of the schemas of Hawser. A role that created one beforehand could have put code into it,
 * which would then run with the rights of the installing role.
 */
import { HawserError } from "../../foundation/errors/index.js";

/** Schema of the tables that no role may name, among them that of the migrations. Functions and views are in the schema `hawser`. */
export const tableSchema = "hawser_data";

/** Schemas of the tables: the other ones are each for one role, which may name the tables there. */
const tableSchemas = [tableSchema, "hawser_peer_data", "hawser_bridge_data"] as const;

/** Schemas that the migrations create, the functions' first. */
export const ownSchemas = ["hawser", ...tableSchemas] as const;

const sqlList = (names: readonly string[]): string => `(${names.map((name) => `'${name}'`).join(", ")})`;

/** SQL list of {@link ownSchemas}, for `IN`. */
export const ownSchemaNames = sqlList(ownSchemas);

/** SQL list of the schemas of the tables, for `IN`. */
export const tableSchemaNames = sqlList(tableSchemas);

/** Statement that drops the schemas. */
export const dropSchemasSql = `DROP SCHEMA ${ownSchemas.join(", ")} CASCADE`;

/**
 * List of oids for `IN`: superusers, the current role, and members of hawser_owner. Their code can do nothing that
 * these roles may not do anyway.
 */
export const trustedRoles = `(
  SELECT r.oid FROM pg_catalog.pg_roles AS r
   WHERE r.rolsuper OR r.rolname = current_user
      OR EXISTS (SELECT FROM pg_catalog.pg_roles AS o WHERE o.rolname = 'hawser_owner' AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')))`;

/** SQL expression: quoted name of a role. */
const quoted = (role: string): string =>
  `'"' || pg_catalog.replace(pg_catalog.pg_get_userbyid(${role})::text, '"', '""') || '"'`;

/** SQL expression: keyword with which ALTER and DROP refer to the relation `c` of pg_class. */
const relationKind = `CASE c.relkind
            WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END`;

/**
 * SQL that inspects the schemas and returns one row. It reads only the catalogs. The owners of a schema and its objects
 * are checked only if the login may create objects in the schema. The migrations table is checked for every login,
 * because rules, triggers and policies run code for readers, too. If a trusted role owns the migrations table, Hawser
 * was installed here, and the remedy does not suggest dropping the schemas.
 */
export const schemaInspectionSql = `
  WITH schemas AS (
    SELECT n.oid, n.nspname AS name, n.nspowner, pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS creatable
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ${ownSchemaNames}
  )
  SELECT ARRAY(SELECT s.name::text FROM schemas AS s ORDER BY 1) AS schemas, m.oid IS NOT NULL AS migrated, current_user AS role,
         coalesce(pg_catalog.has_schema_privilege(m.relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(m.oid, 'SELECT'), false) AS readable,
         coalesce(m.relrowsecurity AND pg_catalog.row_security_active(m.oid), false) AS hidden,
         (
           SELECT pg_catalog.array_agg(a.attname::text) FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
         ) AS columns,
         (
           SELECT pg_catalog.format('%s.%I', s.name, c.relname)
             FROM pg_catalog.pg_class AS c JOIN schemas AS s ON s.oid = c.relnamespace WHERE c.relkind NOT IN ('i', 'I')
            ORDER BY s.name = 'hawser', s.name, c.relkind NOT IN ('r', 'p'), c.relname LIMIT 1
         ) AS relation,
         EXISTS (
           SELECT FROM pg_catalog.pg_class AS c JOIN schemas AS s ON s.oid = c.relnamespace
            WHERE s.name = 'hawser' AND c.relkind IN ('r', 'p')
         ) AS "isOld",
         (
           SELECT pg_catalog.min(pg_catalog.format('%s.%I', s.name, p.proname))
             FROM pg_catalog.pg_proc AS p JOIN schemas AS s ON s.oid = p.pronamespace
         ) AS function,
         f.what, pg_catalog.pg_get_userbyid(f.owner) AS owner, coalesce(f.odd, false) AS odd,
         CASE
           WHEN f.odd AND m.trusted
             THEN 'Make it a plain table again: without policies, rules, triggers, child tables and types of others'
           WHEN f.odd THEN 'If it is not Hawser''s: ' || d.dropping
           WHEN m.trusted THEN pg_catalog.format(
             'If it is Hawser''s and only its owner was changed: ALTER %s OWNER TO %s. If %s installs Hawser here and is to be trusted: %s',
             f.object, g.keeper, g.owner, g.trust) || CASE WHEN f.nth > 1 THEN '. If it is not Hawser''s: DROP ' || f.object ELSE '' END
           ELSE pg_catalog.format('If %s has installed Hawser here and is to be trusted: %s. If not: %s', g.owner, g.trust, d.dropping)
         END AS remedy
    FROM (SELECT) AS one
    CROSS JOIN (
      SELECT 'DROP SCHEMA ' || pg_catalog.string_agg(s.name, ', ' ORDER BY s.name) || ' CASCADE' AS dropping FROM schemas AS s
    ) AS d
    LEFT JOIN (
      SELECT c.*, c.relowner IN ${trustedRoles} AS trusted
        FROM pg_catalog.pg_class AS c JOIN schemas AS s ON s.oid = c.relnamespace
       WHERE s.name = '${tableSchema}' AND c.relname = 'migrations'
    ) AS m ON true
    LEFT JOIN LATERAL (
      SELECT o.* FROM (
        SELECT 1 AS nth, 'the schema ' || s.name AS what, 'SCHEMA ' || s.name AS object, s.nspowner AS owner, false AS odd, s.creatable
          FROM schemas AS s
        UNION ALL
        -- Indexes and the sequences of columns have the owner of their table.
        SELECT CASE c.relkind WHEN 'S' THEN 3 ELSE 2 END, pg_catalog.format('the relation %s.%I', s.name, c.relname),
               pg_catalog.format('%s %s.%I', ${relationKind}, s.name, c.relname), c.relowner, false, s.creatable
          FROM pg_catalog.pg_class AS c JOIN schemas AS s ON s.oid = c.relnamespace WHERE c.relkind NOT IN ('i', 'I')
        UNION ALL
        SELECT 4, pg_catalog.format('the function %s.%I', s.name, p.proname),
               pg_catalog.format('ROUTINE %s.%I(%s)', s.name, p.proname, pg_catalog.oidvectortypes(p.proargtypes)), p.proowner, false, s.creatable
          FROM pg_catalog.pg_proc AS p JOIN schemas AS s ON s.oid = p.pronamespace
      ) AS o
       WHERE o.creatable AND o.owner NOT IN ${trustedRoles}
      UNION ALL
      SELECT 5, 'the relation hawser_data.migrations', 'TABLE hawser_data.migrations', m.relowner, true, true
       WHERE m.relkind <> 'r' OR m.relhassubclass
          -- Without a policy, row security hides rows but runs no code.
          OR m.relrowsecurity AND EXISTS (SELECT FROM pg_catalog.pg_policy AS y WHERE y.polrelid = m.oid)
          OR EXISTS (SELECT FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class = m.oid)
          OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = m.oid)
          OR EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
             WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace)
      ORDER BY 1, 2
      LIMIT 1
    ) AS f ON true
    LEFT JOIN LATERAL (
      SELECT o.owner, ${quoted("m.relowner")} AS keeper,
             CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = 'hawser_owner')
               THEN '' ELSE 'CREATE ROLE hawser_owner NOLOGIN; ' END || 'GRANT hawser_owner TO ' || o.owner AS trust
        FROM (SELECT ${quoted("f.owner")} AS owner) AS o
    ) AS g ON true`;

interface SchemaInspection {
  /** Those of {@link ownSchemas} that exist. */
  readonly schemas: readonly string[];
  readonly migrated: boolean;
  /** Columns of the migrations table; null if there is none. */
  readonly columns: readonly string[] | null;
  /** Any relation in the schemas, with its schema; null if there is none. */
  readonly relation: string | null;
  /** True if the schema `hawser` has tables, as before the first release. */
  readonly isOld: boolean;
  /** Any function in the schemas, with its schema; null if there is none. */
  readonly function: string | null;
  /** True if the role may read the migrations table itself, as its owner does. */
  readonly readable: boolean;
  /** True if row security hides rows of the migrations table from the current role. */
  readonly hidden: boolean;
  readonly role: string;
  /** Object that is refused; null if there is none. */
  readonly what: string | null;
  readonly owner: string | null;
  /** True if the object is not of the expected kind, whoever owns it. */
  readonly odd: boolean;
  /** Sentences, the last one without its full stop. */
  readonly remedy: string;
}

/** Session or client that can query the catalogs. */
export interface CatalogReader {
  query(text: string): Promise<{ readonly rows: readonly object[] }>;
}

/** Existence of the schemas and of the migrations table. Without that table, the schemas are empty. */
export interface SchemaPresence extends Pick<SchemaInspection, "migrated" | "readable" | "hidden"> {
  /** Those of {@link ownSchemas} that do not exist. */
  readonly missing: readonly string[];
}

/**
 * Inspects the schemas by reading the catalogs only.
 *
 * @throws HawserError `name_occupied` if a schema or an object in it is not Hawser's; `schema_missing` if there are
 * tables, but not the migrations table, or not the schema of the functions
 */
export async function inspectSchema(reader: CatalogReader): Promise<SchemaPresence> {
  const { rows } = await reader.query(schemaInspectionSql);
  const inspection = rows[0] as SchemaInspection;
  const { schemas, migrated, readable, hidden, columns, what, owner, role, odd, remedy } = inspection;
  if (what === null) {
    const missing = ownSchemas.filter((name) => !schemas.includes(name));
    if (!migrated) refuseContents(inspection);
    else if (!firstColumns.every((name) => columns?.includes(name))) {
      throw new HawserError(
        "name_occupied",
        `the table hawser_data.migrations is not Hawser's: it has ${columns === null ? "no columns" : `the columns ${columns.join(", ")}`}. Nothing was done`,
        { remedy: "Rename the schema hawser_data, or, if nothing in it is needed: DROP SCHEMA hawser_data CASCADE" },
      );
    } else if (missing.length > 0) {
      throw new HawserError(
        "schema_missing",
        missing.join() === "hawser"
          ? "the schema hawser, which has the functions, was dropped, and hawser_data, which has tables, was not. Nothing was done"
          : `the database has the schemas ${schemas.join(", ")}, and not ${missing.join(", ")}. Nothing was done`,
        {
          remedy:
            (missing.join() === "hawser"
              ? "As the owner of hawser_data: CREATE SCHEMA hawser; then run `hawser init`. If nothing in the schemas is needed: "
              : "Restore what is missing from a backup. If nothing in the schemas is needed: ") +
            `DROP SCHEMA ${schemas.join(", ")} CASCADE`,
        },
      );
    }
    return { missing, migrated, readable, hidden };
  }
  const reason = odd
    ? `${what} of "${owner}" is not the plain table that Hawser creates, and reading or writing it could run code of "${owner}" ` +
      `with the rights of "${role}"`
    : `${what} belongs to "${owner}", who is neither a superuser nor a member of hawser_owner, and whose code would run with ` +
      `the rights of "${role}"`;
  throw new HawserError("name_occupied", `${reason}. Nothing was done. ${remedy}`);
}

/** Columns that the migrations table has in every version. */
const firstColumns = ["id", "name", "checksum", "oldest_program", "functions"];

/** Fails if there are objects in the schemas, but no migrations table. */
function refuseContents({ schemas, relation, isOld, function: fn }: SchemaInspection): void {
  if (relation === null && fn === null) return;
  const dropping = `DROP SCHEMA ${schemas.join(", ")} CASCADE`;
  throw new HawserError(
    "schema_missing",
    `there is ${relation ?? `the function ${fn}`}, but there is no hawser_data.migrations, which records the version of the schemas. Nothing was done`,
    {
      remedy: isOld
        ? `It is of a version before the first release, or not Hawser's. If nothing in the schemas is needed: ${dropping}; for \`hawser dev\`, name a new directory`
        : `If it was renamed: ALTER TABLE hawser_data.… RENAME TO migrations; else restore the schemas from a backup. If nothing in them is needed, or they are not Hawser's: ${dropping}`,
    },
  );
}

/**
 * PL/pgSQL block that creates a schema and revokes privileges that ALTER DEFAULT PRIVILEGES grants on it. Fails if the
 * schema exists, because its creator could have put code into it.
 *
 * @param name a name that needs no quoting
 */
export function newSchemaSql(name: string): string {
  return `DO $do$
DECLARE
  grantee text;
BEGIN
  CREATE SCHEMA ${name};
  FOR grantee IN
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
    FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
    WHERE n.nspname = '${name}' AND a.grantee <> n.nspowner
  LOOP
    EXECUTE 'REVOKE ALL ON SCHEMA ${name} FROM ' || grantee;
  END LOOP;
  -- Default privileges can leave out the owner, too.
  EXECUTE pg_catalog.format('GRANT ALL ON SCHEMA ${name} TO %I', current_user);
END
$do$;`;
}
