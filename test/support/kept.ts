/**
 * Tools that tests download or build once, in the cache of `hawser dev`.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "../../src/dev/nats/binary.js";

/** Makes a directory of the cache, if it is not there, and returns the path of a file in it. */
export async function kept(place: string, name: string, make: (directory: string) => Promise<void>): Promise<string> {
  const directory = join(cacheDirectory(), place);
  const file = join(directory, name);
  if (existsSync(file)) return file;
  const parent = join(directory, "..");
  mkdirSync(parent, { recursive: true });
  const draft = mkdtempSync(join(parent, ".draft-"));
  try {
    await make(draft);
    // Others may have done the same meanwhile.
    if (!existsSync(file)) renameSync(draft, directory);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return file;
}
