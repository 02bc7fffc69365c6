/**
 * Compares the schema that all migrations make with the schema of the spec, and checks that Postgres accepts the
 * generated functions.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { natsFunctionsSql } from "../../generated/ts/nats-functions/sql.js";
import { DatabaseAddress, openSession } from "../../src/foundation/postgres/index.js";
import { generatedSchemaSql, migrate, ownSchemas, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import type { ProgramSchema } from "../../src/jobs-and-peers/migrations/migrations.js";
import { scriptFailure, storeFailure } from "../../src/jobs-and-peers/store/index.js";

/**
 * Creates two databases on the server, one migrated step by step and one with the generated schema, compares them, and
 * drops them. Returns the differences, one line for each object.
 *
 * @param databaseUrl URL of a role that may create databases
 * @param program the schema to compare
 * @throws HawserError `store_failed` if one of the two cannot be created
 */
export async function compareMigratedSchema(
  databaseUrl: string,
  program: ProgramSchema = programSchema,
): Promise<string[]> {
  return withClient(databaseUrl, async (server) => {
    const migrated = await withDatabase(server, databaseUrl, async (url) => {
      await migrate({ databaseUrl: url }, program);
      return withClient(url, introspect);
    });
    const generated = await withDatabase(server, databaseUrl, async (url) =>
      withClient(url, async (client) => {
        await client.query(generatedSchemaSql);
        return introspect(client);
      }),
    );
    return differences(migrated, generated);
  });
}

function differences(migrated: ReadonlyMap<string, string>, generated: ReadonlyMap<string, string>): string[] {
  const objects = [...new Set([...migrated.keys(), ...generated.keys()])].sort();
  return objects.flatMap((object) => {
    const [is, should] = [migrated.get(object), generated.get(object)];
    if (is === should) return [];
    if (should === undefined) return [`${object}: made by the migrations, but not in the generated schema`];
    if (is === undefined) return [`${object}: in the generated schema, but made by no migration`];
    return [`${object}: migrations make\n${is}\nthe generated schema has\n${should}`];
  });
}

/**
 * Creates the SQL functions that reach NATS beside the generated schema, in a database of their own.
 *
 * @throws HawserError with the statement that Postgres refuses
 */
export async function makeNatsFunctions(databaseUrl: string, functions: string = natsFunctionsSql): Promise<void> {
  const script = `${generatedSchemaSql}\n${functions.replaceAll(/@(?:extschema|dblink)@/g, "public")}`;
  await withClient(databaseUrl, (server) =>
    withDatabase(server, databaseUrl, (url) =>
      withClient(url, async (client) => {
        await client.query(script).catch((cause: unknown) => {
          throw scriptFailure("make the SQL functions", script, cause);
        });
      }),
    ),
  );
}

async function withDatabase<T>(server: pg.Client, databaseUrl: string, work: (url: string) => Promise<T>): Promise<T> {
  const name = `hawser_compare_${randomBytes(6).toString("hex")}`;
  await server.query(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'`);
  try {
    const url = new URL(databaseUrl);
    url.pathname = `/${name}`;
    return await work(url.href);
  } finally {
    await server.query(`DROP DATABASE ${name} WITH (FORCE)`);
  }
}

async function withClient<T>(databaseUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  let client: pg.Client | undefined;
  try {
    ({ client } = await openSession(DatabaseAddress.of(databaseUrl)));
    return await work(client);
  } catch (cause) {
    throw storeFailure("compare the migrated schema with the generated one", cause);
  } finally {
    await client?.end().catch(() => undefined);
  }
}

/**
 * Query for all objects of the schemas: one row for each, with a name that is the same in every database and the
 * definition that Postgres prints. Rows of tables and privileges are not compared.
 */
const sql = `
  WITH relations AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = ANY ($1)
  )
  SELECT 'relation ' || name AS object, relkind::text AS definition FROM relations
  UNION ALL
  SELECT format('column %s.%s', r.name, a.attname),
         concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod),
                   CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                   CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
                   CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || a.attcollation::regcollation::text END,
                   CASE a.attgenerated WHEN '' THEN 'DEFAULT' ELSE 'GENERATED' END || ' ' || pg_get_expr(d.adbin, d.adrelid))
    FROM relations AS r
    JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE r.relkind IN ('r', 'p', 'v', 'm')
  UNION ALL
  SELECT format('constraint %s on %s', o.conname, r.name), pg_get_constraintdef(o.oid)
    FROM relations AS r JOIN pg_constraint AS o ON o.conrelid = r.oid
  UNION ALL
  SELECT 'index ' || r.name, pg_get_indexdef(r.oid) FROM relations AS r WHERE r.relkind IN ('i', 'I')
  UNION ALL
  SELECT format('trigger %s on %s', g.tgname, r.name), pg_get_triggerdef(g.oid)
    FROM relations AS r JOIN pg_trigger AS g ON g.tgrelid = r.oid AND NOT g.tgisinternal
  UNION ALL
  SELECT format('function %s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), pg_get_functiondef(p.oid)
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = ANY ($1) AND p.prokind IN ('f', 'p')
  UNION ALL
  SELECT format('comment on %s', pg_describe_object(d.classoid, d.objoid, d.objsubid)), d.description
    FROM pg_description AS d
   WHERE d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT oid FROM relations)
      OR d.classoid = 'pg_proc'::regclass
         AND d.objoid IN (SELECT p.oid FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = ANY ($1))`;

/** Objects of schemas by name, with their definitions. */
export async function introspect(
  client: pg.ClientBase,
  schemas: readonly string[] = ownSchemas,
): Promise<Map<string, string>> {
  const { rows } = await client.query<{ object: string; definition: string | null }>(sql, [schemas]);
  return new Map(rows.map(({ object, definition }) => [object, definition ?? ""]));
}
