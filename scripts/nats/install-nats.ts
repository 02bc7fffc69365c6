import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { cacheDirectory } from "../../src/development/dev/index.js";
import { goInstall } from "../../src/development/dev/nats/sources.js";

const program = "nats-server";

export interface InstalledNats {
  /** Directory with `nats-server`, for PATH. */
  readonly binDirectory: string;
  /** Version, such as `2.9.25`. */
  readonly version: string;
}

/**
 * Finds a nats-server in the cache, or builds it there with the Go toolchain. The directory differs from the one of the
 * development servers, which use the newest server that they find and must not find an old one. Rejects with the error
 * of Go if it cannot be built.
 *
 * @param version such as `2.9.25`; for `2.9`, the newest 2.9 at the time of the first build
 */
export async function installNats(version: string): Promise<InstalledNats> {
  const binDirectory = join(cacheDirectory(), "nats", `${version}-${process.platform}-${process.arch}`);
  if (!existsSync(binDirectory)) await build(version, binDirectory);
  const said = execFileSync(join(binDirectory, program), ["-v"], { encoding: "utf8" });
  return { binDirectory, version: /\d+(\.\d+)+/.exec(said)?.[0] ?? said.trim() };
}

async function build(version: string, place: string): Promise<void> {
  mkdirSync(dirname(place), { recursive: true });
  // Built elsewhere and renamed, so that the next run never finds an interrupted build.
  const draft = mkdtempSync(join(dirname(place), ".draft-"));
  try {
    console.error(`Building nats-server ${version} with Go into ${place}`);
    await goInstall(version).fetch(draft)[Symbol.asyncIterator]().next();
    chmodSync(draft, 0o755);
    renameSync(draft, place);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    // Another run may have finished first.
    if (!existsSync(place)) throw error;
  }
}
