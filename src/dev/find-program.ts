import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The full path of a program on PATH, or undefined. Relative entries of PATH are not looked at. */
export function findProgram(name: string, path = process.env["PATH"] ?? ""): string | undefined {
  for (const directory of path.split(delimiter)) {
    if (!directory.startsWith("/")) continue;
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here; the next entry may have it.
    }
  }
  return undefined;
}
