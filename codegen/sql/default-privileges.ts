import { doBlock } from "./grants.js";

/**
 * What ALTER DEFAULT PRIVILEGES gives whenever somebody makes a table or a function: nobody decided that for ours. So each
 * text that makes things begins by noting which are there, and ends by taking from all others what came with the new ones.
 * What is older keeps what an operator has granted. The name of the setting in which the note is passed on:
 */
const note = "hawser.present";

/** The schema and what is in it that privileges are granted on. */
export const schemaObjects = [
  "SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::\"char\" AS type, n.nspowner AS owner, n.nspacl AS acl",
  "FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'",
  "UNION ALL",
  "SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,",
  "  (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\", c.relowner, c.relacl",
  "FROM pg_catalog.pg_class AS c",
  "WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
  "UNION ALL",
  "SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl",
  "FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')",
];

/**
 * Notes which objects are there.
 *
 * @param objects the lines of a query of their `oid`, `object` (as REVOKE names it), `type` (as acldefault does), `owner`, `acl`
 * @param before statements of the same block, to follow
 */
export function notePresent(objects: readonly string[], before: readonly string[] = []): string {
  return doBlock([
    "BEGIN",
    "  -- What is new after what follows gets no default privileges: see the block at the end.",
    `  PERFORM pg_catalog.set_config('${note}', (`,
    "    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (",
    ...indented(objects, 6),
    "    ) AS o",
    "  ), false);",
    ...before.map((line) => `  ${line}`),
    "END",
  ]);
}

/** Takes from everybody but the owner what came with the objects that were not there at {@link notePresent}. */
export function dropDefaultPrivileges(objects: readonly string[]): string {
  return doBlock([
    "DECLARE",
    `  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('${note}', true), ',')::oid[];`,
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
    "    -- They can lack rights of the owner, too.",
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
