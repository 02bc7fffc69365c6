/**
 * Objects that the generated SQL declares in the schemas of Hawser, and their state in the Postgres catalogs.
 *
 * The declarations are parsed from the SQL itself rather than from another generated list, so that a version compares
 * exactly what it creates. A test checks that every object of a new database is found in the SQL.
 */
import { createHash } from "node:crypto";
import { generatedSchemaSql, ownSchemaNames, tableSchemaNames } from "../../jobs-and-peers/migrations/index.js";
import type { RunQuery } from "./object.js";

/** Column of a table or a view. */
interface Column {
  readonly name: string;
  /** Type as printed by `format_type`. */
  readonly type: string;
  readonly notNull: boolean;
  /** True if it has a default or is generated. */
  readonly byDefault: boolean;
}

/** Table, partition or view. */
export interface Relation {
  /** Schema-qualified name. */
  readonly name: string;
  readonly kind: "table" | "view";
  readonly columns: readonly Column[];
}

/** Constraint, index or trigger of a table. */
export interface Part {
  readonly kind: "constraint" | "index" | "trigger";
  readonly name: string;
  /** Schema-qualified name. */
  readonly table: string;
}

/** Part as found in the catalogs. */
export interface FoundPart extends Part {
  /** False for a constraint that is not validated, an index that is not valid, and a disabled trigger. */
  readonly isValid: boolean;
}

/** Function in a canonical form: equal functions have equal fields. */
interface SchemaFunction {
  /** Schema-qualified signature. */
  readonly signature: string;
  /** Language, volatility, security, settings, and SHA-256 of the body. */
  readonly definition: string;
}

/** Object with the statement that creates it. */
export type Declared<T> = T & { readonly statement: string };

/** Objects that the generated SQL creates. */
export interface DeclaredSchema {
  readonly relations: readonly Declared<Relation>[];
  readonly parts: readonly Declared<Part>[];
  readonly functions: readonly Declared<SchemaFunction>[];
}

/** Objects found in the database. */
export interface FoundSchema {
  readonly relations: readonly Relation[];
  readonly parts: readonly FoundPart[];
  readonly functions: readonly SchemaFunction[];
}

/** Parses the generated SQL. */
export function declaredSchema(sql: string = generatedSchemaSql): DeclaredSchema {
  // Statements in function bodies are not part of the script.
  const text = sql.replaceAll(/\bAS \$(\w+)\$.*?\$\1\$/gs, "");
  const tables = [...text.matchAll(/^CREATE TABLE (hawser\w*_data\.\w+) \(\n(.*?)\n\)[^;]*;$/gms)].map(
    ([statement, name, lines]) => ({ statement, name: name!, lines: lines!.split(",\n").map((line) => line.trim()) }),
  );
  const columnsOf = new Map(
    tables.map(({ name, lines }) => [name, lines.filter((line) => !line.startsWith("CONSTRAINT ")).map(columnOf)]),
  );
  return {
    relations: [
      ...tables.map(({ name, statement }) => ({
        kind: "table" as const,
        name,
        columns: columnsOf.get(name)!,
        statement,
      })),
      ...[...text.matchAll(/^CREATE TABLE (hawser\w*_data\.\w+) PARTITION OF (hawser\w*_data\.\w+) .+;$/gm)].map(
        ([statement, name, of]) => ({ kind: "table" as const, name: name!, columns: columnsOf.get(of!)!, statement }),
      ),
      ...[
        ...text.matchAll(
          /^CREATE OR REPLACE VIEW (hawser\.\w+) .*?AS\nSELECT\n(.*?)\nFROM (?:\(.*?\n\)|\S+) AS v;$/gms,
        ),
      ].map(([statement, name, columns]) => ({
        kind: "view" as const,
        name: name!,
        columns: columns!.split(",\n").map(viewColumnOf),
        statement,
      })),
    ],
    parts: [
      ...tables.flatMap(({ name: table, lines }) =>
        lines.flatMap((line) => {
          const name = /^CONSTRAINT (\w+) /.exec(line)?.[1];
          const statement = `ALTER TABLE ${table} ADD ${line};`;
          return name === undefined ? [] : [{ kind: "constraint" as const, name, table, statement }];
        }),
      ),
      ...[...text.matchAll(/^CREATE (INDEX|TRIGGER) (\w+) [^;]*?ON (hawser\w*_data\.\w+)[^;]*;$/gm)].map(
        ([statement, kind, name, table]) => ({
          kind: kind === "INDEX" ? ("index" as const) : ("trigger" as const),
          name: name!,
          table: table!,
          statement,
        }),
      ),
    ],
    functions: [...sql.matchAll(functionStatement)].map(([, statement, head, , body, signature]) => ({
      signature: canonical(signature!),
      definition: definitionOf(head!, body!),
      statement: statement!,
    })),
  };
}

