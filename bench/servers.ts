/**
 * The servers of a suite's run, and databases of its own on them: HAWSER_DATABASE_URL and HAWSER_NATS_URL may name servers
 * that are used for something else.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { connect } from "@nats-io/transport-node";
import { type DevStackOptions, startDevStack } from "../src/development/dev/index.js";
import { execute } from "./postgres.js";
import type { SuiteContext, SuiteOutcome } from "./suite.js";

/** Addresses of the servers that a suite uses. */
export interface BenchServers {
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** Starts the servers, makes a database, measures, and takes everything away again. */
export async function withServers(
  context: SuiteContext,
  measure: (servers: BenchServers) => Promise<Omit<SuiteOutcome, "servers">>,
  options: Pick<DevStackOptions, "maxConnections"> = {},
): Promise<SuiteOutcome> {
  const stack = await startDevStack({ ...options, onProgress: context.say, signal: context.signal });
  try {
    const natsUrl = stack.natsUrl!;
    const database = await createDatabase(stack, context);
    try {
      const outcome = await measure({ databaseUrl: database.url, natsUrl });
      return {
        ...outcome,
        servers: [await postgresVersion(stack.databaseUrl), `nats-server ${await natsVersion(natsUrl)}`],
      };
    } finally {
      await database.drop();
    }
  } finally {
    await stack.stop({ immediately: true });
  }
}

/** A database that is there for one run. */
export interface BenchDatabase {
  readonly url: string;
  /** Drops it, ending the sessions that are still open. If that fails, it is only told. */
  drop(): Promise<void>;
}

/** Makes an empty database on the server; the role must be allowed to. */
export async function createDatabase(
  { databaseUrl }: { readonly databaseUrl: string },
  { say }: Pick<SuiteContext, "say">,
): Promise<BenchDatabase> {
  // With the process's id, so that one that was left by a killed run can be told.
  const name = `hawser_bench_${process.pid}_${randomBytes(4).toString("hex")}`;
  await execute(databaseUrl, `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'`);
  const url = Object.assign(new URL(databaseUrl), { pathname: `/${name}` }).href;
  return {
    url,
    drop: () =>
      execute(databaseUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`).then(
        () => undefined,
        (error: Error) => say(`Could not drop the database of this run: ${error.message}`),
      ),
  };
}

/** Prepares the database for NATS as a user would: `hawser init` of the measured checkout, and where the server is. @param options more of its options */
export async function installFunctions(
  { databaseUrl, natsUrl }: BenchServers,
  source: string,
  options: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const program = fileURLToPath(new URL("src/operating/cli/main.ts", source));
  // Not as an argument: others can read a command line.
  const env = { ...process.env, HAWSER_DATABASE_URL: databaseUrl };
  await promisify(execFile)(process.execPath, [...process.execArgv, program, "init"], { env });
  const { hostname: host, port } = new URL(natsUrl);
  await execute(databaseUrl, "SELECT hawser.set_nats_server($1)", [JSON.stringify({ host, port, ...options })]);
}

async function postgresVersion(databaseUrl: string): Promise<string> {
  const [row] = (await execute(databaseUrl, "SHOW server_version")) as { server_version: string }[];
  // Such as "18.4 (Debian 18.4-1)"; who built it does not matter here.
  return `Postgres ${row!.server_version.replace(/ .*$/, "")}`;
}

/** Version of the nats-server, such as `2.15.1`. */
export async function natsVersion(natsUrl: string): Promise<string> {
  const connection = await connect({ servers: natsUrl, reconnect: false });
  try {
    return connection.info!.version;
  } finally {
    await connection.close();
  }
}
