/**
 * The servers and the database of a suite's run, which are there for as long as it measures.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { startDevStack } from "../src/dev/index.js";
import { type BenchDatabase, createBenchDatabase } from "./bench-database.js";
import type { SuiteContext, SuiteOutcome } from "./suite.js";

/** The servers that a suite uses. */
export interface BenchServers {
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** Starts the servers, makes a database, measures, and takes everything away again. */
export async function withServers(
  context: SuiteContext,
  measure: (servers: BenchServers) => Promise<Omit<SuiteOutcome, "servers">>,
): Promise<SuiteOutcome> {
  const { signal, say } = context;
  const stack = await startDevStack({ onProgress: say, signal });
  try {
    const database = await createBenchDatabase(stack.databaseUrl);
    try {
      const natsUrl = stack.natsUrl!;
      const outcome = await measure({ databaseUrl: database.url, natsUrl });
      return { ...outcome, servers: await versionsOf(stack) };
    } finally {
      await dropDatabase(database, context);
    }
  } finally {
    await stack.stop({ immediately: true });
  }
}

/** A database that stays on a server of our own goes with it. */
export async function dropDatabase(database: BenchDatabase, { say }: Pick<SuiteContext, "say">): Promise<void> {
  try {
    await database.drop();
  } catch (error) {
    say(`Could not drop the database of this run: ${(error as Error).message}`);
  }
}

/** What runs, as it says itself, such as `Postgres 18.4`. */
export async function versionsOf({ databaseUrl, natsUrl }: { databaseUrl: string; natsUrl: string | null }) {
  return [await postgresVersion(databaseUrl), ...(natsUrl === null ? [] : [await natsVersion(natsUrl)])];
}

async function postgresVersion(databaseUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query<{ server_version: string }>("SHOW server_version");
    // Such as "18.4 (Debian 18.4-1)"; who built it does not matter here.
    return `Postgres ${rows[0]!.server_version.replace(/ .*$/, "")}`;
  } finally {
    await client.end();
  }
}

async function natsVersion(natsUrl: string): Promise<string> {
  const connection = await connect({ servers: natsUrl, reconnect: false });
  try {
    return `nats-server ${connection.info?.version ?? "of unknown version"}`;
  } finally {
    await connection.close();
  }
}
