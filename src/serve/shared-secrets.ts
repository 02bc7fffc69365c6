/**
 * Whether a directory of secrets is for the gateway alone.
 */
import { readdir } from "node:fs/promises";
import { join, normalize, sep } from "node:path";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";

/**
 * The entries of the directory that no option names, and that hold none that an option names; none if there is no such
 * directory or it cannot be listed. What begins with a dot does not count: Kubernetes keeps its own there.
 */
export async function strangersAmong(
  directory: string,
  options: CompleteNatsServerOptions | undefined,
): Promise<string[]> {
  const named = Object.entries(options ?? {})
    .filter(([option, value]) => option.endsWith("_path") && typeof value === "string")
    .map(([, value]) => normalize(value as string));
  const entries = await readdir(directory).catch(() => []);
  return entries.filter((entry) => {
    const path = join(directory, entry);
    return !entry.startsWith(".") && !named.some((file) => file === path || file.startsWith(path + sep));
  });
}
