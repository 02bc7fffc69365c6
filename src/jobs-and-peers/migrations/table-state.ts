/**
 * State of Hawser's tables that others can change without touching a column: row security, policies, rules, triggers,
 * persistence, children, collations, replica identity and owners. Some of it hides rows, changes them or loses them, so
 * that a confirmed message could be lost without an error. `hawser init` repairs what needs no decision of the owner,
 * `hawser doctor` names all of it, and peers and `hawser serve` do not start with what can lose messages.
 */
import { errorTable } from "../../../generated/ts/errors/errors.js";
import { HawserError } from "../../foundation/errors/index.js";
import { generatedSchemaSql } from "./migrations.js";
import { type CatalogReader, ownSchemaNames, tableSchema } from "./schema.js";

/** Difference of an object of Hawser's schemas from the state in which Hawser creates it. */
export interface StateDifference {
  /** Schema-qualified name of the table, view, sequence or function. */
  readonly object: string;
  /** For example, `the table hawser_peer_data.peers`. */
  readonly what: string;
  /** For example, `has row security`. */
  readonly how: string;
  /** Statement that repairs it, without semicolon. */
  readonly statement: string;
  /** True if messages can get lost. */
  readonly isHarmful: boolean;
  /** True if it loses messages of the current role's sessions, which must not start. */
  readonly isActive: boolean;
  /** True if the installation may run the statement: it loses nothing that the owner may have meant. */
  readonly isRepairable: boolean;
}

interface DeclaredTables {
  readonly relations: readonly string[];
  /** Trigger, its table and its function. */
  readonly triggers: readonly (readonly [name: string, table: string, fn: string])[];
  readonly partitions: readonly (readonly [name: string, parent: string, bounds: string])[];
}

/** Tables, triggers and partitions that the generated SQL creates. */
function declaredTables(): DeclaredTables {
  // Statements in function bodies are not part of the script.
  const text = generatedSchemaSql.replaceAll(/\bAS \$(\w+)\$.*?\$\1\$/gs, "");
  const relations = text.matchAll(/^CREATE (?:TABLE|OR REPLACE VIEW) (hawser(?:\w*_data)?\.\w+) /gm);
  const triggers = text.matchAll(
    /^CREATE TRIGGER (\w+) [^;]*?ON hawser\w*_data\.(\w+)[^;]*?EXECUTE FUNCTION hawser\.(\w+)/gm,
  );
  const partitions = text.matchAll(/^CREATE TABLE hawser\w*_data\.(\w+) PARTITION OF hawser\w*_data\.(\w+) (.+);$/gm);
  return {
    relations: [...relations].map(([, name]) => name!),
    triggers: [...triggers].map(([, name, table, fn]) => [name!, table!, fn!]),
    partitions: [...partitions].map(([, name, parent, bounds]) => [name!, parent!, bounds!]),
  };
}

const { relations, triggers, partitions } = declaredTables();

/** Rows of SQL literals. The spec's names and bounds have no quotation marks. */
const rows = (values: readonly (readonly string[])[]): string =>
  values.map((row) => `(${row.map((value) => `'${value}'`).join(", ")})`).join(", ");

/**
 * SQL that returns one row for each difference. It reads only the catalogs.
 *
 * Row security applies to the current role, or to an owner of Hawser's functions: to one who owns the table only if it is
 * forced. An event trigger that runs after ALTER TABLE can undo the repair, and so is named.
 */
