import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { InstalledPostgres } from "./install-postgres.js";

/** Directory of the versions that packages of Debian, Ubuntu and PGDG install. */
const versionsDirectory = "/usr/lib/postgresql";

/**
 * Finds the newest Postgres that Debian's, Ubuntu's or PGDG's packages have installed with LLVM. As root it installs the
 * distribution's own if there is none.
 *
 * @throws Error that says how to install it; errors of apt-get, which prints them to standard error
 */
export function debianPostgres(): InstalledPostgres {
  const installed = newestInstalled();
  if (installed !== undefined) return installed;
  const packages = "postgresql, of PGDG also postgresql-18-jit";
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new Error(
      `${versionsDirectory} has no Postgres with LLVM (lib/llvmjit.so). Install it: sudo apt-get install ${packages}.`,
    );
  }
  aptGet("update", "--quiet");
  aptGet("install", "--quiet", "--yes", "--no-install-recommends", "postgresql");
  const found = newestInstalled();
  if (found === undefined) throw new Error(`the package postgresql has no LLVM here; install ${packages}`);
  return found;
}

function newestInstalled(): InstalledPostgres | undefined {
  if (!existsSync(versionsDirectory)) return undefined;
  const [newest] = readdirSync(versionsDirectory)
    .filter((major) => Number(major) >= 14)
    .map((major) => join(versionsDirectory, major))
    .filter((place) => existsSync(join(place, "bin/initdb")) && existsSync(join(place, "lib/llvmjit.so")))
    .sort((one, other) => other.localeCompare(one, "en", { numeric: true }));
  if (newest === undefined) return undefined;
  const binDirectory = join(newest, "bin");
  const output = execFileSync(join(binDirectory, "postgres"), ["--version"], { encoding: "utf8" });
  return { binDirectory, version: /\d+(\.\d+)*/.exec(output)?.[0] ?? output.trim() };
}

function aptGet(...args: string[]): void {
  // The package starts no server: the tests start theirs.
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  execFileSync("/usr/bin/apt-get", args, { env, stdio: ["ignore", "inherit", "inherit"] });
}