/** CREATE FUNCTION and the comment that follows it, which contains the signature. */
const functionStatement =
  /^(CREATE OR REPLACE FUNCTION hawser\.\w+\((?:(?!^AS ).)*?(LANGUAGE (?:(?!^AS ).)*?)\nAS \$(\w+)\$(.*?)\$\3\$;)\nCOMMENT ON FUNCTION (hawser\.\w+\(.*?\)) IS /gms;

/** Types that Postgres prints in another form than the spec. */
const printedTypes: Readonly<Record<string, string>> = { timestamptz: "timestamp with time zone", bigserial: "bigint" };

const printedType = (type: string): string => printedTypes[type] ?? type;

function canonical(signature: string): string {
  return signature.replace(/\((.*)\)$/, (_, types: string) => `(${types.split(", ").map(printedType).join(", ")})`);
}

function columnOf(line: string): Column {
  const [name, type] = line.split(" ") as [string, string];
  return {
    name,
    type: printedType(type),
    notNull: line.endsWith(" NOT NULL"),
    byDefault: type === "bigserial" || line.includes(" DEFAULT ") || line.includes(" GENERATED ALWAYS AS "),
  };
}

/** Parses a line such as `v.name::text AS name`. */
function viewColumnOf(line: string): Column {
  const [, type, name] = /::(\S+) AS (\w+)$/.exec(line)!;
  return { name: name!, type: printedType(type!), notNull: false, byDefault: false };
}

function definitionOf(head: string, body: string): string {
  const settings = [...head.matchAll(/\bSET (\w+) = (.+)$/gm)].map(([, name, value]) => `${name}=${value}`);
  return [
    /^LANGUAGE (\w+)/.exec(head)![1]!,
    /\b(IMMUTABLE|STABLE)\b/.exec(head)?.[1] ?? "VOLATILE",
    /\bSECURITY DEFINER\b/.test(head) ? "DEFINER" : "INVOKER",
    /\bSTRICT\b/.test(head) ? "STRICT" : "CALLED",
    `PARALLEL ${/\bPARALLEL (\w+)/.exec(head)?.[1] ?? "UNSAFE"}`,
    settings.join("; "),
    createHash("sha256").update(body).digest("hex"),
  ].join(" | ");
}

const relationsSql = `
  SELECT n.nspname || '.' || quote_ident(c.relname) AS name, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind,
         coalesce((
           SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                                             'notNull', a.attnotnull, 'byDefault', a.atthasdef) ORDER BY a.attnum)
             FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname IN ${ownSchemaNames} AND c.relkind IN ('r', 'p', 'v')`;

/** Query: parts of the tables, without the parts of partitions, which come from the partitioned table. */
const partsSql = `
  SELECT p.kind, p.name, n.nspname || '.' || c.relname AS table, p.is_whole AS "isValid"
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN LATERAL (
      SELECT 'constraint' AS kind, o.conname AS name, o.convalidated AS is_whole FROM pg_constraint AS o
       WHERE o.conrelid = c.oid AND o.contype <> 'n'
      UNION ALL
      SELECT 'index', x.relname, i.indisvalid AND i.indisready FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
       WHERE i.indrelid = c.oid AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
      UNION ALL
      SELECT 'trigger', t.tgname, t.tgenabled IN ('O', 'A') FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
    ) AS p
   WHERE n.nspname IN ${tableSchemaNames} AND NOT c.relispartition`;

const functionsSql = `
  SELECT format('hawser.%s(%s)', p.proname, oidvectortypes(p.proargtypes)) AS signature,
         concat_ws(' | ', l.lanname, CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
           CASE WHEN p.prosecdef THEN 'DEFINER' ELSE 'INVOKER' END, CASE WHEN p.proisstrict THEN 'STRICT' ELSE 'CALLED' END,
           'PARALLEL ' || CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END,
           coalesce(array_to_string(p.proconfig, '; '), ''), encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex')) AS definition
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
   WHERE n.nspname = 'hawser'`;

/** Reads the schema from the catalogs, which needs no privileges. The search_path of the session must be pg_catalog only. */
export async function foundSchema(runQuery: RunQuery): Promise<FoundSchema> {
  return {
    relations: await runQuery<Relation>(relationsSql),
    parts: await runQuery<FoundPart>(partsSql),
    functions: await runQuery<SchemaFunction>(functionsSql),
  };
}