const stateDifferencesSql = `
  WITH place AS (
    SELECT n.oid, n.nspowner AS owner, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(n.nspowner)) AS owner_name
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
  ), relations AS (
    SELECT c.*, n.nspname || '.' || pg_catalog.quote_ident(c.relname) AS object,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ${ownSchemaNames} AND (c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')) OR c.relkind IN ('r', 'p', 'v') AND n.nspname || '.' || c.relname = ANY (ARRAY[${relations.map((name) => `'${name}'`).join(", ")}]))
  ), columns AS (
    -- Sequences of columns, which get the owner and, since Postgres 15, the persistence of their table.
    SELECT d.objid AS sequence, d.refobjid AS relation FROM pg_catalog.pg_depend AS d JOIN relations AS s ON s.oid = d.objid AND s.relkind = 'S'
     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
  ), undoing AS (
    SELECT pg_catalog.string_agg(pg_catalog.format(', and the event trigger %I (%s), which runs after ALTER TABLE, can enable it again: ALTER EVENT TRIGGER %1$I DISABLE',
             e.evtname, e.evtfoid::pg_catalog.regprocedure), '' ORDER BY e.evtname) AS words
      FROM pg_catalog.pg_event_trigger AS e
     WHERE e.evtevent = 'ddl_command_end' AND e.evtenabled IN ('O', 'A') AND (e.evttags IS NULL OR 'ALTER TABLE' = ANY (e.evttags))
       AND e.evtname NOT LIKE 'hawser\\_nats\\_server%'
  ), functions AS (
    SELECT DISTINCT o.oid, o.rolsuper OR o.rolbypassrls AS bypasses
      FROM pg_catalog.pg_proc AS f JOIN place AS p ON p.oid = f.pronamespace JOIN pg_catalog.pg_roles AS o ON o.oid = f.proowner
  )
  SELECT d.object, d.what, d.how, d.statement, d.harmful AS "isHarmful", d.harmful AND d.active AS "isActive", d.repairable AS "isRepairable"
    FROM (
      SELECT 1 AS nth, r.object, 'the table ' || r.object AS what,
             CASE WHEN NOT r.relrowsecurity THEN 'would force row security on its owner' ELSE
               'has row security' || CASE WHEN r.relforcerowsecurity THEN ', forced on its owner too' ELSE '' END || coalesce(u.words, '') END AS how,
             pg_catalog.concat('ALTER TABLE ', r.object, CASE WHEN r.relrowsecurity THEN ' DISABLE ROW LEVEL SECURITY' END,
               CASE WHEN r.relrowsecurity AND r.relforcerowsecurity THEN ',' END,
               CASE WHEN r.relforcerowsecurity THEN ' NO FORCE ROW LEVEL SECURITY' END) AS statement,
             r.relrowsecurity AS harmful,
             pg_catalog.row_security_active(r.oid) OR EXISTS (
               SELECT FROM functions AS f
                WHERE NOT f.bypasses AND (r.relforcerowsecurity OR NOT pg_catalog.pg_has_role(f.oid, r.relowner, 'USAGE'))) AS active,
             true AS repairable
        FROM relations AS r CROSS JOIN undoing AS u WHERE r.relrowsecurity OR r.relforcerowsecurity
      UNION ALL
      SELECT 2, r.object, pg_catalog.format('the policy %I of %s', y.polname, r.object), 'is not Hawser''s',
             pg_catalog.format('DROP POLICY %I ON %s', y.polname, r.object), false, false, false
        FROM relations AS r JOIN pg_catalog.pg_policy AS y ON y.polrelid = r.oid
      UNION ALL
      SELECT 3, r.object, pg_catalog.format('the rule %I of %s', w.rulename, r.object), 'is not Hawser''s, and rewrites its statements',
             pg_catalog.format('DROP RULE %I ON %s', w.rulename, r.object), true, true, false
        FROM relations AS r JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = r.oid
       WHERE w.ev_enabled IN ('O', 'A') AND NOT (r.relkind = 'v' AND w.ev_type = '1')
      UNION ALL
      SELECT 4, r.object, pg_catalog.format('the trigger %I of %s', t.tgname, r.object),
             CASE WHEN k.writes THEN 'is not Hawser''s, and can change or drop each row before it is written'
                  ELSE 'is not Hawser''s, and runs in its transactions' END,
             pg_catalog.format('DROP TRIGGER %I ON %s', t.tgname, r.object), k.writes, k.writes, false
        FROM relations AS r JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
        CROSS JOIN place AS p
        -- The bits of a row trigger and of BEFORE, or that of INSTEAD OF.
        CROSS JOIN LATERAL (SELECT t.tgtype & 3 = 3 OR t.tgtype & 64 <> 0 AS writes) AS k
       WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')
         AND NOT (f.pronamespace = p.oid AND NOT k.writes
                  AND (t.tgname::text, r.relname::text, f.proname::text) IN (${rows(triggers)}))
      UNION ALL
      SELECT 5, r.object, pg_catalog.concat('the ', pg_catalog.lower(r.kind COLLATE "C"), ' ', r.object), 'is UNLOGGED, and empty after a crash of Postgres',
             pg_catalog.format('ALTER %s %s SET LOGGED', r.kind, r.object), true, true, true
        FROM relations AS r
       WHERE r.relkind IN ('r', 'S') AND r.relpersistence <> 'p'
         AND NOT EXISTS (SELECT FROM columns AS k JOIN relations AS t ON t.oid = k.relation WHERE k.sequence = r.oid AND t.relpersistence <> 'p')
      UNION ALL
      SELECT 6, r.object, 'the table ' || r.object, 'has the child ' || i.inhrelid::pg_catalog.regclass::text || ', whose rows are not Hawser''s',
             CASE r.relkind WHEN 'p' THEN pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s', r.object, i.inhrelid::pg_catalog.regclass)
                            ELSE pg_catalog.format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::pg_catalog.regclass, r.object) END,
             true, true, false
        FROM relations AS r JOIN pg_catalog.pg_inherits AS i ON i.inhparent = r.oid
        LEFT JOIN relations AS x ON x.oid = i.inhrelid
       WHERE (x.relname::text, r.relname::text) IN (${rows(partitions.map(([name, parent]) => [name, parent]))}) IS NOT TRUE
      UNION ALL
      SELECT 7, r.object, 'the table ' || r.object, 'is not a partition of ${tableSchema}.' || v.parent || ', whose rows it has',
             pg_catalog.format('ALTER TABLE ${tableSchema}.%I ATTACH PARTITION %s %s', v.parent, r.object, v.bounds), true, true, false
        FROM relations AS r JOIN (VALUES ${rows(partitions)}) AS v (name, parent, bounds) ON '${tableSchema}.' || v.name = r.object
       WHERE NOT r.relispartition
      UNION ALL
      SELECT 8, r.object, pg_catalog.format('the column %I of %s', a.attname, r.object),
             'has the collation ' || a.attcollation::pg_catalog.regcollation::text
               || CASE WHEN l.collisdeterministic THEN '' ELSE ', with which different names and keys are equal' END,
             pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I TYPE %s COLLATE pg_catalog."default"', r.object, a.attname,
               pg_catalog.format_type(a.atttypid, a.atttypmod)), NOT l.collisdeterministic, true, false
        FROM relations AS r JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
       WHERE r.relkind IN ('r', 'p') AND NOT r.relispartition AND a.attcollation <> t.typcollation
      UNION ALL
      SELECT 9, r.object, 'the table ' || r.object, 'has no replica identity, so that a publication makes its updates fail',
             pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', r.object), false, false, false
        FROM relations AS r WHERE r.relkind IN ('r', 'p') AND r.relreplident = 'n'
      UNION ALL
      SELECT 10, o.object, o.what, pg_catalog.format('belongs to "%s", who can change it in any way', pg_catalog.pg_get_userbyid(o.owner)),
             pg_catalog.format('ALTER %s OWNER TO %s', o.object, p.owner_name), false, false, false
        FROM (
          SELECT r.kind || ' ' || r.object AS object, pg_catalog.concat('the ', pg_catalog.lower(r.kind COLLATE "C"), ' ', r.object) AS what, r.relowner AS owner
            FROM relations AS r
           WHERE NOT EXISTS (SELECT FROM columns AS k WHERE k.sequence = r.oid)
          UNION ALL
          SELECT 'FUNCTION ' || f.signature, 'the function ' || f.signature, f.proowner FROM (
            SELECT pg_catalog.format('hawser.%I(%s)', f.proname, pg_catalog.oidvectortypes(f.proargtypes)) AS signature, f.proowner
              FROM pg_catalog.pg_proc AS f JOIN place AS p ON p.oid = f.pronamespace) AS f
        ) AS o CROSS JOIN place AS p
       WHERE o.owner <> p.owner AND pg_catalog.pg_get_userbyid(o.owner) <> 'hawser_owner'
    ) AS d
   ORDER BY d.nth, d.object, d.what`;

