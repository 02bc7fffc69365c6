import { readFileSync } from "node:fs";

/** Version of this package; "unknown" if its package.json is not beside it, as in a bundle. */
export const version: string = readVersion();

function readVersion(): string {
  // From source, package.json is three directories up; from compiled code, four.
  for (const up of ["../../../package.json", "../../../../package.json"]) {
    const found = readPackage(new URL(up, import.meta.url));
    if (found?.name === "hawser") return found.version;
  }
  return "unknown";
}

function readPackage(url: URL): { name: string; version: string } | undefined {
  try {
    return JSON.parse(readFileSync(url, "utf8")) as { name: string; version: string };
  } catch {
    return undefined;
  }
}
