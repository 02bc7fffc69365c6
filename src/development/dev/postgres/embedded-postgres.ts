/** Embedded Postgres server: a data directory, a free port, and a process. */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { HawserError } from "../../../foundation/errors/index.js";
import { DatabaseAddress, openSession } from "../../../foundation/postgres/index.js";
import { writePrivate } from "../../../foundation/runtime/index.js";
import type { PortWish } from "../free-port.js";
import type { RunDirectory } from "../run-directory.js";
import { type Account, type ServerProcess, type StartedServer, serverAccount, startServer } from "../server-process.js";
import { findPostgres, type PostgresBinaries } from "./binaries.js";
import { passwordFileOf, randomPassword, readPassword, setPassword, storePassword } from "./password.js";

/** Time until the server must answer; recovery after a crash can take long on a slow disk. */
const readyTimeoutMs = 60_000;
/** Complete environment of the server. */
const ENV = { PATH: "/usr/bin:/bin", TZ: "UTC", LC_ALL: "C" };

/**
 * Starts Postgres in the run directory, creating its cluster at the first start, and resolves when it answers. If that
 * fails, the caller stops the processes that may be running there (`stopServersOf`).
 *
 * The server listens on 127.0.0.1 only, which other users of the machine can reach, so clients need a password. A
 * cluster that an earlier Hawser created without a password gets one. Writes are as durable as in production (fsync is
 * on), because the tests of this project depend on it.
 */
export async function startPostgres(
  directory: RunDirectory,
  options: {
    readonly maxConnections: number;
    readonly port?: PortWish | undefined;
    readonly initdb?: readonly string[] | undefined;
    readonly onProgress?: (message: string) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<StartedServer> {
  const account = serverAccount();
  const binaries = findPostgres(account, directory.path);
  const isThere = existsSync(join(directory.postgresData, "PG_VERSION"));
  if (!isThere) await makeCluster(directory, binaries, account, options.initdb ?? [], options.signal);
  const password =
    readPassword(directory.postgresData) ??
    (await setPassword(directory.postgresData, binaries, ENV, account, options.signal));
  const { process, port } = await startServer({
    ...options,
    commandAt: (port) => ({
      name: "Postgres",
      program: binaries.postgres,
      args: serverArgs(directory, port, options.maxConnections),
      env: ENV,
      account,
      logFile: join(directory.path, "postgres.log"),
    }),
    port: options.port,
    portFlag: "--port",
    isReady: (server) => saysReady(server, directory),
    readyTimeoutMs,
  });
  const url = `postgresql://postgres:${encodeURIComponent(password)}@127.0.0.1:${port}/postgres`;
  await logIn(url, directory);
  const { version, origin } = binaries;
  return { server: { name: "Postgres", url, version, origin }, process };
}

function serverArgs(directory: RunDirectory, port: number, maxConnections: number): string[] {
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    // There is no socket file: it would need a directory that both accounts may use.
    unix_socket_directories: "",
    max_connections: maxConnections,
    timezone: "UTC",
    log_timezone: "UTC",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  return ["-D", directory.postgresData, ...args];
}

async function makeCluster(
  directory: RunDirectory,
  binaries: PostgresBinaries,
  account: Account | undefined,
  further: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const dataDirectory = directory.postgresData;
  mkdirSync(dataDirectory, { recursive: true });
  chmodSync(dataDirectory, 0o700);
  if (account !== undefined) chownSync(dataDirectory, account.uid, account.gid);
  const password = randomPassword();
  // The password file is outside the data directory, which initdb requires to be empty.
  const passwordFile = join(directory.path, "initdb-password");
  const args = [
    ...["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-instructions", "-D", dataDirectory],
    ...["--auth=scram-sha-256", `--pwfile=${passwordFile}`, ...further],
  ];
  // A temporary cluster does not survive a crash of the machine in any case.
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
  storePassword(dataDirectory, password, account);
}

/**
 * True if `postmaster.pid`, which `pg_ctl` reads too, says that the server accepts connections. A test connection could
 * send the password to another program that took the port.
 */
function saysReady({ pid, startedAt }: ServerProcess, { postgresData }: RunDirectory): boolean {
  try {
    const lines = readFileSync(join(postgresData, "postmaster.pid"), "utf8").split("\n");
    // A killed container leaves its `postmaster.pid`, and the next container reuses pids, so the start time is compared
    // too. The file has whole seconds, rounded down.
    const isOfThisStart = Number(lines[0]) === pid && Number(lines[2]) >= Math.floor(startedAt / 1_000) - 1;
    return isOfThisStart && lines[7]?.trim() === "ready";
  } catch {
    return false;
  }
}

/** @throws HawserError `dev_server_failed` if the cluster no longer has this password */
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