/** Reads the differences, the harmful ones of tables first. Needs no privileges. */
export async function stateDifferences(reader: CatalogReader): Promise<readonly StateDifference[]> {
  return (await reader.query(stateDifferencesSql)).rows as readonly StateDifference[];
}

/** Differences with the same description of `how`, which one sentence and one line of statements report. */
export function sameDifferences(differences: readonly StateDifference[]): StateDifference[][] {
  const groups = new Map<string, StateDifference[]>();
  for (const one of differences) groups.set(one.how, [...(groups.get(one.how) ?? []), one]);
  return [...groups.values()];
}

/** Number of objects that a sentence names. */
const mostNamed = 3;

/** For example, `the table hawser_peer_data.peers has row security`. */
export function describeDifferences(same: readonly StateDifference[]): string {
  const named = same.slice(0, mostNamed).map(({ what }) => what);
  const more = same.length - named.length;
  return `${named.join(", ")}${more === 0 ? "" : ` and ${more} more`}: ${same.length === 1 ? "it" : "each"} ${same[0]!.how}`;
}

/** Statements of the repairs that an installation may make; undefined if there are none. */
export function stateRepairsSql(differences: readonly StateDifference[]): string | undefined {
  const repairs = differences.filter(({ isRepairable }) => isRepairable);
  return repairs.length === 0 ? undefined : repairs.map(({ statement }) => `${statement};`).join("\n");
}

