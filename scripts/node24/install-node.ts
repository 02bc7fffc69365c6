import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "../../src/dev/index.js";

/** An installed runtime. */
export interface NodeRuntime {
  /** The directory with `node`, for PATH. */
  readonly binDirectory: string;
  readonly program: string;
  /** Such as `v24.21.0`. */
  readonly version: string;
}

/**
 * Finds the newest Node of a major version for this platform in the cache, or installs it there from the npm package
 * `node-<platform>-<arch>`. Throws if npm cannot; its own words go to standard error.
 */
export async function installNode(major: string): Promise<NodeRuntime> {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  const root = join(cacheDirectory(), "node");
  const place = join(root, `${name}-${major}`);
  if (!existsSync(place)) {
    mkdirSync(root, { recursive: true });
    // Installed elsewhere and renamed: an interrupted installation is not found by the next run.
    const draft = mkdtempSync(join(root, ".draft-"));
    try {
      writeFileSync(join(draft, "package.json"), '{ "private": true }\n');
      console.error(`Installing ${name}@${major} from the npm registry into ${place}`);
      const args = ["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", `${name}@${major}`];
      execFileSync("npm", args, { cwd: draft, stdio: ["ignore", 2, 2] });
      renameSync(draft, place);
    } catch (error) {
      rmSync(draft, { recursive: true, force: true });
      // Another run may have been faster.
      if (!existsSync(place)) throw error;
    }
  }
  const binDirectory = join(place, "node_modules", name, "bin");
  const program = join(binDirectory, "node");
  const version = execFileSync(program, ["--version"], { encoding: "utf8" }).trim();
  return { binDirectory, program, version };
}
