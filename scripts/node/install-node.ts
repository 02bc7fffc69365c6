import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { cacheDirectory } from "../../src/development/dev/index.js";
import { installPackage } from "../npm-cache/install-package.js";

export interface NodeRuntime {
  /** Directory with `node`, for PATH. */
  readonly binDirectory: string;
  readonly program: string;
  /** Version, such as `v24.21.0`. */
  readonly version: string;
}

/**
 * Finds the newest Node of a major version for this platform in the cache, or installs it there from the npm package
 * `node-<platform>-<arch>`. Throws if npm fails; npm prints its error to standard error.
 */
export function installNode(major: string): NodeRuntime {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  const place = join(cacheDirectory(), "node", `${name}-${major}`);
  const binDirectory = join(installPackage(name, major, place), "bin");
  const program = join(binDirectory, "node");
  const version = execFileSync(program, ["--version"], { encoding: "utf8" }).trim();
  return { binDirectory, program, version };
}
