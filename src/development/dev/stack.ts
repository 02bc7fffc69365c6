/**
 * Dev stack: a Postgres and a nats-server for demos, tests and `hawser dev`.
 *
 * Guarantee: after the start, both servers answer; after the stop, or a kill of this process, no process of the stack
 * runs any more, and a temporary directory is removed.
 */
import type pg from "pg";
import { parse } from "pg-connection-string";
import { HawserError, withoutPasswords } from "../../foundation/errors/index.js";
import { DatabaseAddress, openSession } from "../../foundation/postgres/index.js";
import type { PortWish } from "./free-port.js";
import { natsAnswers, startNats } from "./nats/embedded-nats.js";
import { startPostgres } from "./postgres/embedded-postgres.js";
import { createTemporary, giveUp, openNamed, type RunDirectory } from "./run-directory.js";
import { type DevServer, type ServerProcess, serverAccount } from "./server-process.js";
import { guardDirectory, stopServersOf, sweepLeftovers } from "./sweep.js";

/**
 * Variables of libpq for the URL of a stack's Postgres; as an argument of psql, other users could read the password.
 * Parts that the URL lacks are omitted, and parameters other than the address are ignored. An undefined variable is to
 * be removed.
 *
 * @returns no variables for a URL of several hosts
 * @throws HawserError `invalid_argument` if the URL cannot be read
 */
export function libpqVariables(url: string): Record<string, string | undefined> {
  const [only, ...others] = DatabaseAddress.of(url, {}).hosts;
  if (others.length > 0) return {};
  const { host, port, database, user, password } = parse(only!.connectionString!);
  const given = { PGHOST: host, PGPORT: port, PGDATABASE: database, PGUSER: user, PGPASSWORD: password };
  return {
    // libpq prefers these two to PGHOST.
    PGSERVICE: undefined,
    PGHOSTADDR: undefined,
    ...Object.fromEntries(Object.entries(given).flatMap(([name, value]) => (value ? [[name, value]] : []))),
  };
}

/** Variables with further URLs for the database, which are not for that of a stack: undefined, to be removed. */
export const furtherUrls = {
  HAWSER_SESSION_URL: undefined,
  HAWSER_EXECUTOR_URL: undefined,
  HAWSER_PAGE_DATABASE_URL: undefined,
} as const;

