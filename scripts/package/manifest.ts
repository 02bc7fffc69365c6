import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Parts of package.json that name compiled files. */
export interface PackageManifest {
  readonly bin: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string | EntryPoint>>;
}

/** Files of one entry point, relative to the root of the package. */
export interface EntryPoint {
  readonly types: string;
  readonly default: string;
}

/** Reads the package.json in a folder. */
export function readManifest(folder: string): PackageManifest {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as PackageManifest;
}

/** Entry points by the name that users import: `hawser`, `hawser/nats`, … */
export function entryPointsOf({ exports }: PackageManifest): ReadonlyMap<string, EntryPoint> {
  return new Map(
    Object.entries(exports).flatMap(([path, entry]) =>
      typeof entry === "string" ? [] : [[`hawser${path.slice(1)}`, entry] as const],
    ),
  );
}

/** Files with the code of all entry points and commands. */
export function codeOf(manifest: PackageManifest): string[] {
  return [...[...entryPointsOf(manifest).values()].map((entry) => entry.default), ...Object.values(manifest.bin)];
}
