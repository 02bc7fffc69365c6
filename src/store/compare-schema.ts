/**
 * Whether the migrations lead to the schema that the spec says.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { DatabaseAddress, openSession } from "../postgres/index.js";
import { introspect } from "./introspect.js";
import { migrate } from "./migrate.js";
import { generatedSchemaSql, type Migration, migrations } from "./migrations.js";
import { storeFailure } from "./store-failure.js";

/**
 * Makes two databases on the server: one is migrated step by step, in the other the generated schema is made; drops them
 * again, and returns what is different, one line for each object. Empty: they agree.
 *
 * @param databaseUrl a role that may make databases
 * @param steps the migrations to compare
 * @throws StoreError `store_failed` if one of the two cannot be made
 */
export async function compareMigratedSchema(
  databaseUrl: string,
  steps: readonly Migration[] = migrations,
): Promise<string[]> {
  return withClient(databaseUrl, async (server) => {
    const migrated = await withDatabase(server, databaseUrl, async (url) => {
      await migrate({ databaseUrl: url }, steps);
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
