/**
 * A Postgres server of our own: a data directory, a free port, and a process.
 */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type pg from "pg";
import { DevError } from "../../errors/index.js";
import { DatabaseAddress, openSession } from "../../postgres/index.js";
import { type PortWish, portFor } from "../free-port.js";
import type { RunDirectory } from "../run-directory.js";
import { type Account, ServerProcess, serverAccount } from "../server-process.js";
import { findPostgres, type PostgresBinaries } from "./binaries.js";

/** How long the server may take until it answers; recovery after a crash can take a while on a slow disk. */
const readyTimeoutMs = 60_000;
const portAttempts = 5;
/** The only settings in the server's environment. */
const ENV = { PATH: "/usr/bin:/bin", TZ: "UTC", LC_ALL: "C" };

/** A Postgres that answers. */
export interface PostgresServer {
  readonly url: string;
  readonly version: string;
  readonly program: string;
  /** Where the program comes from, in words. */
  readonly origin: string;
  readonly process: ServerProcess;
}

/**
 * Starts Postgres in the run directory, making its database cluster at the first start, and resolves when it answers.
 * If that fails, the caller ends what may be running there (`stopServersOf`).
 *
 * It listens on 127.0.0.1 only and trusts every client there: it is for development. Writes are as durable as in
 * production (fsync is on), because that is what tests of this project are about.
 */
export async function startPostgres(
  directory: RunDirectory,
  options: {
    readonly maxConnections: number;
    readonly port?: PortWish | undefined;
    readonly onProgress?: (message: string) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<PostgresServer> {
  const account = serverAccount();
  const binaries = findPostgres(account, directory.path);
  if (!existsSync(join(directory.postgresData, "PG_VERSION"))) {
    await makeCluster(directory, binaries, account, options.signal);
  }
  for (let attempt = 1; ; attempt++) {
    options.signal?.throwIfAborted();
    const { port, isAnother } = await portFor("--port", options.port);
    if (isAnother) options.onProgress?.(`The port ${options.port?.port} is taken: Postgres has another one`);
    const server = await ServerProcess.start({
      name: "Postgres",
      program: binaries.postgres,
      args: serverArgs(directory, port, options.maxConnections),
      env: ENV,
      account,
      logFile: join(directory.path, "postgres.log"),
    });
    const url = `postgresql://postgres@127.0.0.1:${port}/postgres`;
    if (await answers(server, url, directory, options.signal)) {
      const { version, origin, postgres: program } = binaries;
      return { url, version, program, origin, process: server };
    }
    // Between our check and its start another program took the port.
    const portTaken = /Address already in use/i.test(server.logTail());
    if (!portTaken || attempt === portAttempts) throw server.endedEarly();
  }
}

function serverArgs(directory: RunDirectory, port: number, maxConnections: number): string[] {
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    // No socket file: it would have to be in a directory that both accounts may use.
    unix_socket_directories: "",
    max_connections: maxConnections,
    timezone: "UTC",
    log_timezone: "UTC",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  return ["-D", directory.postgresData, ...args];
}

/** Runs initdb. */
async function makeCluster(
  directory: RunDirectory,
  binaries: PostgresBinaries,
  account: Account | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const dataDirectory = directory.postgresData;
  mkdirSync(dataDirectory, { recursive: true });
  chmodSync(dataDirectory, 0o700);
  if (account !== undefined) chownSync(dataDirectory, account.uid, account.gid);
  const args = ["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-instructions", "-D", dataDirectory];
  // A temporary cluster does not outlive a crash of the machine anyway.
  if (directory.temporary) args.push("--no-sync");
  try {
    await promisify(execFile)(binaries.initdb, args, { cwd: "/", env: ENV, ...account, ...(signal && { signal }) });
  } catch (cause) {
    signal?.throwIfAborted();
    const said = (cause as { stderr?: string }).stderr?.trim() || (cause as Error).message;
    const remedy = /could not look up effective user ID/.test(said)
      ? `Give uid ${process.getuid?.()} an entry in /etc/passwd, or set HAWSER_DATABASE_URL to use a running Postgres.`
      : "Set HAWSER_DATABASE_URL to use a running Postgres instead.";
    throw new DevError("dev_server_failed", `initdb failed in ${dataDirectory}: ${said}. ${remedy}`, { cause });
  }
}

/** Waits until the server answers; false if it ended before. Throws `dev_server_failed` when it takes too long. */
async function answers(
  server: ServerProcess,
  url: string,
  directory: RunDirectory,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const deadline = Date.now() + readyTimeoutMs;
  while (server.end === undefined) {
    signal?.throwIfAborted();
    if ((await dataDirectoryOf(url)) === directory.postgresData) return true;
    if (Date.now() > deadline) {
      throw new DevError("dev_server_failed", `Postgres did not answer in ${readyTimeoutMs} ms. ${server.logTail()}`);
    }
    await Promise.race([delay(10), server.ended]);
  }
  return false;
}

/** Asks the server that answers there for its data directory: another server may sit on the port that ours failed to get. */
async function dataDirectoryOf(url: string): Promise<string | undefined> {
  let client: pg.Client | undefined;
  try {
    ({ client } = await openSession(DatabaseAddress.of(url), { connectTimeoutMs: 5_000 }));
    const { rows } = await client.query<{ data_directory: string }>("SHOW data_directory");
    return rows[0]?.data_directory;
  } catch {
    return undefined;
  } finally {
    await client?.end().catch(() => undefined);
  }
}