/** Options of a dev stack. */
export interface DevStackOptions {
  /**
   * Directory for data and logs. It is kept, and the next start finds the data again. Without it, a temporary directory
   * is used and removed in the end.
   */
  readonly directory?: string | undefined;
  /** Start a nats-server too. Default true. */
  readonly nats?: boolean | undefined;
  /** Port of Postgres. Default: any free port. */
  readonly postgresPort?: PortWish | undefined;
  /** Port of nats-server. Default: any free port. */
  readonly natsPort?: PortWish | undefined;
  /** Text of a configuration file for nats-server, such as its accounts. Not applied to a server of HAWSER_NATS_URL. */
  readonly natsConfig?: string | undefined;
  /** `max_connections` of Postgres. Default 300. */
  readonly maxConnections?: number | undefined;
  /** Further arguments of `initdb` for a new cluster, such as its collation. */
  readonly initdb?: readonly string[] | undefined;
  /** Called with a message for each step. */
  readonly onProgress?: ((message: string) => void) | undefined;
  /** Aborts the start: servers that were started are stopped, and the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of stopping a stack. */
interface StopOptions {
  /** Skips the graceful shutdown; Postgres recovers at its next start. Default false. */
  readonly immediately?: boolean | undefined;
}

/** Running stack. It runs until it is stopped or this process ends. */
export interface DevStack extends AsyncDisposable {
  /** URL that connects as superuser to the database `postgres`. */
  readonly databaseUrl: string;
  /** URL without credentials unless `natsConfig` requires them; JetStream is on. Null if the stack has no NATS. */
  readonly natsUrl: string | null;
  readonly servers: readonly DevServer[];
  /** Directory of data and logs; undefined if no server was started here. */
  readonly directory: string | undefined;
  /** Resolves when the stack has stopped; rejects with `dev_server_failed` if a server ends by itself. */
  readonly closed: Promise<void>;
  /** Stops the servers that were started. A further call with `immediately` shortens the shutdown. */
  stop(options?: StopOptions): Promise<void>;
}

/**
 * Starts the stack and resolves when all servers answer. Servers named by HAWSER_DATABASE_URL and HAWSER_NATS_URL are
 * used instead of embedded ones, and are not stopped. Throws `dev_server_failed` after stopping all started servers and
 * removing a temporary directory.
 */
export async function startDevStack(options: DevStackOptions = {}): Promise<DevStack> {
  const { onProgress = () => undefined, signal } = options;
  const wantsNats = options.nats ?? true;
  const [givenPostgres, givenNats] = await Promise.all([externalPostgres(), wantsNats ? externalNats() : undefined]);
  if (givenPostgres !== undefined && (givenNats !== undefined || !wantsNats)) {
    return runningStack(givenNats === undefined ? [givenPostgres] : [givenPostgres, givenNats]);
  }
  if (process.platform === "win32") {
    throw new HawserError(
      "not_supported",
      "Embedded servers run on Linux and macOS only. Set HAWSER_DATABASE_URL and HAWSER_NATS_URL to running servers.",
    );
  }
  for (const path of await sweepLeftovers()) onProgress(`Removed ${path}, left over from a stack that was killed`);
  signal?.throwIfAborted();
  const directory = await openRunDirectory(options.directory);
  let endWatchdog = async (): Promise<void> => undefined;
  try {
    // The watchdog starts before any server, so that the death of this process leaves nothing behind.
    const guarding = guardDirectory(directory).then((end) => (endWatchdog = end));
    onProgress("Starting Postgres and nats-server");
    const failure = new AbortController();
    const signals = AbortSignal.any([failure.signal, ...(signal ? [signal] : [])]);
    const starting = [
      givenPostgres
        ? undefined
        : startPostgres(directory, {
            maxConnections: options.maxConnections ?? 300,
            port: options.postgresPort,
            initdb: options.initdb,
            onProgress,
            signal: signals,
          }),
      givenNats || !wantsNats
        ? undefined
        : startNats(directory, { port: options.natsPort, config: options.natsConfig, onProgress, signal: signals }),
      guarding,
    ] as const;
    const [postgres, nats] = await allOrNone(starting, failure);
    signal?.throwIfAborted();
    const started = [postgres, nats].filter((each) => each !== undefined);
    const servers = [givenPostgres ?? postgres?.server, givenNats ?? nats?.server].filter((each) => each !== undefined);
    return runningStack(servers, { processes: started.map((each) => each.process), directory, endWatchdog });
  } catch (error) {
    await stopServersOf(directory.path);
    giveUp(directory);
    await endWatchdog();
    if (error instanceof HawserError || signal?.aborted) throw error;
    throw new HawserError("dev_server_failed", `The dev servers could not be started: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/**
 * Like Promise.all, but rejects only after all promises have settled, so that the cleanup misses nothing. The first
 * failure aborts the others.
 */
async function allOrNone<const T extends readonly unknown[]>(
  parts: T,
  others: AbortController,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  const all = Promise.all(parts);
  all.catch((error) => others.abort(error));
  await Promise.allSettled(parts);
  return all;
}

async function openRunDirectory(named: string | undefined): Promise<RunDirectory> {
  const account = serverAccount();
  if (named === undefined) return createTemporary(account);
  const directory = openNamed(named, account);
  // The previous owner of the directory may have been killed together with its watchdog.
  await stopServersOf(directory.path);
  return directory;
}

/** Parts of a stack that were started here. */
interface StartedParts {
  readonly processes: readonly ServerProcess[];
  readonly directory: RunDirectory;
  readonly endWatchdog: () => Promise<void>;
}

function runningStack(servers: readonly DevServer[], started?: StartedParts): DevStack {
  const processes = started?.processes ?? [];
  let stopping: Promise<void> | undefined;
  let close: () => void;
  const closed = new Promise<void>((resolve, reject) => {
    close = resolve;
    for (const each of processes) {
      void each.ended.then(() => {
        if (stopping === undefined) reject(each.endedEarly());
      });
    }
  });
  // A caller may ignore `closed`; an unobserved rejection must not end the process.
  closed.catch(() => undefined);
  const stop = ({ immediately = false }: StopOptions = {}): Promise<void> => {
    const ending = processes.map((each) => each.stop({ immediately }));
    stopping ??= Promise.all(ending).then(async () => {
      if (started !== undefined) giveUp(started.directory);
      // The watchdog ends last: until then it cleans up if this process dies.
      await started?.endWatchdog();
      close();
    });
    return stopping;
  };
  return {
    databaseUrl: servers.find(({ name }) => name === "Postgres")!.url,
    natsUrl: servers.find(({ name }) => name === "nats-server")?.url ?? null,
    servers,
    directory: started?.directory.path,
    closed,
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}

const connectTimeoutMs = 10_000;

/** Postgres of HAWSER_DATABASE_URL with its version; undefined if the variable is not set. */
async function externalPostgres(): Promise<DevServer | undefined> {
  const url = process.env["HAWSER_DATABASE_URL"];
  if (!url) return undefined;
  let client: pg.Client | undefined;
  try {
    ({ client } = await openSession(DatabaseAddress.of(url), { connectTimeoutMs: connectTimeoutMs }));
    const { rows } = await client.query<{ server_version: string }>("SHOW server_version");
    return { name: "Postgres", url, version: rows[0]!.server_version, origin: "HAWSER_DATABASE_URL" };
  } catch (cause) {
    throw unreachable("HAWSER_DATABASE_URL", url, "Postgres", cause);
  } finally {
    await client?.end().catch(() => undefined);
  }
}

/** nats-server of HAWSER_NATS_URL; undefined if the variable is not set. */
async function externalNats(): Promise<DevServer | undefined> {
  const url = process.env["HAWSER_NATS_URL"];
  if (!url) return undefined;
  if (!URL.canParse(url) || !(await natsAnswers(url))) throw unreachable("HAWSER_NATS_URL", url, "nats-server");
  return { name: "nats-server", url, origin: "HAWSER_NATS_URL" };
}

function unreachable(variable: string, url: string, server: string, cause?: unknown): HawserError {
  return new HawserError(
    "dev_server_failed",
    `No ${server} can be used at ${withoutPasswords(url)}, the value of ${variable}. ` +
      "Correct it, or unset it to use an embedded server.",
    { cause },
  );
}
