/**
 * A Postgres server of our own: a data directory, a free port, and a process.
 */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { HawserError } from "../../errors/index.js";
import { writePrivate } from "../../files/index.js";
import { DatabaseAddress, openSession } from "../../postgres/index.js";
import { type PortWish, portFor } from "../free-port.js";
import type { RunDirectory } from "../run-directory.js";
import { type Account, ServerProcess, type StartedServer, serverAccount } from "../server-process.js";
import { findPostgres, type PostgresBinaries } from "./binaries.js";
import { keepPassword, passwordFileOf, randomPassword, readPassword, setPassword } from "./password.js";

/** How long the server may take until it answers; recovery after a crash can take a while on a slow disk. */
const readyTimeoutMs = 60_000;
const portAttempts = 5;
/** The only settings in the server's environment. */
const ENV = { PATH: "/usr/bin:/bin", TZ: "UTC", LC_ALL: "C" };

/**
 * Starts Postgres in the run directory, making its database cluster at the first start, and resolves when it answers.
 * If that fails, the caller ends what may be running there (`stopServersOf`).
 *
 * It listens on 127.0.0.1 only, where other users of the machine are, too: clients need a password. A cluster that an
 * earlier Hawser made without one is given one. Writes are as durable as in production (fsync is on), because that is what
 * tests of this project are about.
 */
export async function startPostgres(
  directory: RunDirectory,
  options: {
    readonly maxConnections: number;
    readonly port?: PortWish | undefined;
    readonly onProgress?: (message: string) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<StartedServer> {
  const account = serverAccount();
  const binaries = findPostgres(account, directory.path);
  const isThere = existsSync(join(directory.postgresData, "PG_VERSION"));
  if (!isThere) await makeCluster(directory, binaries, account, options.signal);
  const password =
    readPassword(directory.postgresData) ??
    (await setPassword(directory.postgresData, binaries, ENV, account, options.signal));
  for (let attempt = 1; ; attempt++) {
    options.signal?.throwIfAborted();
    const { port, isAnother } = await portFor("--port", options.port);
    if (isAnother) options.onProgress?.(`The port ${options.port?.port} is taken: Postgres has another one`);
    const startedAt = Date.now();
    const server = await ServerProcess.start({
      name: "Postgres",
      program: binaries.postgres,
      args: serverArgs(directory, port, options.maxConnections),
      env: ENV,
      account,
      logFile: join(directory.path, "postgres.log"),
    });
    const url = `postgresql://postgres:${encodeURIComponent(password)}@127.0.0.1:${port}/postgres`;
    if (await isReady(server, startedAt, directory, options.signal)) {
      await logIn(url, directory);
      const { version, origin } = binaries;
      return { server: { name: "Postgres", url, version, origin }, process: server };
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
  const password = randomPassword();
  // Not in the data directory, which has to be empty.
  const passwordFile = join(directory.path, "initdb-password");
  const args = [
    ...["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-instructions", "-D", dataDirectory],
    ...["--auth=scram-sha-256", `--pwfile=${passwordFile}`],
  ];
  // A temporary cluster does not outlive a crash of the machine anyway.
  if (directory.temporary) args.push("--no-sync");
  try {
    writePrivate(passwordFile, `${password}\n`, account);
    await promisify(execFile)(binaries.initdb, args, { cwd: "/", env: ENV, ...account, ...(signal && { signal }) });
  } catch (cause) {
    signal?.throwIfAborted();
    const said = (cause as { stderr?: string }).stderr?.trim() || (cause as Error).message;
    const remedy = /could not look up effective user ID/.test(said)
      ? `Give uid ${process.getuid?.()} an entry in /etc/passwd, or set HAWSER_DATABASE_URL to use a running Postgres.`
      : "Set HAWSER_DATABASE_URL to use a running Postgres instead.";
    throw new HawserError("dev_server_failed", `initdb failed in ${dataDirectory}: ${said}. ${remedy}`, { cause });
  } finally {
    rmSync(passwordFile, { force: true });
  }
  keepPassword(dataDirectory, password, account);
}

/** Waits until the server answers; false if it ended before. Throws `dev_server_failed` when it takes too long. */
async function isReady(
  server: ServerProcess,
  startedAt: number,
  directory: RunDirectory,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const deadline = Date.now() + readyTimeoutMs;
  while (server.end === undefined) {
    signal?.throwIfAborted();
    if (saysReady(server, startedAt, directory)) return true;
    if (Date.now() > deadline) {
      throw new HawserError(
        "dev_server_failed",
        `Postgres did not answer in ${readyTimeoutMs} ms. ${server.logTail()}`,
      );
    }
    await Promise.race([delay(10), server.ended]);
  }
  return false;
}

/**
 * Whether the server has written into its data directory that it accepts connections, as `pg_ctl` looks for. Asking at the
 * port could give the password to another program that took it.
 */
function saysReady(server: ServerProcess, startedAt: number, { postgresData }: RunDirectory): boolean {
  try {
    const lines = readFileSync(join(postgresData, "postmaster.pid"), "utf8").split("\n");
    // A container that was killed leaves the file, and the next one gives out the same pids. Seconds, cut off.
    const isOfThisStart = Number(lines[0]) === server.pid && Number(lines[2]) >= Math.floor(startedAt / 1_000) - 1;
    return isOfThisStart && lines[7]?.trim() === "ready";
  } catch {
    return false;
  }
}

/** @throws HawserError `dev_server_failed` if the password is not that of the cluster any more */
async function logIn(url: string, { postgresData }: RunDirectory): Promise<void> {
  try {
    const { client } = await openSession(DatabaseAddress.of(url), { connectTimeoutMs: 5_000 });
    await client.end();
  } catch (cause) {
    throw new HawserError(
      "dev_server_failed",
      `Postgres refused the role postgres: ${(cause as Error).message}. If its password was changed, write it into ` +
        `${passwordFileOf(postgresData)}; if it is not known, remove that file: the next start sets another one.`,
      { cause },
    );
  }
}