/**
 * PL/pgSQL block that makes the repairs of a script that creates the schema, and fails if that does not suffice: an event
 * trigger can change each new table.
 */
export const stateRepairBlock = `DO $do$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT d.statement FROM (${stateDifferencesSql}) AS d WHERE d."isRepairable" LOOP
    EXECUTE one.statement;
  END LOOP;
  FOR one IN SELECT d.what, d.how, d.statement FROM (${stateDifferencesSql}) AS d WHERE d."isHarmful" LOOP
    RAISE EXCEPTION USING ERRCODE = '${errorTable.schema_missing.sqlstate}', MESSAGE = pg_catalog.concat(one.what, ' ', one.how), HINT = one.statement;
  END LOOP;
END
$do$;`;

/**
 * Fails if the state can lose confirmed messages.
 *
 * @param of `session`: only what concerns the current role's sessions; `anyone`: what concerns those of any role
 * @throws HawserError `schema_missing`
 */
export async function refuseHarmfulState(reader: CatalogReader, of: "session" | "anyone"): Promise<void> {
  const differences = await stateDifferences(reader);
  const harmful = differences.filter(({ isActive, isHarmful }) => (of === "session" ? isActive : isHarmful));
  if (harmful.length === 0) return;
  const statements = harmful.map(({ statement }) => statement).join("; ");
  const remedy = harmful.every(({ isRepairable }) => isRepairable)
    ? `Run \`hawser init\` as the owner of the schema hawser, or run its statements: ${statements}`
    : `As the owner of the schema hawser: ${statements}`;
  throw new HawserError(
    "schema_missing",
    `the schema hawser was changed so that messages could get lost: ${sameDifferences(harmful).map(describeDifferences).join("; ")}`,
    { remedy },
  );
}
