import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * Installs an npm package in a directory of its own, unless it is installed, and returns the path of the package.
 * Install scripts are not run. Every user may read the files. Throws if npm fails; npm prints its error to standard
 * error.
 *
 * @param version any version that npm accepts after the `@`; for a range, the first installed version is kept
 * @param place the directory, whose path should contain package and version
 * @param beside further packages for the same directory, as `name@version`; if there are any, peer dependencies are not
 * installed
 */
export function installPackage(name: string, version: string, place: string, beside: readonly string[] = []): string {
  const installed = join(place, "node_modules", name);
  if (existsSync(place)) return installed;
  const umask = process.umask(0o022);
  try {
    mkdirSync(dirname(place), { recursive: true });
    // Installed elsewhere and renamed, so that the next run never finds an interrupted installation.
    const draft = mkdtempSync(join(dirname(place), ".draft-"));
    try {
      writeFileSync(join(draft, "package.json"), '{ "private": true }\n');
      console.error(`Installing ${name}@${version} from the npm registry into ${place}`);
      const quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"];
      if (beside.length > 0) quiet.push("--legacy-peer-deps");
      execFileSync("npm", ["install", ...quiet, `${name}@${version}`, ...beside], {
        cwd: draft,
        stdio: ["ignore", 2, 2],
      });
      chmodSync(draft, 0o755);
      renameSync(draft, place);
    } catch (error) {
      rmSync(draft, { recursive: true, force: true });
      // Another run may have finished first.
      if (!existsSync(place)) throw error;
    }
  } finally {
    process.umask(umask);
  }
  return installed;
}
