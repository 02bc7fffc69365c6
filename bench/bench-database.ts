/**
 * A database of the run's own, so that HAWSER_DATABASE_URL may name a server that is used for something else.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";

/** A database that is there for one run. */
export interface BenchDatabase {
  readonly url: string;
  /** Drops it, ending the sessions that are still open. */
  drop(): Promise<void>;
}

/** Makes one on the server that `serverUrl` connects to; the role must be allowed to. */
export async function createBenchDatabase(serverUrl: string): Promise<BenchDatabase> {
  // With the process's id, so that one that was left by a killed run can be told.
  const name = `hawser_bench_${process.pid}_${randomBytes(4).toString("hex")}`;
  await execute(serverUrl, `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => execute(serverUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) };
}

async function execute(databaseUrl: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  // When the server goes, the rejected query tells; the event would end the process.
  client.on("error", () => undefined);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
