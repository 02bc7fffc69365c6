import { tableSchemas } from "../model/tables.js";
import { doBlock, sqlString } from "./literal.js";

/**
 * Name of the setting that holds the list of existing objects while an SQL text runs.
 *
 * ALTER DEFAULT PRIVILEGES grants privileges on every new table and function, also on those of Hawser, which no operator
 * intended. Each text that creates objects therefore begins with a list of the existing ones, and ends with revoking the
 * default privileges of the new ones. Existing objects keep the privileges that an operator granted.
 */
const presentSetting = "hawser.present";

/** SQL list of the schemas, for `IN`. */
const schemas = `(${["hawser", ...tableSchemas].map(sqlString).join(", ")})`;

/** Query of the schemas and of their objects that have privileges. */
export const schemaObjects = [
  "SELECT n.oid, 'SCHEMA ' || n.nspname AS object, 'n'::\"char\" AS type, n.nspowner AS owner, n.nspacl AS acl",
  `FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ${schemas}`,
  "UNION ALL",
  "SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,",
  "  (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\", c.relowner, c.relacl",
  "FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace",
  `WHERE n.nspname IN ${schemas}`,
  "  AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
  "UNION ALL",
  "SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl",
  "FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')",
];

/**
 * Statements that record the existing objects.
 *
 * @param objects lines of a query for `oid`, `object` (as REVOKE names it), `type` (as acldefault names it), `owner`,
 * `acl`
 * @param statements statements to run afterwards in the same block
 */
export function recordPresentObjects(objects: readonly string[], statements: readonly string[] = []): string {
  return doBlock([
    "BEGIN",
    "  -- Objects that are new after the following statements get no default privileges: see the block at the end.",
    `  PERFORM pg_catalog.set_config('${presentSetting}', (`,
    "    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (",
    ...indented(objects, 6),
    "    ) AS o",
    "  ), false);",
    ...statements.map((line) => `  ${line}`),
    "END",
  ]);
}

/** Statements that revoke all privileges, except the owner's, on objects that did not exist at the run of {@link recordPresentObjects}. */
export function dropDefaultPrivileges(objects: readonly string[]): string {
  return doBlock([
    "DECLARE",
    `  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('${presentSetting}', true), ',')::oid[];`,
    "  statement text;",
    "BEGIN",
    "  FOR statement IN",
    "    WITH made AS (",
    "      SELECT o.* FROM (",
    ...indented(objects, 8),
    "      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))",
    "    )",
    "    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,",
    "      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)",
    "    FROM made AS m",
    "    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a",
    "    WHERE a.grantee <> m.owner",
    "    UNION",
    "    -- Default privileges can also omit rights of the owner.",
    "    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))",
    "    FROM made AS m WHERE m.acl IS NOT NULL",
    "  LOOP",
    "    EXECUTE statement;",
    "  END LOOP;",
    "END",
  ]);
}

function indented(lines: readonly string[], by: number): string[] {
  return lines.map((line) => " ".repeat(by) + line);
}
