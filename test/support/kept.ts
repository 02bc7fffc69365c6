/**
 * Tools that tests download or build once, in the cache of `hawser dev`.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "../../src/development/dev/nats/binary.js";

/** A tool that tests need. Without it they are skipped, with a line that says so; where CI is set they fail. */
export async function toolOrSkip<T>(tool: Promise<T>, tests: string): Promise<T | undefined> {
  return await tool.catch((error: unknown) => {
    if (process.env["CI"]) throw error;
    console.error(`${tests} are skipped: ${String(error)}`);
    return undefined;
  });
}

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
