import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { cacheDirectory } from "../../src/dev/index.js";
import { goInstall } from "../../src/dev/nats/sources.js";

const program = "nats-server";

/** An installed server. */
export interface InstalledNats {
  /** The directory with `nats-server`, for PATH. */
  readonly binDirectory: string;
  /** Such as `2.9.25`. */
  readonly version: string;
}

/**
 * Finds a nats-server in the cache, or builds it there with the Go toolchain. Not where the development servers look for
 * one: they take the newest that they find, and are not to find an old one. Rejects with what Go said if it cannot.
 *
 * @param version such as `2.9.25`; with `2.9`, the newest 2.9 there was when it was first built here
 */
export async function installNats(version: string): Promise<InstalledNats> {
  const binDirectory = join(cacheDirectory(), "nats", `${version}-${process.platform}-${process.arch}`);
  if (!existsSync(binDirectory)) await build(version, binDirectory);
  const said = execFileSync(join(binDirectory, program), ["-v"], { encoding: "utf8" });
  return { binDirectory, version: /\d+(\.\d+)+/.exec(said)?.[0] ?? said.trim() };
}

async function build(version: string, place: string): Promise<void> {
  mkdirSync(dirname(place), { recursive: true });
  // Built elsewhere and renamed: an interrupted build is not found by the next run.
  const draft = mkdtempSync(join(dirname(place), ".draft-"));
  try {
    console.error(`Building nats-server ${version} with Go into ${place}`);
    await goInstall(version).fetch(draft)[Symbol.asyncIterator]().next();
    chmodSync(draft, 0o755);
    renameSync(draft, place);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    // Another run may have been faster.
    if (!existsSync(place)) throw error;
  }
}
