/**
 * Prometheus and its tool for rules and their tests: of PATH, of the cache, or of Debian's package.
 */
import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { cacheDirectory } from "../../src/development/dev/nats/binary.js";
import { debianPackage } from "../../src/development/dev/nats/sources.js";
import { findProgram } from "../../src/development/dev/server-process.js";

/** Path of promtool; a promise that rejects says why it cannot be had here. */
export function findPromtool(): Promise<string> {
  return find("promtool");
}

/** Path of Prometheus, as {@link findPromtool}. */
export function findPrometheus(): Promise<string> {
  return find("prometheus");
}

async function find(name: "prometheus" | "promtool"): Promise<string> {
  const kept = join(cacheDirectory(), name, `${process.platform}-${process.arch}`, name);
  for (const program of [findProgram(name), kept]) if (program !== undefined && (await runs(program))) return program;
  const directory = mkdtempSync(join(tmpdir(), "hawser-fetch-"));
  try {
    const fetched = debianPackage({ package: "prometheus", path: `usr/bin/${name}` }).fetch(directory);
    for await (const { program } of fetched) if (await runs(program)) return keep(program, kept);
    throw new Error("none of Debian's packages has one that runs on this machine");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function runs(program: string): Promise<boolean> {
  if (!existsSync(program)) return false;
  return promisify(execFile)(program, ["--version"], { timeout: 30_000 }).then(
    () => true,
    () => false,
  );
}

/** Renamed into place, as others may be doing the same. */
function keep(program: string, place: string): string {
  const directory = join(place, "..");
  mkdirSync(directory, { recursive: true });
  const draft = mkdtempSync(join(directory, ".draft-"));
  copyFileSync(program, join(draft, basename(place)));
  renameSync(join(draft, basename(place)), place);
  rmSync(draft, { recursive: true });
  return place;
}
